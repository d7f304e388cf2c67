"""Several processes on one sweep: each run trained once, whoever dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from anchorloss.records import read_runs, same_result
from tests.conftest import SMALL, command

SWEEP = (*SMALL, "-m", "loss=bce,anchor_bg", "seeds=[0,1,2,3]", "checkpoint_seconds=0.3")


def begin(results: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start the sweep in a process of its own, which writes to `results`."""
    return subprocess.Popen(
        command(*overrides, f"results_dir={results}"),
        cwd=results.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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
    """The eight runs of the sweep, trained by one process that nothing disturbs."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
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
    """How many runs were reported as trained to their end."""
    return sum(output.count("Top-1") - output.count("skipped") for output in outputs)


@pytest.mark.timeout(600)
def test_four_processes_train_each_run_once(undisturbed, tmp_path):
    processes = [begin(tmp_path / "results", *SWEEP) for _ in range(4)]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert starts(outputs) == 8
    same(results_of(tmp_path / "results"), undisturbed)


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
    same(results_of(results), undisturbed)


def kill_repeatedly(
    results: Path, kills: int, generator: random.Random, sweep: tuple[str, ...] = SWEEP
) -> None:
    """Kill the sweep's process at random moments, starting it again each time, then let it end."""
    done = 0
    while done < kills:
        process = begin(results, *sweep)
        # Most of a start is importing torch; a kill there proves little.
        while process.poll() is None and not list(results.rglob("claim.lock")):
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 1.2))
        ended = process.poll()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if ended is not None:
            raise AssertionError(
                f"the sweep ended after {done} kills, before it could be killed {kills} times"
            )
        done += 1
    process = begin(results, *sweep)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


@pytest.mark.timeout(600)
def test_killed_ten_times_gives_the_same_records(undisturbed, tmp_path):
    kill_repeatedly(tmp_path / "results", 10, random.Random(0))
    same(results_of(tmp_path / "results"), undisturbed)


def test_sigint_saves_says_how_to_go_on_and_exits_130(tmp_path):
    results = tmp_path / "results"
    long = (*SMALL, "optim.epochs=1000", "loss=bce")
    process = begin(results, *long)
    while not list(results.rglob("progress.json")):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert "same command again" in output
    assert list(results.rglob("checkpoint.pt"))


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
    sweep = (*SWEEP, "optim.epochs=100")
    quiet = begin(tmp_path / "quiet", *sweep)
    output, _ = quiet.communicate(timeout=1500)
    assert quiet.returncode == 0, output
    kill_repeatedly(tmp_path / "results", 100, random.Random(1), sweep)
    same(results_of(tmp_path / "results"), results_of(tmp_path / "quiet"))
