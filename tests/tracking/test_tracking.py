"""What is logged to W&B, read back from the files of offline runs; and how W&B's failures are handled."""

from __future__ import annotations

import csv
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_record
from anchorloss.sweep import plan
from anchorloss.tracking import arguments, swept
from tests import processes
from tests.conftest import ROOT, SMALL, command
from tests.in_process import composed, settings

OVERRIDES = [*SMALL, "logger=wandb", "loss=anchor_bg"]
KEY = "0" * 40


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment without a W&B login, its home in `folder`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    home = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "PYTHONPATH": str(ROOT)}
    return {**kept, **home, "OMP_NUM_THREADS": "1", **more}


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return processes.run(arguments, cwd=folder, env=environment(folder, **more), timeout=280)


def lines_of_wandb(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("W&B: ")]


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
        row = {key: value for key, value in entry["item"].items() if key == "epoch" or "/" in key}
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
def sweep(tmp_path_factory):
    """Two gammas of (ii) with three seeds each, trained by one process, offline: the folder, and the runs by name."""
    folder = tmp_path_factory.mktemp("sweep")
    done = run(folder, *command("-m", *OVERRIDES, "loss.gamma=0.25,1", "seeds=[0,1,2]", "keep_weights=true"))
    assert done.returncode == 0, done.stderr
    assert len(offline_runs(folder)) == 6
    return folder, {final_summary(path)["config"]["run"]: path for path in offline_runs(folder)}, done.stderr


def test_a_group_is_the_seeds_of_one_setting_and_says_which(sweep):
    _, runs, _ = sweep
    groups: dict[str, set] = {}
    for name, path in runs.items():
        told, config = logged(path)["run"][0], final_summary(path)["config"]
        groups.setdefault(told["run_group"], set()).add((config["loss"]["gamma"], config["seed"]))
        assert told["run_group"].startswith(f"scratch/anchor_bg gamma={float(config['loss']['gamma'])} ")
        assert (
            told["display_name"]
            == f"anchor_bg gamma={float(config['loss']['gamma'])} slack=0.0 seed={config['seed']}"
        )
        assert (told["project"], told["job_type"]) == ("anchor-loss", f"seed{config['seed']}")
        assert set(told["tags"]) == {"scratch", "anchor_bg", "resnet8", "SYNTHETIC"}
        assert told["run_id"] == f"scratch-{name}"
    assert sorted(map(sorted, groups.values())) == [
        [(gamma, seed) for seed in range(3)] for gamma in (0.25, 1)
    ]


def test_any_setting_but_the_seed_makes_another_group_and_what_is_swept_is_named():
    runs = [*settings("seeds=[0,1]"), *settings("seeds=[0,1]", "optim.lr=0.3")]
    names = [arguments(each, swept(runs))["group"] for each in runs]
    assert names[0] == names[1] != names[2] == names[3]
    assert "optim.lr=0.3" in names[2]
    alone = arguments(runs[2], swept(runs[2:]))
    assert "lr" not in alone["name"]
    assert alone["group"].split()[-1] == names[2].split()[-1] != names[0].split()[-1]


def test_keys_values_and_summary_are_the_runs_files(sweep):
    folder, runs, _ = sweep
    for name, path in runs.items():
        run_folder = folder / "results/runs/scratch" / name
        record, told = read_record(run_folder), final_summary(path)
        shown, written = rows(path), history(run_folder)
        expected = {"test/loss": "test_loss", "test/top1": "top1", "test/top5": "top5"}
        expected |= {f"train/{key}": f"train_{key}" for key in ("loss", "top1")}
        expected |= {"epoch": "epoch", "train/learning_rate": "learning_rate"}
        expected |= {f"factors/background_q{q}": f"background_factor_q{q}" for q in (50, 90, 99)}
        for epoch, row in shown.items():
            assert {key: row[key] for key in expected} == {
                key: written[epoch][expected[key]] for key in expected
            }
            assert row.keys() - expected.keys() == ({"train/images_per_second"} if epoch > 1 else set())
        assert shown[2]["train/images_per_second"] > 0
        assert list(shown) == list(written) == [1, 2]
        extra = {"experiment": "scratch", "run": name, "hash": record.hash, "data_label": "SYNTHETIC"}
        assert told["config"] == {**record.identity, **extra}
        assert told["exit_code"] == 0
        summary = told["summary"]
        assert (summary["top1"], summary["top5"], summary["status"]) == (record.top1, record.top5, "finished")
        assert (summary["best_epoch"], summary["test_loss"]) == (record.best.epoch, record.test_loss)
        hidden = [each for each in logged(path)["metric"] if each.get("name") == "epoch"]
        assert all(each["options"].get("hidden") for each in hidden)


