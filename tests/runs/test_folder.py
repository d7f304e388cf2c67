"""Run folders: their states, and files that are damaged, exchanged or none."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anchorloss.errors import UserError
from anchorloss.runs.claims import FILE, claim_is_live
from anchorloss.runs.files import sha256
from anchorloss.runs.folder import (
    Progress,
    read_config,
    read_history,
    read_predictions,
    read_progress,
    read_record,
    read_run,
    read_runs,
    remove_leftovers,
    verify_files,
    write_progress,
)
from tests.commands import call, time_limit
from tests.run_folders import edit_record, finish_run, interrupt_run, make_settings, plan_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finish_run(tmp_path, make_settings("anchor_bg", 3, epochs=4), images=1000)


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file, and with it its checksum in the record."""
    (folder / name).write_bytes(content)
    files = {each: sha256((folder / each).read_bytes()) for each in ("history.csv", "predictions.npz")}
    edit_record(folder, files=files)


def save_arrays(folder: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(folder, "predictions.npz", buffer.getvalue())


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error, time_limit(20):
        read_record(folder)
    text = str(error.value)
    assert str(folder) in text
    assert text.isprintable()
    return text


def test_runs_are_read_in_one_order_each_with_its_state(tmp_path: Path) -> None:
    waiting = plan_run(tmp_path, make_settings("bce", 10))
    interrupted = interrupt_run(tmp_path, make_settings("bce", 2), epoch=7)
    finished = finish_run(tmp_path, make_settings("bce", 1))
    failed = finish_run(tmp_path, make_settings("anchor_bg", 5), failed=True)
    (tmp_path / "runs" / "table1" / ".hidden").mkdir()
    (tmp_path / "runs" / "table1" / "notes.txt").touch()
    runs = read_runs(tmp_path, "table1")
    assert [run.folder for run in runs] == [failed, finished, interrupted, waiting]
    assert [run.state for run in runs] == ["failed", "finished", "interrupted", "waiting"]
    assert [run.seed for run in runs] == [5, 1, 2, 10]
    assert [run.record is None for run in runs] == [False, False, True, True]
    assert runs[2].progress is not None
    assert runs[2].progress.epoch == 7
    assert runs[3].settings["optim"]["lr"] == 0.1
    assert read_runs(tmp_path, "other") == []


@pytest.mark.parametrize("experiment", ["../table1", "", "a/b", "a b"])
def test_an_experiment_that_is_no_name_is_refused(tmp_path: Path, experiment: str) -> None:
    with pytest.raises(UserError, match="experiment="):
        read_runs(tmp_path, experiment)


def test_folders_and_records_in_a_wrong_place_are_named(tmp_path: Path) -> None:
    folder = finish_run(tmp_path, make_settings(seed=1))
    moved = folder.rename(folder.with_name(make_settings(seed=2).run))
    with pytest.raises(UserError, match="is the record of bce-resnet110-seed1"):
        read_run(moved)
    edit_record(moved.rename(folder), experiment="small")
    with pytest.raises(UserError, match=r"config\.yaml: is not what record\.json says"):
        read_run(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(UserError, match="is a record of the experiment small"):
        read_runs(tmp_path, "table1")
    (folder.parent / "backup").mkdir()
    with pytest.raises(UserError, match=r"table1/backup: not the folder of a run"):
        read_runs(tmp_path, "table1")


def test_what_the_files_contradict_is_refused(folder: Path) -> None:
    with np.load(folder / "predictions.npz") as archive:
        good = dict(archive)
    further = np.where(good["target_rank"] > 0, 9, 0).astype(np.uint8)
    cases: list[tuple[dict[str, np.ndarray], str]] = [
        ({"target_rank": np.roll(further, 0)}, "top5 is 92.0, in the files beside it 74.0"),
        ({key: value[:-1] for key, value in good.items()}, "has 999 of 1,000 images"),
        ({"confidence": np.float16(0.5)}, r"confidence is float16 ()"),
        ({"target": good["target"].astype(np.int64)}, "target is int64"),
        ({key: value[:0] for key, value in good.items()}, "target is uint8 (0,)"),
    ]
    for changed, problem in cases:
        save_arrays(folder, **{**good, **changed})
        assert problem in refusal(folder)
    save_arrays(folder, **good)
    assert read_record(folder) is not None
    edit_record(folder, test_loss=1.0)
    assert "test_loss is 1.0, in the files beside it 1.93" in refusal(folder)


def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("target.npy", bytes(300 << 20))
    replace_file(folder, "predictions.npz", buffer.getvalue())
    assert "larger than those of a run" in refusal(folder)


def test_no_code_runs_from_predictions_or_config(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    hostile = np.array([Hostile()], dtype=object)
    np.savez(tmp_path / "predictions.npz", target=hostile, predicted=hostile, target_rank=hostile)
    with pytest.raises(UserError):
        read_predictions(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError):
        read_predictions(tmp_path)
    (tmp_path / "config.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/executed']\n")
    with pytest.raises(UserError):
        read_config(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "- 1\n", "5\n", "a: [", "\x00", "a: " + "[" * 900])
def test_a_config_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml") as error:
        read_config(tmp_path)
    assert str(error.value).isprintable()


HEADER = "epoch,learning_rate,train_loss,train_top1,test_loss,top1,top5\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a history"),
        ("epoch,top1\n1,2\n", "the column learning_rate is missing"),
        (HEADER + "1,.1,2,3,4,5,x\n", "is not a history"),
        (HEADER + "1,.1,2\n", "is not a history"),
        (HEADER + "2,.1,2,3,4,5,6\n", "do not count"),
    ],
)
def test_a_wrong_history_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError, match=r"history\.csv") as error:
        read_history(tmp_path)
    assert problem in str(error.value)


