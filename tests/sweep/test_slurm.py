"""A sweep on a real Slurm of one node, whose jobs are cancelled, requeued, told to requeue and pre-empted."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster_sweep import ClusterSweep, is_done, resumed, wait_until
from tests.conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
LAUNCHER = (
    "hydra/launcher=slurm",
    "hydra.launcher.poll_seconds=0.5",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.time=30",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")
    script = ROOT / "scripts" / "cluster" / "slurm.sh"
    environment = {**os.environ, "FOLDER": str(tmp_path_factory.mktemp("slurm") / "slurm")}
    started = subprocess.run([script, "start"], env=environment, capture_output=True, text=True)
    if started.returncode == 3:
        pytest.skip(started.stderr.strip().splitlines()[-1])
    assert started.returncode == 0, started.stderr
    yield {**environment, "SLURM_CONF": f"{environment['FOLDER']}/slurm.conf"}
    subprocess.run([script, "stop"], env=environment, check=True)


@pytest.fixture
def sweep(environment, tmp_path):
    sweep = ClusterSweep(tmp_path, environment, *LAUNCHER)
    yield sweep
    sweep.close()
    slurm(environment, "scancel", f"--user={getpass.getuser()}")
    wait_until(lambda: not slurm(environment, "squeue", "--noheader"))


def slurm(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def queued(environment):
    """The numbers of the sweep's jobs that Slurm has in its queue."""
    lines = slurm(environment, "squeue", "--noheader", "--format=%i %j").splitlines()
    # A name may take two lines, of which the second is no job.
    jobs = (words for line in lines if len(words := line.split()) == 2)
    return {number for number, name in jobs if name.startswith("scratch-")}


def running_under_way(sweep):
    """The job that trains each run that has trained an epoch, so that it is stopped in the middle."""
    found = {}
    for run in sweep.under_way():
        with suppress(OSError, KeyError):  # it ends meanwhile
            claim = dict(
                line.split("=", 1) for line in (run / "claim.lock").read_text().split() if "=" in line
            )
            own = Path(f"/proc/{claim['pid']}/environ").read_text().split("\0")
            found[run.name] = dict(line.split("=", 1) for line in own if "=" in line)["SLURM_JOB_ID"]
    return found


def test_requeued_and_preempted_jobs_go_on_to_the_records_of_an_undisturbed_sweep(sweep):
    training = sweep.start()
    first, second = wait_until(lambda: len(found := running_under_way(sweep)) == 2 and list(found.items()))
    # The administrator's way, and that of Slurm's warning before a time limit.
    slurm(sweep.environment, "scontrol", "requeue", first[1])
    slurm(sweep.environment, "scancel", "--signal=USR2", second[1])
    wait_until(lambda: len(running_under_way(sweep)) == 2)
    # A job of the better partition wants the whole node.
    slurm(
        sweep.environment,
        "sbatch",
        "--partition=urgent",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 1",
    )
    output, _ = training.communicate(timeout=300)

    assert training.returncode == 0, output
    assert {first[0], second[0]} <= {run.name for run in sweep.runs() if resumed(run) > 0}
    sweep.assert_complete()
    sweep.assert_same_as_undisturbed()


def test_cancelled_jobs_are_named_and_the_same_command_goes_on(sweep):
    # A job of no sweep, whose name takes two lines of the queue.
    slurm(sweep.environment, "sbatch", "--hold", "--job-name=a\nb|c", "--output=/dev/null", "--wrap=true")
    training = sweep.start()
    jobs = wait_until(lambda: len(found := running_under_way(sweep)) == 2 and found)
    slurm(sweep.environment, "scancel", *queued(sweep.environment))
    output, _ = training.communicate(timeout=300)

    assert training.returncode == 1
    assert "4 of 4 runs without a record" in output.splitlines()[-1]
    assert all(f"Slurm job {number} ended without a result" in output for number in jobs.values())

    again = sweep.start()
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert {path.name for path in sweep.runs() if resumed(path) > 0} == jobs.keys()
    sweep.assert_complete()


def test_the_runs_of_a_cancelled_job_go_to_the_others(sweep):
    training = sweep.start()
    run, number = wait_until(lambda: next(iter(running_under_way(sweep).items()), None))
    slurm(sweep.environment, "scancel", number)
    output, _ = training.communicate(timeout=300)
    assert training.returncode == 0, output
    assert {path.name for path in sweep.runs() if resumed(path) > 0} == {run}
    sweep.assert_complete()


def test_same_command_finds_its_jobs_in_the_queue(sweep):
    sweep.command.append("optim.epochs=16")
    training = sweep.start()
    queue = wait_until(lambda: len(found := queued(sweep.environment)) == 4 and found)
    training.send_signal(signal.SIGINT)
    output, _ = training.communicate(timeout=30)
    assert training.returncode == 130, output
    assert queued(sweep.environment) == queue

    again = sweep.start()
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    ended = int(re.search(r"(\d) of 4 are done", output)[1])  # while the second command was starting
    assert output.count("queued before") == len(re.findall(r"Slurm job \d+", output)) >= 4 - ended
    assert {resumed(path) for path in sweep.runs()} == {0}


def test_failed_runs_are_results_and_set_the_status(sweep):
    sweep.command += ["optim.lr=1e30", "optim.epochs=2"]
    training = sweep.start()
    output, _ = training.communicate(timeout=120)
    assert training.returncode == 1
    assert "4 of 4 runs failed" in output
    assert all(is_done(run) for run in sweep.runs())


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("hydra.launcher.partition=nowhere", "error: sbatch: "),
        ("+hydra.launcher.partitoin=spare", "error: hydra.launcher: "),
        # Found on the node.
        ("device=cuda", "device=cuda: not on this machine"),
    ],
)
def test_trouble_is_one_line(sweep, option, line):
    sweep.command.append(option)
    training = sweep.start()
    output, _ = training.communicate(timeout=120)
    assert training.returncode in (1, 2)
    assert line in output
    assert "Traceback" not in output
    assert not sweep.runs()
