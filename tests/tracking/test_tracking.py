"""What is logged to W&B, read back from the files of offline runs; and how W&B's failures are handled."""

from __future__ import annotations

import csv
import functools
import json
import os
import pty
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_record
from anchorloss.sweep import plan
from tests import processes
from tests.conftest import ROOT, SMALL, command
from tests.in_process import composed

OVERRIDES = [*SMALL, "logger=wandb", "seeds=[0,1]"]
KEY = "0" * 40


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment without a W&B login, its home in `folder`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    home = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "PYTHONPATH": str(ROOT)}
    return {**kept, **home, "OMP_NUM_THREADS": "1", **more}


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return processes.run(arguments, cwd=folder, env=environment(folder, **more), timeout=120)


def lines_of_wandb(stderr: str) -> list[str]:
    """What is on stderr beside progress bars."""
    lines = stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "images/s" not in line]


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "outputs" / "wandb").glob("offline-run-*"))


@functools.cache
def logged(offline_run: Path) -> dict[str, list[dict]]:
    """The records of an offline run by type, as W&B's own reader prints them."""
    done = run(offline_run, "python", "-m", "wandb", "leet", "inspect", "--json", str(offline_run))
    assert done.returncode == 0, done.stderr
    by_type: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        by_type.setdefault(entry["type"], []).append(entry[entry["type"]])
    return by_type