def test_a_history_has_nan_where_an_epoch_was_not_evaluated(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(HEADER + "1,.1,2,3,,,\n2,.1,2,3,4.5,5.5,0.1234567890123456\n")
    history = read_history(tmp_path)
    assert history["top1"].isna().tolist() == [True, False]
    assert history["top5"][1] == 0.1234567890123456


def test_progress_comes_back_and_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, Progress(epoch=3, epochs=10, top1=12.5, seconds_left=float("inf")))
    assert read_progress(tmp_path) == Progress(epoch=3, epochs=10, top1=12.5, seconds_left=None)
    (tmp_path / "progress.json").write_text("{")
    assert read_progress(tmp_path) is None


def test_leftovers_of_a_run_that_ended_are_removed_and_nothing_else(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "checkpoint.new.pt", "progress.json"):
        (folder / name).touch()
    remove_leftovers(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["record.json", "history.csv", "predictions.npz", "config.yaml"])
@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "folder", "missing", "other"])
def test_one_damaged_file_is_one_line_that_names_it(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-20], "flipped": flipped, "empty": b"", "other": b"\x89PNG"}[kind])
    results = folder.parents[2]
    for script in ("make_table1.py", "status.py"):
        done = call(script, "--experiment=table1", "--results-dir", results)
        if (name, kind) == ("record.json", "missing"):  # a run that waits
            assert read_run(folder).state == "waiting"
        elif (name, kind) == ("config.yaml", "missing"):  # the record says the same
            assert done.returncode == 0
        else:
            assert done.returncode == 2, (script, done)
            assert done.stderr.startswith(f"error: {path}: ")
            assert done.stderr.count("\n") == 1


def test_weights_are_verified_with_the_others(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"weights")
    names = ("history.csv", "predictions.npz", "weights.safetensors")
    edit_record(folder, files={name: sha256((folder / name).read_bytes()) for name in names})
    record = read_record(folder)
    assert record is not None
    verify_files(folder, record)
    (folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"weights\.safetensors: its SHA-256 is not the one"):
        verify_files(folder, record)


HOLDER = """
import sys, time
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=30.0)
lease.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_is_running_while_another_process_holds_its_claim(tmp_path: Path) -> None:
    folder = interrupt_run(tmp_path, make_settings())
    assert not claim_is_live(folder)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder / FILE], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert read_run(folder).state == "running"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (folder / FILE).exists()
    assert read_run(folder).state == "interrupted"


def test_a_claim_from_another_host_is_live_for_its_lease(tmp_path: Path) -> None:
    claim = tmp_path / FILE
    claim.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=ab\nduration=30.0\n")
    assert claim_is_live(tmp_path)
    os.utime(claim, (time.time() - 31,) * 2)
    assert not claim_is_live(tmp_path)
    for text in ("", "filelock/2\npid=", "12\nhost\n", "\x00\xff"):
        claim.write_text(text, encoding="latin-1")
        assert not claim_is_live(tmp_path)


def test_reading_records_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, anchorloss.runs.folder; print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