def test_the_tables_count_the_predictions_and_kept_weights_are_an_artifact(sweep):
    folder, runs, _ = sweep
    name, path = next(iter(runs.items()))
    with np.load(folder / "results/runs/scratch" / name / "predictions.npz") as predictions:
        target, predicted = predictions["target"], predictions["predicted"]
    per_class = {row["class"]: row for row in table(path, "per_class")}
    assert len(per_class) == len(set(target))
    for label in set(target):
        row, of_class = per_class[f"class {label}"], target == label
        assert (row["images"], row["right"]) == (of_class.sum(), (predicted[of_class] == label).sum())
        assert row["top1"] == pytest.approx(100 * (predicted[of_class] == label).mean())
    confusion = table(path, "confusion")
    wrong = [(f"class {t}", f"class {p}") for t, p in zip(target, predicted, strict=True) if t != p]
    assert {(row["target"], row["predicted"]): row["images"] for row in confusion} == {
        pair: wrong.count(pair) for pair in wrong
    }
    counts = [row["images"] for row in confusion]
    assert counts == sorted(counts, reverse=True)
    assert any("weights.safetensors" in json.dumps(each) for each in logged(path).get("artifact", []))


def test_one_line_at_the_end_says_where_the_runs_lie_and_what_to_do(sweep):
    folder, _, stderr = sweep
    no_key, last = lines_of_wandb(stderr)
    assert "no key found" in no_key
    assert last.startswith("W&B: 6 runs offline: `wandb sync outputs/wandb`")
    assert "`wandb leet outputs/wandb`" in last
    done = run(folder, "python", "-m", "wandb", "sync", "--dry-run", "outputs/wandb")
    assert "6 run(s)" in done.stdout + done.stderr
    assert not list(folder.glob("results/**/*wandb*"))


def test_a_tracked_run_has_the_same_files(sweep):
    folder, *_ = sweep
    others = ["loss.gamma=1", "seeds=[1]", "logger=none", "results_dir=untracked", "keep_weights=true"]
    assert run(folder, *command(*OVERRIDES, *others)).returncode == 0
    (untracked,) = (folder / "untracked/runs/scratch").iterdir()
    tracked = folder / "results/runs/scratch" / untracked.name
    assert same_result(read_record(tracked), read_record(untracked))
    for name in ("history.csv", "predictions.npz", "weights.safetensors"):
        assert (tracked / name).read_bytes() == (untracked / name).read_bytes()


