"""The case of a whole sweep: `train.py device=cuda` in this process, against runs that each train alone on the CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anchorloss.runs import checkpoint
from anchorloss.runs.claims import FILE
from anchorloss.runs.folder import CONFIG, HISTORY, PREDICTIONS, RECORD, read_record
from anchorloss.sweep import executor
from anchorloss.training import run as run_module
from tests.commands import call
from tests.conftest import SMALL
from tests.in_process import SMALLER, counted_steps, data_of, finish, settings, start
from tests.simulated_cuda.cases import EXACT, simulated
from tests.simulated_cuda.device import NAME

# Ten steps an epoch; two losses and two seeds, two runs at a time.
SWEPT = (*EXACT, *SMALLER, "optim.batch_size=10", "optim.epochs=2", "optim.decay_at=[0.5]")
SWEEP = ("-m", *SMALL, *SWEPT, "loss=bce,anchor_bg", "seeds=[0,1]", "concurrent=2", "checkpoint_seconds=0")
STEPS = 4 * 2 * 10
SECONDS_PER_STEP = 0.25


def results_of(results: Path) -> dict:
    """Result, history and predictions of each run, in whose folder nothing is left of the training."""
    found = {}
    for folder in (results / "runs" / "scratch").iterdir():
        assert {path.name for path in folder.iterdir()} - {CONFIG} == {HISTORY, PREDICTIONS, RECORD}
        files = [(folder / name).read_bytes() for name in (HISTORY, PREDICTIONS)]
        found[folder.name] = read_record(folder).result(), files
    return found


@contextlib.contextmanager
def simulated_time():
    """The simulated device, whose clock is that of the sweep; a step takes a quarter of a second."""
    with simulated() as gpu, pytest.MonkeyPatch.context() as patch:

        def monotonic() -> float:
            gpu.seconds += 1e-5
            return gpu.seconds

        def advance(seconds: float) -> None:
            gpu.seconds += seconds

        for module in (executor, run_module):
            patch.setattr(module, "time", SimpleNamespace(monotonic=monotonic, sleep=advance))
        gpu.seconds_per_replay = SECONDS_PER_STEP
        yield gpu


def case_sweep() -> None:
    """`train.py device=cuda`: stopped by its budget and by Ctrl-C, resumed, finished, skipped; the CPU's records."""
    interrupt_at = 0

    def at_each(count: int) -> None:
        if count == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    with tempfile.TemporaryDirectory() as folder:
        alone, results = Path(folder) / "alone", Path(folder) / "results"
        # Each by itself on the CPU, without the executor.
        for loss in ("bce", "anchor_bg"):
            for run in settings(*SWEPT, f"loss={loss}", "seeds=[0,1]"):
                finish(start(run, data_of(run), alone))

        def sweep(*more: str, status: int = 0) -> str:
            done = call("train.py", *SWEEP, "device=cuda", f"results_dir={results}", *more, seconds=500)
            assert done.returncode == status, done.stderr
            # Nobody holds a run any more.
            assert not list(results.rglob(FILE))
            return done.stdout + done.stderr

        def records() -> list:
            found = map(read_record, (results / "runs" / "scratch").iterdir())
            return [record for record in found if record is not None]

        with simulated_time() as gpu, counted_steps(at_each) as steps:
            torch.use_deterministic_algorithms(False)
            printed = sweep("minutes=0.02")
            assert "stopped after minutes=0.02 with 4 of 4 runs unfinished" in printed
            assert "same command again" in printed
            # The budget is 1.2 seconds; what is enqueued then is a second, each run's beside the other's.
            assert 1.2 <= gpu.seconds <= 2.4
            assert 2 * 1.2 / SECONDS_PER_STEP <= steps.count <= 2 * 2.4 / SECONDS_PER_STEP
            # The first seed of each loss had begun and was saved.
            saved = {path.parent.name.rsplit("-", 1)[0] for path in results.rglob(checkpoint.NEWEST)}
            assert saved == {"bce-small-seed0", "anchor_bg-small-seed0"}
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.benchmark
            assert not torch.backends.cudnn.allow_tf32

            interrupt_at = steps.count + 5
            assert "interrupted" in sweep(status=130)
            assert steps.count <= interrupt_at + 8
            stops = 0
            while len(records()) < 4:
                stops += 1
                assert stops < 9
                before = gpu.seconds
                sweep("minutes=0.07")
                assert gpu.seconds - before <= 4.2 + 1.5
            assert stops >= 2
            assert {record.provenance.device for record in records()} == {NAME}
            assert all(record.provenance.resumed >= 2 for record in records() if record.seed == 0)
            # Each step was trained once.
            assert steps.count == STEPS
            assert sweep().count("skipped") == 4
            assert steps.count == STEPS
        assert results_of(results) == results_of(alone)