@functools.cache
def final_summary(offline_run: Path) -> dict:
    done = run(
        offline_run, "python", "-m", "wandb", "leet", "inspect", "--summary", "--json", str(offline_run)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(offline_run: Path) -> dict[int, dict]:
    """The rows of the curves by epoch, without W&B's own columns and tables."""
    found = {}
    for entry in logged(offline_run)["history"]:
        row = {key: value for key, value in entry["item"].items() if key[0] != "_" and "." not in key}
        assert entry["step"]["num"] == row["epoch"]
        assert row["epoch"] not in found
        found[row["epoch"]] = row
    return found


def history(run_folder: Path) -> dict[int, dict]:
    with (run_folder / "history.csv").open() as file:
        every = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return {int(row["epoch"]): row for row in every}


def table(offline_run: Path, name: str) -> list[dict]:
    (file,) = (offline_run / "files" / "media" / "table").glob(f"{name}_*.table.json")
    content = json.loads(file.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two seeds of (ii) trained by one process, offline."""
    folder = tmp_path_factory.mktemp("two")
    done = run(folder, *command(*OVERRIDES, "loss=anchor_bg"))
    assert done.returncode == 0, done.stderr
    return folder, done


def test_each_run_of_a_process_is_one_offline_run_and_one_line_says_where(two_runs):
    folder, done = two_runs
    names = {path.name for path in (folder / "results/runs/scratch").iterdir()}
    assert {final_summary(path)["name"] for path in offline_runs(folder)} == names
    assert len(names) == 2
    (line,) = [line for line in lines_of_wandb(done.stderr) if "W&B" in line or "wandb" in line]
    assert "offline" in line
    assert "make wandb-sync" in line
    assert not list(folder.glob("results/**/*wandb*"))


def test_group_tags_and_config_are_the_runs(two_runs):
    folder, _ = two_runs
    for path in offline_runs(folder):
        told = logged(path)["run"][0]
        record = read_record(folder / "results/runs/scratch" / told["display_name"])
        assert told["project"] == "anchor-loss"
        assert told["run_group"] == "scratch/anchor_bg"
        assert told["job_type"] == f"seed{record.seed}"
        assert set(told["tags"]) == {"scratch", "anchor_bg", "resnet8", "SYNTHETIC"}
        config = final_summary(path)["config"]
        extra = {"experiment": "scratch", "hash": record.hash, "data_label": "SYNTHETIC"}
        assert config == {**record.identity, **extra}


def test_the_curves_are_the_history(two_runs):
    folder, _ = two_runs
    for path in offline_runs(folder):
        run_folder = folder / "results/runs/scratch" / final_summary(path)["name"]
        assert rows(path) == history(run_folder)
        metrics = logged(path)["metric"]
        assert any(each.get("glob_name") == "*" and each["step_metric"] == "epoch" for each in metrics)


def test_the_summary_is_the_record(two_runs):
    folder, _ = two_runs
    for path in offline_runs(folder):
        told = final_summary(path)
        record = read_record(folder / "results/runs/scratch" / told["name"])
        summary = told["summary"]
        assert told["exit_code"] == 0
        assert summary["status"] == "finished"
        assert (summary["top1"], summary["top5"]) == (record.top1, record.top5)
        assert summary["test_loss"] == record.test_loss
        assert (summary["best_epoch"], summary["best_top1"]) == (record.best.epoch, record.best.top1)
        assert summary["commit"] == record.provenance.commit


def test_the_tables_count_the_predictions(two_runs):
    folder, _ = two_runs
    for path in offline_runs(folder):
        name = final_summary(path)["name"]
        with np.load(folder / "results/runs/scratch" / name / "predictions.npz") as predictions:
            target, predicted = predictions["target"], predictions["predicted"]
        per_class = {row["class"]: row for row in table(path, "per_class")}
        assert len(per_class) == len(set(target))
        for label in set(target):
            row, of_class = per_class[f"class {label}"], target == label
            assert row["images"] == of_class.sum()
            assert row["right"] == (predicted[of_class] == label).sum()
            assert row["top1"] == pytest.approx(100 * (predicted[of_class] == label).mean())
        confusion = table(path, "confusion")
        wrong = [(f"class {t}", f"class {p}") for t, p in zip(target, predicted, strict=True) if t != p]
        assert {(row["target"], row["predicted"]): row["images"] for row in confusion} == {
            pair: wrong.count(pair) for pair in wrong
        }
        counts = [row["images"] for row in confusion]
        assert counts == sorted(counts, reverse=True)


def test_a_tracked_run_has_the_same_result(two_runs):
    folder, _ = two_runs
    done = run(
        folder, *command(*OVERRIDES, "loss=anchor_bg", "seeds=[1]", "logger=none", "results_dir=untracked")
    )
    assert done.returncode == 0, done.stderr
    (untracked,) = (folder / "untracked/runs/scratch").iterdir()
    tracked = folder / "results/runs/scratch" / untracked.name
    assert same_result(read_record(tracked), read_record(untracked))
    assert len(offline_runs(folder)) == 2


def test_wandb_sync_finds_the_offline_runs(two_runs):
    folder, _ = two_runs
    done = run(folder, "python", "-m", "wandb", "sync", "--dry-run", "outputs/wandb")
    assert done.returncode == 0, done.stderr
    assert "2 run(s)" in done.stdout + done.stderr


def test_a_resumed_run_goes_on_under_the_same_id(tmp_path):
    done = run(tmp_path, sys.executable, "-m", "tests.tracked", "resumed", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    first, second = offline_runs(tmp_path)
    assert final_summary(first)["run_id"] == final_summary(second)["run_id"]
    assert all(logged(path)["run"][0]["resume"] for path in (first, second))
    assert final_summary(first)["summary"]["status"] == "interrupted"
    assert list(rows(first)) == [1]
    assert list(rows(second)) == [2, 3]
    assert {**rows(first), **rows(second)} == history(tmp_path / "run")
    assert final_summary(second)["summary"]["status"] == "finished"


def test_a_failed_run_is_marked_and_says_why(tmp_path):
    done = run(tmp_path, *command(*OVERRIDES, "seeds=[0]", "optim.lr=1e30"))
    assert done.returncode == 1
    (path,) = offline_runs(tmp_path)
    told = final_summary(path)
    assert told["exit_code"] == 1
    assert told["summary"]["status"] == "failed"
    assert told["summary"]["failure"] == "non-finite loss"
    assert "top1" not in told["summary"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds W&B's process in /proc")
def test_a_run_outlives_wandbs_process(tmp_path):
    done = run(tmp_path, sys.executable, "-m", "tests.tracked", "killed", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "record.json").read_text())["status"] == "finished"
    offline, lost = lines_of_wandb(done.stderr)
    assert "offline" in offline
    assert "no longer tracked" in lost


@pytest.mark.slow
def test_a_run_outlives_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "outputs").write_text("a file where W&B's folder should be")
    done = run(tmp_path, *command(*OVERRIDES, "seeds=[0]"))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("results/runs/scratch/*/record.json"))
    assert "nothing is tracked" in lines_of_wandb(done.stderr)[-1]


# How a logger is decided, in a process that does nothing else: prints what it took, and whether wandb was imported.
DECIDE = """
import sys, time
from anchorloss.config.settings import LoggerSettings
from anchorloss.tracking.tracking import Tracking
begun = time.monotonic()
session = Tracking(LoggerSettings(name=sys.argv[1]))._session
print(session and session.mode, time.monotonic() - begun, "wandb" in sys.modules)
"""


def decide(folder: Path, logger: str, **more: str) -> tuple[str, float, bool, list[str]]:
    done = run(folder, sys.executable, "-c", DECIDE, logger, **more)
    assert done.returncode == 0, done.stderr
    mode, seconds, imported = done.stdout.split()
    return mode, float(seconds), imported == "True", done.stderr.splitlines()


@pytest.mark.parametrize("logger", ["auto", "none"])
def test_without_a_key_auto_says_nothing_and_costs_no_import(tmp_path, logger):
    mode, _, imported, told = decide(tmp_path, logger)
    assert (mode, imported, told) == ("None", False, [])


def test_a_netrc_without_a_key_for_wandb_is_no_key(tmp_path):
    (tmp_path / "netrc").write_text("machine example.org login user password secret\n")
    assert decide(tmp_path, "auto")[0] == "None"


@pytest.mark.parametrize(
    ("logger", "wandb_mode", "expected"),
    [
        ("auto", "offline", "offline"),
        ("wandb", "offline", "offline"),
        ("auto", "disabled", "None"),
        ("wandb", "disabled", "None"),
    ],
)
def test_wandb_mode_is_heeded_in_silence(tmp_path, logger, wandb_mode, expected):
    mode, _, _, told = decide(tmp_path, logger, WANDB_MODE=wandb_mode, WANDB_API_KEY=KEY)
    assert (mode, told) == (expected, [])


def test_a_key_that_is_nonsense_means_offline_with_one_line(tmp_path):
    mode, _, _, told = decide(tmp_path, "auto", WANDB_API_KEY="nonsense")
    assert mode == "offline"
    (line,) = told
    assert "the key cannot be used" in line


# Starts one run without training it: prints how it is tracked after all, and how long that took to find out.
OPEN = """
import sys, time
from anchorloss.config.settings import LoggerSettings
from anchorloss.runs.differences import same_result
from anchorloss.tracking.tracking import Tracking
from tests.in_process import settings
session = Tracking(LoggerSettings(name="auto"))._session
(run,) = settings("seeds=[0]")
begun = time.monotonic()
opened = session.open(run)
print(session.mode, opened is not None, time.monotonic() - begun)
opened.finish()
"""


@pytest.mark.parametrize("listening", [False, True], ids=["no network", "a server that never answers"])
def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path, listening):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        if listening:
            server.listen(50)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = run(tmp_path, sys.executable, "-c", OPEN, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
    assert done.returncode == 0, done.stderr
    mode, opened, seconds = done.stdout.split()
    assert (mode, opened) == ("offline", "True")
    assert float(seconds) < 30
    (line,) = done.stderr.splitlines()
    assert "kept offline" in line
    assert len(offline_runs(tmp_path)) == 1


OPEN_TWO = """
from concurrent.futures import ThreadPoolExecutor
from anchorloss.config.settings import LoggerSettings
from anchorloss.tracking.tracking import Tracking
from tests.in_process import settings
session = Tracking(LoggerSettings(name="auto"))._session
with ThreadPoolExecutor(2) as pool:
    opened = list(pool.map(session.open, settings("seeds=[0,1]")))
print(session.mode, None in opened)
for run in opened:
    run.finish()
"""


def test_two_runs_that_start_at_once_without_a_network_are_both_kept_offline(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = run(tmp_path, sys.executable, "-c", OPEN_TWO, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["offline", "False"]
    assert len(lines_of_wandb(done.stderr)) == 1
    assert len(offline_runs(tmp_path)) == 2


@pytest.mark.parametrize("status", [401, pytest.param(500, marks=pytest.mark.slow)])
def test_a_server_that_refuses_means_offline_with_one_line(tmp_path, status):
    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        done = run(
            tmp_path,
            *command(*OVERRIDES, "seeds=[0]", "optim.epochs=1", "logger=auto"),
            WANDB_API_KEY=KEY,
            WANDB_BASE_URL=address,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    (line,) = lines_of_wandb(done.stderr)
    assert "offline" in line
    (path,) = offline_runs(tmp_path)
    assert final_summary(path)["summary"]["status"] == "finished"


@pytest.mark.parametrize("logger", ["auto", "wandb"])
def test_a_terminal_is_never_asked_for_a_key(tmp_path, logger):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DECIDE, logger],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    assert process.stdout is not None
    assert process.wait(60) == 0
    assert process.stdout.read().split()[0] == (b"None" if logger == "auto" else b"offline")
    process.stdout.close()
    os.close(theirs)
    os.close(ours)


def sweep_commands() -> list[list[str]]:
    """The overrides that W&B's agent gives `train.py` along each axis of the grid."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    config = yaml.safe_load((ROOT / "configs" / "wandb_sweep.yaml").read_text())
    *head, last = config["command"]
    assert (head[:3], last) == (["${env}", "${interpreter}", "${program}"], "${args_no_hyphens}")
    assert (ROOT / config["program"]).is_file()
    axes = {name: axis["values"] for name, axis in config["parameters"].items()}
    first = {name: values[0] for name, values in axes.items()}
    points = [first, *({**first, name: value} for name, values in axes.items() for value in values[1:])]
    filled = [
        create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
        for point in points
    ]
    return [[*head[3:], *arguments["args_no_hyphens"]] for arguments in filled]


def test_wandbs_sweep_gives_one_run_a_command_each_its_own_and_none_on_the_test_set():
    commands = sweep_commands()
    runs = []
    for overrides in commands:
        (only,), _ = plan.plan([composed(*overrides)])
        runs.append(only)
    assert len({each.run for each in runs}) == len(commands)
    assert {each.data.evaluate_on for each in runs} == {"validation"}


@pytest.mark.slow
def test_an_agents_process_tracks_one_run_and_says_so(tmp_path):
    done = run(tmp_path, *command(*OVERRIDES), WANDB_SWEEP_ID="abc", WANDB_RUN_ID="one")
    assert done.returncode == 0, done.stderr
    assert [final_summary(path)["run_id"] for path in offline_runs(tmp_path)] == ["one"]
    assert "is not tracked" in lines_of_wandb(done.stderr)[-1]


def dashboard(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("wandb_workspaces")
    return run(folder, sys.executable, str(ROOT / "scripts/wandb_dashboard.py"), *arguments, **more)


def test_the_view_shows_what_is_logged(two_runs):
    folder, _ = two_runs
    done = dashboard(folder, "--experiment", "scratch", "--dry-run")
    assert done.returncode == 0, done.stderr
    section = json.loads(done.stdout)["spec"]["section"]
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "loss.value.name"}]
    assert [(each["key"], each["value"]) for each in runs["filters"]["filters"]] == [
        ({"section": "config", "name": "experiment"}, "scratch")
    ]
    told = final_summary(offline_runs(folder)[0])
    for column in runs["runFeed"]["columnOrder"]:
        kind, _, name = column.partition(":")
        if kind == "config":
            first, _, others = name.partition(".value")
            value = told["config"][first]
            assert not others or others[1:] in value, column
        elif kind == "summary":
            assert name in told["summary"], column
    panels = [panel for each in section["panelBankConfig"]["sections"] for panel in each["panels"]]
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {metric for line in lines for metric in line["metrics"]} == set(
        rows(offline_runs(folder)[0])[2]
    ) - {"epoch"}
    for line in lines:
        assert (line["xAxis"], line["groupAgg"], line["groupArea"]) == ("epoch", "mean", "stddev")
        assert line["groupBy"] == "loss.value.name"
    for name in ("per_class", "confusion"):
        assert f'"{name}"' in done.stdout
        assert told["summary"][name]["_type"] == "table-file"


def test_several_keys_group_the_table_of_runs(tmp_path):
    done = dashboard(tmp_path, "--dry-run", "--group-by", "loss.gamma", "loss.slack")
    (runs,) = json.loads(done.stdout)["spec"]["section"]["runSets"]
    assert [each["name"] for each in runs["grouping"]] == ["loss.value.gamma", "loss.value.slack"]


@pytest.mark.parametrize("key", [{}, {"WANDB_API_KEY": "nonsense"}])
def test_without_a_login_the_dashboard_says_so_in_one_line(tmp_path, key):
    done = dashboard(tmp_path, **key)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "wandb login" in line
