"""A sweep on a real Ray of two nodes, one of which is killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster_sweep import ClusterSweep, is_done, resumed, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
LAUNCHER = ("hydra/launcher=ray", "hydra.launcher.num_cpus=1")
RAY = Path(sys.executable).with_name("ray")


class TwoNodes:
    """Two `ray start` on this machine, with one processor each, at two addresses of the loopback network."""

    def __init__(self, folder: Path) -> None:
        # A token of its own: one that an earlier Ray left in the home folder would be asked of one node alone.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0"}
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.2:{port}"

    def start(self) -> None:
        port = self.address.partition(":")[2]
        head = ("--head", f"--port={port}", f"--temp-dir={self._folder}", "--include-dashboard=false")
        self._start("127.0.0.2", *head)
        self._start("127.0.0.3", f"--address={self.address}")

    def _start(self, node: str, *options: str) -> None:
        command = [RAY, "start", "--block", f"--node-ip-address={node}", "--num-cpus=1"]
        command += ["--object-store-memory=80000000", *options]
        log = self._folder / f"{node}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(process)
        wait_until(lambda: "Ray runtime started" in log.read_text())

    def kill_second(self) -> None:
        """Everything of the node at once, as when its power fails."""
        self._kill(self._nodes[1])

    def close(self) -> None:
        for node in self._nodes:
            self._kill(node)

    def _kill(self, node: subprocess.Popen[bytes]) -> None:
        for process in session(node.pid):
            os.kill(process, signal.SIGKILL)
        node.wait()


def session(leader: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--sid", str(leader)], capture_output=True, text=True)
    return [int(process) for process in listed.stdout.split()]


@pytest.fixture
def two_nodes():
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    # A short name: Ray has its sockets below it, and the path of a socket may be 107 bytes long.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        nodes = TwoNodes(Path(folder))
        try:
            nodes.start()
            yield nodes
        finally:
            nodes.close()


def test_runs_of_a_killed_node_go_on_at_the_other(two_nodes, tmp_path):
    sweep = ClusterSweep(
        tmp_path, two_nodes.environment, *LAUNCHER, f"hydra.launcher.address={two_nodes.address}"
    )
    try:
        training = sweep.start()
        wait_until(lambda: len(sweep.under_way()) == 2)
        two_nodes.kill_second()
        assert len(sweep.under_way()) == 2
        output, _ = training.communicate(timeout=400)
    finally:
        sweep.close()

    assert training.returncode == 0, output
    assert sorted(map(resumed, sweep.runs())) == [0, 0, 0, 1]
    sweep.assert_complete()
    sweep.assert_same_as_undisturbed()


def test_failed_runs_are_results_and_trouble_is_one_line(two_nodes, tmp_path):
    sweep = ClusterSweep(
        tmp_path, two_nodes.environment, *LAUNCHER, f"hydra.launcher.address={two_nodes.address}"
    )
    sweep.command += ["device=cuda"]
    try:
        output, _ = (training := sweep.start()).communicate(timeout=120)
        assert training.returncode == 1
        assert "device=cuda: not on this machine" in output
        assert "4 of 4 runs without a record" in output
        assert not sweep.runs()

        sweep.command += ["device=cpu", "optim.lr=1e30", "optim.epochs=2"]
        output, _ = (training := sweep.start()).communicate(timeout=120)
        assert training.returncode == 1
        assert "4 of 4 runs failed" in output
        assert "Traceback" not in output
        assert all(is_done(run) for run in sweep.runs())
    finally:
        sweep.close()


def test_without_a_ray_it_says_how_to_start_one(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    sweep = ClusterSweep(tmp_path, {**os.environ, "RAY_TMPDIR": str(tmp_path)}, *LAUNCHER)
    output, _ = (training := sweep.start()).communicate(timeout=120)
    assert training.returncode == 2, output
    assert output.splitlines()[-1].startswith("error: hydra.launcher.address=auto: no Ray answers there")
    assert not sweep.runs()