@pytest.mark.parametrize("how", ["resumed", "killed"])
def test_a_run_goes_on(tmp_path, how):
    """After an interruption under the same id, and when W&B's process is killed."""
    done = run(tmp_path, sys.executable, "-m", "tests.tracked", how, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    (run_folder,) = (tmp_path / "run").iterdir()
    assert read_record(run_folder).status == "finished"
    if how == "killed":
        assert "nothing is tracked any more" in done.stderr
        return
    first, second = offline_runs(tmp_path)
    assert final_summary(first)["run_id"] == final_summary(second)["run_id"]
    assert final_summary(first)["summary"]["status"] == "interrupted"
    assert (list(rows(first)), list(rows(second))) == ([1], [2, 3])
    assert final_summary(second)["summary"]["status"] == "finished"


def test_a_failed_run_is_marked_and_says_why(tmp_path):
    done = run(tmp_path, *command(*OVERRIDES, "seeds=[0]", "optim.lr=1e30"))
    assert done.returncode == 1
    (path,) = offline_runs(tmp_path)
    told = final_summary(path)
    assert (told["exit_code"], told["summary"]["status"]) == (1, "failed")
    assert told["summary"]["failure"] == "non-finite loss"
    assert "top1" not in told["summary"]


DECIDE = """
import sys
from anchorloss import tracking
from anchorloss.config.settings import LoggerSettings
tracking.WandbProcess = lambda logger: tracking.Logger()
tracking.Logger.tell = None
made = tracking.loggers(LoggerSettings(name=sys.argv[1]), [])
print(hasattr(made, "func"), "wandb" in sys.modules)
"""


@pytest.mark.parametrize(
    ("logger", "more", "tracks"),
    [
        ("auto", {}, False),
        ("none", {"WANDB_API_KEY": KEY}, False),
        ("wandb", {}, True),
        ("auto", {"WANDB_API_KEY": KEY}, True),
        ("auto", {"WANDB_MODE": "offline"}, True),
        ("auto", {"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY}, False),
        ("wandb", {"WANDB_MODE": "disabled"}, False),
    ],
)
def test_what_is_tracked_is_decided_without_wandb(tmp_path, logger, more, tracks):
    done = run(tmp_path, sys.executable, "-c", DECIDE, logger, **more)
    assert (done.stdout.split(), done.stderr) == ([str(tracks), "False"], "")


@pytest.mark.parametrize("logger", ["auto", "wandb"])
def test_without_home_and_user_name_it_trains(tmp_path, logger):
    """As a user id that no name belongs to."""
    environ = environment(tmp_path, HOME="", NETRC="")
    code = "import os, pwd; pwd.getpwuid = {}.__getitem__; " + "del os.environ['HOME'], os.environ['NETRC']; "
    code += f"import sys, runpy; sys.argv = {command(*OVERRIDES, 'seeds=[0]', f'logger={logger}')[1:]}; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    kept = {
        key: value for key, value in environ.items() if key not in ("USER", "LOGNAME", "USERNAME", "LNAME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("results/runs/scratch/*/record.json"))
    if logger == "auto":
        assert "no home folder" in done.stderr


@contextmanager
def server(status: int | None = None, refused: str = ""):
    """W&B's address where nobody listens (0), all is refused with a status, or a run is, by its id, and others go on."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = json.loads(body) if "graphql" in self.path else {"query": ""}
            query, given = asked["query"], asked.get("variables") or {}
            code, data = status or 200, {}
            if "upsertBucket" in query:
                project = {"id": "p", "name": "anchor-loss", "entity": {"name": "me"}}
                bucket = {
                    "id": "b",
                    "name": given["name"],
                    "displayName": "d",
                    "config": "{}",
                    "project": project,
                }
                data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
                code = 409 if refused and refused in given["name"] else code
            elif "createRunFiles" in query:
                data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
            why = "run was previously created and deleted" if code == 409 else "invalid API key"
            error = {"errors": [{"message": why}]}
            text = json.dumps({"data": data} if code == 200 else error).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{made.server_port}"}
        made.shutdown()


@pytest.mark.parametrize("kind", ["no network", "silent", "refuses the key"])
def test_a_server_that_is_of_no_use_means_offline_and_holds_up_nothing(tmp_path, kind):
    with socket.socket() as socket_, server(401) as refusing:
        socket_.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        if kind == "silent":
            socket_.listen(50)
        where = {**refusing, "WANDB_BASE_URL": f"http://127.0.0.1:{socket_.getsockname()[1]}"}
        where = refusing if kind == "refuses the key" else where
        done = run(tmp_path, sys.executable, "-m", "tests.tracked", "timed", str(tmp_path / "run"), **where)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.05
    told, last = lines_of_wandb(done.stderr)
    assert "online runs do not start" in told
    assert "1 run offline" in last
    assert final_summary(offline_runs(tmp_path)[0])["summary"]["status"] == "finished"


def test_a_refused_run_concerns_that_run_alone(tmp_path):
    with server(refused="-seed1-") as where:
        done = run(tmp_path, *command(*OVERRIDES, "seeds=[0,1,2]", "optim.epochs=1"), **where)
    assert done.returncode == 0, done.stderr
    lines = lines_of_wandb(done.stderr)
    (refusal,) = [line for line in lines if "previously created and deleted" in line]
    assert "-seed1-" in refusal
    assert "logger.project" in refusal
    assert not offline_runs(tmp_path)
    assert len(list((tmp_path / "outputs/wandb").glob("run-*-seed[02]-*"))) == 2
    assert "Traceback" not in done.stderr


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
    more = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "one"}
    done = run(tmp_path, *command(*OVERRIDES, "seeds=[0,1]"), **more)
    assert [final_summary(path)["run_id"] for path in offline_runs(tmp_path)] == ["one"]
    assert "names one run a process" in done.stderr


def dashboard(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("wandb_workspaces")
    return run(folder, sys.executable, str(ROOT / "scripts/wandb_dashboard.py"), *arguments, **more)


def test_the_view_shows_what_is_logged(sweep):
    folder, runs, _ = sweep
    done = dashboard(folder, "--experiment", "scratch", "--dry-run", "--group-by", "loss.gamma", "loss.slack")
    assert done.returncode == 0, done.stderr
    section = json.loads(done.stdout)["spec"]["section"]
    (of_view,) = section["runSets"]
    assert [each["name"] for each in of_view["grouping"]] == ["loss.value.gamma", "loss.value.slack"]
    filters = [(each["key"], each["value"]) for each in of_view["filters"]["filters"]]
    assert filters == [({"section": "config", "name": "experiment"}, "scratch")]
    path = next(iter(runs.values()))
    told = final_summary(path)
    for column in of_view["runFeed"]["columnOrder"]:
        kind, _, name = column.partition(":")
        if kind == "config":
            first, _, others = name.partition(".value")
            assert not others or others[1:] in told["config"][first], column
        elif kind == "summary":
            assert name in told["summary"], column
    panels = [panel for each in section["panelBankConfig"]["sections"] for panel in each["panels"]]
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert rows(path)[2].keys() - {"epoch"} <= {metric for line in lines for metric in line["metrics"]}
    assert {(line["xAxis"], line["groupAgg"], line["groupArea"]) for line in lines} == {
        ("epoch", "mean", "stddev")
    }


@pytest.mark.parametrize(
    ("asked", "more", "remedy"),
    [
        ([], {}, "wandb login"),
        ([], {"WANDB_API_KEY": "nonsense"}, "wandb login"),
        (["--dry-run", "--experiment", "nosuch"], {}, "nosuch"),
        (["--dry-run", "--group-by", "loss.gamma", "optim.rl"], {}, "--group-by optim.rl"),
        (["--dry-run", "--experiment", '../<script>"x'], {}, "no such experiment"),
    ],
)
def test_a_dashboard_that_cannot_be_is_one_line(tmp_path, asked, more, remedy):
    done = dashboard(tmp_path, *asked, **more)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line[:7]) == (2, "error: ")
    assert remedy in line
