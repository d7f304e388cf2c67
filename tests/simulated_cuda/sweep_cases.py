"""Cases of a whole sweep: `train.py device=cuda` in this process, against runs that each train alone on the CPU."""

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

from anchorloss.errors import ClaimLostError
from anchorloss.runs import checkpoint
from anchorloss.runs.claims import FILE, Claim
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import CONFIG, HISTORY, PREDICTIONS, RECORD, Record, read_record, verify_files
from anchorloss.sweep import executor
from anchorloss.training import run as run_module
from tests.conftest import ROOT
from tests.conftest import SMALL as TEST_SETTINGS
from tests.in_process import data_of, files, finish, settings, start
from tests.simulated_cuda.common import EXACT, SMALL, counted_steps, simulated
from tests.simulated_cuda.device import NAME

# Ten steps an epoch.
SWEPT = (*EXACT, *SMALL, "optim.batch_size=10", "optim.epochs=2", "optim.decay_at=[0.5]")
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


def case_sweep_in_one_go() -> None:
    """Without a budget: two runs at a time, another as soon as one has ended, and every run saved now and then."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        expected = alone(Path(folder) / "alone")
        command = Command(Path(folder), "cuda:0")
        together = set()

        def at_each(count: int) -> None:
            # A run has its claim from its start to its record.
            held = sorted(path.parent.name.split("-")[0] for path in command.results.rglob(FILE))
            together.add(len(held))

        with simulated_time() as gpu, counted_steps(at_each) as steps:
            status, printed = command("checkpoint_seconds=1")
            assert status == 0, printed
            assert "stopped" not in printed
            assert max(together) == 2
            assert steps.count == STEPS
            # Two beside each other, so half the time of one after another, and what the queues leave unused.
            at_best = STEPS * SECONDS_PER_STEP / 2
            assert at_best <= gpu.seconds - SECONDS_TO_START <= 1.3 * at_best
        assert {record.provenance.resumed for record in command.records().values()} == {0}
        assert_same_results(command, expected, Path(folder) / "alone")


def case_killed() -> None:
    """A process that ends without saying so, as a machine without power, loses what it trained since a checkpoint."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        command = Command(Path(folder), "cuda", "checkpoint_seconds=1")
        # Before anything is trained here: autograd's threads do not outlive a fork.
        child = os.fork()
        if child == 0:
            with simulated_time(), counted_steps(lambda count: count < 30 or os._exit(7)):
                command()
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        expected = alone(Path(folder) / "alone")
        assert len(command.saved()) == 2
        with simulated_time(), counted_steps() as steps:
            status, printed = command()
            assert status == 0, printed
        # A second and a queue, each of two runs, is the most that is trained again.
        assert STEPS - 30 < steps.count <= STEPS - 30 + 2 * 2 / SECONDS_PER_STEP
        assert_same_results(command, expected, Path(folder) / "alone")


def case_shared() -> None:
    """Runs that another process holds, takes over or ends are left to it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        expected = alone(Path(folder) / "alone")
        command = Command(Path(folder), "cuda")

        def end_elsewhere(run: Path) -> None:
            """Bring the run's record as another process would."""
            other = Path(folder) / "alone" / "runs" / "simulated" / run.name
            for name in (HISTORY, PREDICTIONS, RECORD):
                (run / name).write_bytes((other / name).read_bytes())

        with simulated_time() as gpu, counted_steps() as steps, pytest.MonkeyPatch.context() as patch:
            status, printed = command("minutes=1e-9")
            assert (status, steps.count) == (0, 0), printed
            held, ended, lost, plain = command.folders()
            other = Claim(held)
            assert other.acquire()

            class Elsewhere(Claim):
                """Another process ends one run just before it is claimed, and takes another over as it trains."""

                losses = 0

                def acquire(self) -> bool:
                    if self.folder == held and len(command.records()) == 3:
                        gpu.seconds += 5  # time passes while this process waits
                    if self.folder == ended and not (ended / RECORD).exists():
                        end_elsewhere(ended)
                    return super().acquire()

                def require(self) -> None:
                    super().require()
                    if self.folder == lost and steps.count > 8 and not Elsewhere.losses:
                        Elsewhere.losses += 1
                        raise ClaimLostError("taken over")

            patch.setattr(executor, "Claim", Elsewhere)
            status, printed = command("minutes=0.5")
            assert status == 0, printed
            assert "waiting for 1 run trained elsewhere" in printed
            assert "taken over" in printed
            assert Elsewhere.losses == 1
            assert "with 1 of 4 runs unfinished" in printed
            assert command.records().keys() == {each.name for each in (ended, lost, plain)}
            assert not command.saved()
            assert [path.parent for path in command.results.rglob(FILE)] == [held]
            trained = steps.count
            assert 2 * 20 <= trained <= 2 * 20 + 20
            end_elsewhere(held)
            other.release()
            status, printed = command()
            assert status == 0, printed
            assert steps.count == trained
        assert_same_results(command, expected, Path(folder) / "alone")


def case_sweep_with_failures() -> None:
    """Runs that diverge give status 1 and are retried when asked to; an error in one run leaves the others saved."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        command = Command(Path(folder), "cuda:0", "concurrent=auto", "loss=bce")
        for argument in ("-m", "loss=bce,anchor_bg"):
            command.arguments.remove(argument)
        with simulated(), counted_steps() as steps:
            status, printed = command("optim.lr=1e30")
            assert status == 1, printed
            assert "2 of 2 runs failed" in printed
            failed = command.records()
            assert {record.status for record in failed.values()} == {"failed"}
            trained = steps.count
            status, printed = command("optim.lr=1e30")
            assert status == 1
            assert printed.count("skipped") == 2
            assert steps.count == trained
            for number in (1, 2):
                status, printed = command("optim.lr=1e30", "--retry-failed")
                assert status == 1
                assert steps.count == (1 + number) * trained
                assert all((each / f"failed-{number}.json").exists() for each in command.folders())
            assert {name: record.failure for name, record in command.records().items()} == {
                name: record.failure for name, record in failed.items()
            }

        other = Command(Path(folder) / "other", "cuda")
        with simulated_time(), counted_steps():
            status, printed = other("minutes=0.06")
            assert status == 0, printed
            broken, whole = other.saved()
            (broken / HISTORY).unlink(missing_ok=True)
            (broken / HISTORY).mkdir()
            before = (whole / checkpoint.NEWEST).read_bytes()
            status, printed = other("checkpoint_seconds=1e9")
            assert status == 2, printed
            assert (whole / checkpoint.NEWEST).read_bytes() != before
            assert not list(other.results.rglob(FILE))
            assert not other.records()


def case_data_sets() -> None:
    """Runs on different data in one sweep each train on their own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        expected = {}
        for images in (100, 120):
            (run,) = settings(
                *SWEPT, "seeds=[0]", f"data.training_images={images}", "experiment.name=simulated"
            )
            expected[run.run] = finish(start(run, data_of(run), Path(folder) / "alone"))
        command = Command(Path(folder), "cuda")
        command.arguments[command.arguments.index("seeds=[0,1]")] = "seeds=[0]"
        command.arguments[command.arguments.index("loss=bce,anchor_bg")] = "loss=bce"
        command.arguments.remove("data.training_images=100")
        command.arguments[command.arguments.index("data.training_images=300")] = (
            "data.training_images=100,120"
        )
        with simulated():
            status, printed = command()
            assert status == 0, printed
        assert_same_results(command, expected, Path(folder) / "alone")
