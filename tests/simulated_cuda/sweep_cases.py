"""The case of a whole sweep: `train.py device=cuda` in this process, against runs that each train alone on the CPU."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anchorloss.runs import checkpoint
from anchorloss.runs.claims import FILE, Claim
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import CONFIG, HISTORY, PREDICTIONS, RECORD, Record, read_record, verify_files
from anchorloss.sweep import executor
from anchorloss.training import run as run_module
from tests.conftest import ROOT
from tests.conftest import SMALL as TEST_SETTINGS
from tests.in_process import SMALLER, counted_steps, data_of, files, finish, settings, start
from tests.simulated_cuda.cases import EXACT, simulated
from tests.simulated_cuda.device import NAME

# Ten steps an epoch.
SWEPT = (*EXACT, *SMALLER, "optim.batch_size=10", "optim.epochs=2", "optim.decay_at=[0.5]")
STEPS = 4 * 2 * 10
SECONDS_PER_STEP = 0.25
SECONDS_TO_START = 3.0


class Command:
    """`train.py` in this process, with a sweep of two losses and two seeds, two runs at a time."""

    def __init__(self, folder: Path, device: str, *more: str) -> None:
        self.results = folder / "results"
        self.arguments = [
            "-m",
            *TEST_SETTINGS,
            *SWEPT,
            "loss=bce,anchor_bg",
            "seeds=[0,1]",
            "experiment.name=simulated",
            "concurrent=2",
            "checkpoint_seconds=0",
            f"device={device}",
            f"results_dir={self.results}",
            *more,
        ]

    def __call__(self, *more: str) -> tuple[int, str]:
        """The exit status and what was printed."""
        printed = io.StringIO()
        before = sys.argv
        sys.argv = [str(ROOT / "train.py"), *self.arguments, *more]
        status = 0
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.argv = before
        return status, printed.getvalue()

    def records(self) -> dict[str, Record]:
        found = (read_record(folder) for folder in self.folders())
        return {record.run: record for record in found if record is not None}

    def folders(self) -> list[Path]:
        return sorted((self.results / "runs" / "simulated").iterdir())

    def saved(self) -> list[Path]:
        """The folders that have a checkpoint."""
        return [folder for folder in self.folders() if (folder / checkpoint.NEWEST).exists()]


def alone(results: Path) -> dict[str, Record]:
    """The records of the sweep's runs, each trained by itself on the CPU, without the executor."""
    records = {}
    for loss in ("bce", "anchor_bg"):
        for run in settings(*SWEPT, f"loss={loss}", "seeds=[0,1]", "experiment.name=simulated"):
            records[run.run] = finish(start(run, data_of(run), results))
            files(results, run)
    return records


def assert_same_results(command: Command, expected: dict[str, Record], results: Path) -> None:
    """The sweep has these records and no others, beside the same files, and nothing is left of the training."""
    found = command.records()
    assert found.keys() == expected.keys()
    for folder in command.folders():
        record = found[folder.name]
        assert same_result(record, expected[folder.name]), folder.name
        verify_files(folder, record)
        other = results / "runs" / "simulated" / folder.name
        for name in (HISTORY, PREDICTIONS):
            assert (folder / name).read_bytes() == (other / name).read_bytes()
        assert {path.name for path in folder.iterdir()} == {
            CONFIG,
            HISTORY,
            PREDICTIONS,
            RECORD,
        }


@contextlib.contextmanager
def simulated_time():
    """The simulated device, whose clock is that of the sweep; a step takes a quarter of a second."""
    with simulated() as gpu, pytest.MonkeyPatch.context() as patch:

        def monotonic() -> float:
            gpu.seconds += 1e-5
            return gpu.seconds

        def advance(seconds: float) -> None:
            gpu.seconds += seconds

        def slow_plan(*configs: object) -> object:
            gpu.seconds += SECONDS_TO_START
            return make_plan(*configs)

        def save(folder: Path, *content: object) -> None:
            assert (folder / FILE).exists(), "a checkpoint is written without a claim"
            save_checkpoint(folder, *content)

        def claim(folder: Path) -> Claim:
            # Kept, because a claim that is forgotten gives itself up.
            claims.append(Claim(folder))
            return claims[-1]

        claims: list[Claim] = []
        patch.setattr(executor, "Claim", claim)
        make_plan, save_checkpoint = executor.plan, checkpoint.save
        patch.setattr(executor, "plan", slow_plan)
        patch.setattr(checkpoint, "save", save)
        for module in (executor, run_module):
            patch.setattr(module, "time", SimpleNamespace(monotonic=monotonic, sleep=advance))
        gpu.seconds_per_replay = SECONDS_PER_STEP
        yield gpu


def case_sweep() -> None:
    """`train.py device=cuda`: stopped by its budget and by Ctrl-C, resumed, finished, skipped; the CPU's records."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        expected = alone(Path(folder) / "alone")
        on_cpu = Command(Path(folder) / "cpu", "cpu")
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(False)
        status, printed = on_cpu()
        assert status == 0, printed
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert_same_results(on_cpu, expected, Path(folder) / "alone")
        torch.use_deterministic_algorithms(False)

        command = Command(Path(folder) / "cuda", "cuda")
        interrupt_at = 0

        def at_each(count: int) -> None:
            if count == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)

        with simulated_time() as gpu, counted_steps(at_each) as steps:
            status, printed = command("minutes=0.07")
            assert status == 0, printed
            assert "stopped after minutes=0.07 with 4 of 4 runs unfinished" in printed
            assert "same command again" in printed
            # The budget is 4.2 seconds, three to start; what is enqueued then is a second, each run's beside the other's.
            assert 4.2 <= gpu.seconds <= 5.4
            assert 2 * 1.2 / SECONDS_PER_STEP <= steps.count <= 2 * 2.4 / SECONDS_PER_STEP
            # The first seed of each loss had begun and was saved; nobody holds a run any more.
            begun = command.saved()
            assert {each.name.split("-seed")[0] for each in begun} == {"bce-small", "anchor_bg-small"}
            assert all("-seed0-" in each.name for each in begun)
            assert all((each / CONFIG).exists() for each in command.folders())
            assert not list(command.results.rglob(FILE))
            assert not command.records()
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.benchmark
            assert not torch.backends.cudnn.allow_tf32

            interrupt_at = steps.count + 5
            status, printed = command()
            assert status == 130, printed
            assert "interrupted" in printed
            assert "same command again" in printed
            assert steps.count <= interrupt_at + 8
            assert not list(command.results.rglob(FILE))
            stops = 0
            while len(command.records()) < 4:
                stops += 1
                before = gpu.seconds
                status, printed = command("minutes=0.12")
                assert status == 0, printed
                assert gpu.seconds - before <= 7.2 + 1.5
                assert stops < 9
            assert stops >= 2
            found = command.records()
            assert {record.provenance.device for record in found.values()} == {NAME}
            assert all(record.provenance.resumed >= 2 for record in found.values() if record.seed == 0)
            # Each step was trained once.
            assert steps.count == STEPS

            status, printed = command()
            assert status == 0, printed
            assert printed.count("skipped") == 4
            assert steps.count == STEPS
        assert_same_results(command, expected, Path(folder) / "alone")
