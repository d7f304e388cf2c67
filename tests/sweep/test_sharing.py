"""Several processes on one sweep: each run trained once, whoever dies."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from anchorloss.runs.claims import Claim
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_runs
from anchorloss.sweep import plan
from tests.conftest import SMALL, command
from tests.in_process import execution
from tests.processes import Process
from tests.run_folders import finish_run, make_settings

SWEEP = (*SMALL, "-m", "loss=bce,anchor_bg", "seeds=[0,1,2,3]", "checkpoint_seconds=0.3")


def begin(results: Path, *overrides: str) -> Process:
    """Start the sweep in a process of its own, which writes to `results`."""
    return Process(command(*overrides, f"results_dir={results}"), cwd=results.parent, merge=True)


def results_of(results: Path):
    """Every run's record and the bytes of its files."""
    found = {}
    for run in read_runs(results, "scratch"):
        assert run.state == "finished", run
        files = [(run.folder / name).read_bytes() for name in ("history.csv", "predictions.npz")]
        found[run.name] = (run.record, *files)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The eight runs of the sweep, trained by one process that nothing disturbs, once for all of pytest's workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    results = folder / "undisturbed" / "results"
    with FileLock(folder / "undisturbed.lock"):
        if not results.parent.exists():
            results.parent.mkdir()
            process = begin(results, *SWEEP)
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    return results_of(results)


def same(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, (record, history, predictions) in found.items():
        assert same_result(record, expected[name][0])
        assert (history, predictions) == expected[name][1:]


def starts(outputs: list[str]) -> int:
    """How many runs were reported as trained to their end; the lines by loss at the end are no runs."""
    return sum(
        output.count("Top-1") - output.count("skipped") - output.count(" seeds)") for output in outputs
    )


@pytest.mark.timeout(600)
def test_killing_two_of_four_still_gives_every_record(undisturbed, tmp_path):
    results = tmp_path / "results"
    processes = [begin(results, *SWEEP) for _ in range(4)]
    while len(list(results.rglob("record.json"))) < 2:
        time.sleep(0.05)
    for process in processes[:2]:
        process.kill()
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes[2:]] == [0, 0], outputs
    assert starts(outputs) <= 8, "a run was trained to its end twice"
    same(results_of(results), undisturbed)


def trains(process: Process, results: Path) -> bool:
    """Whether the process has claimed a run."""
    for lock in results.rglob("claim.lock"):
        try:
            if f"pid={process.pid}" in lock.read_text().splitlines():
                return True
        except OSError:  # released meanwhile
            continue
    return False


def saved(results: Path, since: float) -> bool:
    """Whether a run has been saved since that time."""
    times = []
    for path in results.rglob("checkpoint.pt"):
        with suppress(FileNotFoundError):  # its run has ended meanwhile
            times.append(path.stat().st_mtime)
    return any(moment > since for moment in times)


def kill_repeatedly(
    results: Path, kills: int, longest: float, generator: random.Random, sweep: tuple[str, ...]
) -> None:
    """Kill the sweep's process at random moments of its training, starting it again each time, then let it end.

    It trains for up to `longest` seconds. Every second time it has written a checkpoint, however slow the machine is.
    """
    for done in range(kills):
        begun = time.time()
        process = begin(results, *sweep)
        while process.poll() is None and not trains(process, results):
            time.sleep(0.02)
        while done % 2 and process.poll() is None and not saved(results, begun):
            time.sleep(0.02)
        time.sleep(generator.uniform(0, longest))
        ended = process.poll()
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert ended is None, f"ended after {done} of {kills} kills: {output}"
    process = begin(results, *sweep)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def check_killed(folder: Path, kills: int, seed: int, epochs: int) -> None:
    """A sweep of four runs, undisturbed and killed, gives the same; some kills met runs that had a checkpoint."""
    sweep = (
        *SMALL,
        "-m",
        "loss=bce,anchor_bg",
        "seeds=[0,1]",
        "checkpoint_seconds=0.1",
        f"optim.epochs={epochs}",
    )
    begun = time.monotonic()
    quiet = begin(folder / "quiet", *sweep)
    output, _ = quiet.communicate(timeout=1500)
    assert quiet.returncode == 0, output
    # All of them together leave about half of the training to the process that is not killed.
    longest = (time.monotonic() - begun) / kills
    kill_repeatedly(folder / "results", kills, longest, random.Random(seed), sweep)
    found = results_of(folder / "results")
    same(found, results_of(folder / "quiet"))
    assert sum(record.provenance.resumed for record, *_ in found.values()) > kills / 4


@pytest.mark.timeout(1500)
def test_killed_ten_times_gives_the_same_records(tmp_path):
    check_killed(tmp_path, kills=10, seed=0, epochs=16)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_saves_says_how_to_go_on_and_sets_the_status(tmp_path, name):
    results = tmp_path / "results"
    process = begin(results, *SMALL, "optim.epochs=1000", "loss=bce", "checkpoint_seconds=1e9")
    while not list(results.rglob("history.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    number = getattr(signal, name)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopping after this step" in output
    assert "same command again" in output
    assert list(results.rglob("checkpoint.pt"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_was_stopped_for_longer_than_its_lease_changes_no_finished_run(tmp_path):
    """As a laptop that is closed: another process takes the run over and ends it, then the first one wakes."""
    results = tmp_path / "results"
    sweep = (*SMALL, "loss=bce", "optim.epochs=30", "checkpoint_seconds=0.1")
    first = begin(results, *sweep)
    while not list(results.rglob("checkpoint.pt")):
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    second = begin(results, *sweep)
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    (folder,) = (results / "runs" / "scratch").iterdir()
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "record.json" in content
    first.send_signal(signal.SIGCONT)
    output, _ = first.communicate(timeout=100)
    assert first.returncode == 0, output
    assert "another process has taken this run over" in output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    results_of(results)


@pytest.mark.timeout(600)
def test_the_processes_launcher_shares_a_sweep_out(undisturbed, tmp_path):
    process = begin(tmp_path / "results", *SWEEP, "hydra/launcher=processes", "hydra.launcher.count=2")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert starts([output]) == 8
    same(results_of(tmp_path / "results"), undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_a_hundred_times_gives_the_same_records(tmp_path):
    check_killed(tmp_path, kills=100, seed=1, epochs=100)


def test_a_record_that_another_process_has_made_meanwhile_is_not_set_aside(tmp_path, monkeypatch):
    """Two commands with --retry-failed: the other one trains the run between this one's look and its claim."""
    settings = make_settings(epochs=3)
    folder = finish_run(tmp_path / "results", settings, failed=True)
    trained = finish_run(tmp_path / "other", settings)

    class LateClaim(Claim):
        def acquire(self) -> bool:
            for file in trained.iterdir():
                shutil.copy(file, folder)
            return super().acquire()

    monkeypatch.setattr(plan, "Claim", LateClaim)
    plan.set_failed_aside([settings], execution(results_dir=tmp_path / "results"))
    assert (folder / "record.json").read_bytes() == (trained / "record.json").read_bytes()
    assert not list(folder.glob("failed-*.json"))
    assert Claim(folder).acquire(), "the claim is given back"
