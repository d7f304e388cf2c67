from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorloss.config.identity import identity_hash
from anchorloss.errors import UserError
from anchorloss.runs.differences import describe_difference, same_result
from anchorloss.runs.folder import (
    Progress,
    Record,
    claim_is_live,
    read_config,
    read_history,
    read_predictions,
    read_progress,
    read_record,
    read_run,
    read_runs,
    verify_files,
    write_progress,
    write_record,
)
from tests.run_folders import (
    edit_record,
    finish_run,
    interrupt_run,
    make_record,
    make_settings,
    plan_run,
    with_provenance,
)

RECORD = make_record(make_settings("anchor_bg", 3))
TEXT = RECORD.to_json()
FAILURE = {"epoch": 1, "step": 1, "reason": "non-finite loss", "last_finite_loss": None}
generated = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

IDENTITY = {
    "loss": {"name": "anchor_bg", "gamma": 0.5},
    "model": {"name": "resnet110"},
    "data": {"name": "cifar100", "evaluate_on": "test"},
    "optim": {"epochs": 200},
    "precision": "bf16",
    "seed": 0,
}
EXAMPLE = (
    """{
  "format": 1, "status": "finished",
  "experiment": "table1", "run": "anchor_bg-resnet110-seed0-HASH",
  "loss": "anchor_bg", "model": "resnet110", "seed": 0, "epochs": 200, "evaluated_on": "test",
  "top1": 74.25, "top5": 92.62, "test_loss": 1.93,
  "best": {"epoch": 183, "top1": 74.4, "top5": 92.5}, "failure": null,
  "data": {"name": "cifar100", "label": "CIFAR-100", "checksum": "md5:eb", "training_images": 50000,
           "evaluation_images": 10000},
  "identity": IDENTITY, "hash": "HASH",
  "files": {"history.csv": "sha256:…a", "predictions.npz": "sha256:…b"},
  "provenance": {"commit": "c", "dirty": false, "versions": {"python": "3.11"}, "device": "AMD EPYC",
                 "host": "h", "precision": "bf16", "started": "2026-11-23T05:28:00+00:00",
                 "finished": "2026-11-23T05:29:00+00:00", "duration_seconds": 12.3, "resumed": 0,
                 "compile": false, "earlier": null}
}""".replace("…a", "a" * 64)
    .replace("…b", "b" * 64)
    .replace("HASH", identity_hash(IDENTITY))
    .replace("IDENTITY", json.dumps(IDENTITY))
)


def progress(train_loss: float | None) -> Progress:
    return Progress(
        epoch=3,
        epochs=10,
        train_loss=train_loss,
        top1=12.5,
        seconds_left=60.0,
        updated="2026-11-23T05:28:00+00:00",
    )


def one_line(error: UserError, path: Path | str) -> str:
    """The error's text, checked to be one printable line that names the file."""
    text = str(error)
    assert str(path) in text
    assert "\n" not in text
    text.encode()
    return text


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(TEXT), **changes})


def changed_in(section: str, **changes: Any) -> str:
    content = json.loads(TEXT)
    content[section].update(changes)
    return json.dumps(content)


def test_the_documented_example_is_read() -> None:
    record = Record.from_json(EXAMPLE)
    assert record.top1 == 74.25
    assert record.best is not None
    assert record.best.epoch == 183
    assert record.provenance.duration_seconds == 12.3
    assert json.loads(record.to_json()) == json.loads(EXAMPLE)


@pytest.mark.parametrize("failed", [False, True])
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, failed: bool) -> None:
    folder = finish_run(tmp_path, make_settings("anchor_both", 1), failed=failed)
    text = (folder / "record.json").read_text()
    record = read_record(folder)
    assert record is not None
    assert record.to_json() == text
    (folder / "record.json").unlink()
    assert read_record(folder) is None
    write_record(folder, record)
    assert read_record(folder) == record


def test_a_record_is_written_once(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    with pytest.raises(FileExistsError):
        write_record(tmp_path, RECORD.model_copy(update={"top1": 73.0}))
    assert Record.from_json((tmp_path / "record.json").read_bytes()) == RECORD


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path, RECORD.model_copy(update={"test_loss": float("nan")}))
    with pytest.raises(UserError, match=r"test_loss is '1\.9': must be a number"):
        write_record(tmp_path, RECORD.model_copy(update={"test_loss": "1.9"}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed(surprise=1), "surprise is 1: is not a key"),
        (changed_in("data", surprise=1), "data.surprise is 1: is not a key"),
        (TEXT.replace('"seed": 3,', "", 1), "seed: is missing"),
        (TEXT.replace('"precision": "fp32",', ""), "provenance.precision: is missing"),
        (changed(seed=3.0), "seed is 3.0: must be a whole number"),
        (changed(seed=True), "seed is True: must be a whole number"),
        (changed(top1="74"), "top1 is '74': must be a number"),
        (changed(top1=None), "top1 is None: must be there in a finished run"),
        (changed(top1=100.5), "top1 is 100.5: must be at most 100"),
        (changed(top5=-0.1), "top5 is -0.1: must be at least 0"),
        (changed(top1=float("nan")), "NaN is not a number"),
        (TEXT.replace('"top1": 74.0', '"top1": 1e999'), "a number is inf: too large"),
        (TEXT.replace('"top1": 74.0', f'"top1": {10**400}'), "too large"),
        (TEXT.replace('"top1": 74.0', '"top1": 74.0, "top1": 75.0'), "a key is there twice"),
        (changed(status="done"), "status is 'done': must be one of finished, failed"),
        (changed(format=2), "format is 2: only format 1 is known"),
        (changed(evaluated_on="train"), "evaluated_on is 'train'"),
        (changed_in("data", label="MNIST"), "data.label is 'MNIST'"),
        (changed(best=None), "best is None: must be there"),
        (changed_in("best", epoch=201), "best.epoch is 201: must not be above epochs, 200"),
        (changed(status="failed"), "top1 is 74.0: must be null in a failed run"),
        (
            changed(failure={"epoch": 1, "step": 1, "reason": "r", "last_finite_loss": None}),
            "must be null in a finished run",
        ),
        (changed(loss="../../etc"), "loss is '../../etc': must be a name"),
        (changed(seed=4), "must be anchor_bg-resnet110-seed4-"),
        (changed(files={}), "must have history.csv"),
        (
            changed_in("files", **{"../x": "sha256:" + "0" * 64}),
            "is '../x': must be one of history.csv, predictions.npz, weights.safetensors",
        ),
        (
            changed_in("files", **{"history.csv": "sha256:0"}),
            "files.history.csv is 'sha256:0': must be a SHA-256",
        ),
        (changed_in("provenance", host="\ud800"), "must be printable"),
        (changed_in("provenance", versions={"torch": 2}), "provenance.versions.torch is 2: must be a string"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "the whole file is []: must be an object"),
        ("", "Expecting value"),
    ],
)
def test_a_wrong_record_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        Record.from_json(text, "somewhere/record.json")
    assert problem in one_line(error.value, "somewhere/record.json")


@generated
@given(end=st.integers(0, len(TEXT) - 3))
def test_a_truncated_record_is_refused(end: int) -> None:
    with pytest.raises(UserError) as error:
        Record.from_json(TEXT.encode()[:end], "x/record.json")
    one_line(error.value, "x/record.json")


@generated
@given(bit=st.integers(0, len(TEXT) * 8 - 1))
def test_a_flipped_bit_is_refused_or_leaves_a_valid_record(bit: int) -> None:
    damaged = bytearray(TEXT.encode())
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        record = Record.from_json(bytes(damaged), "x/record.json")
    except UserError as error:
        one_line(error, "x/record.json")
    else:  # a digit or a letter became another: the text is a record still, and says so again
        assert Record.from_json(record.to_json()) == record


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@generated
@given(value=json_values)
def test_foreign_json_is_refused(value: Any) -> None:
    with pytest.raises(UserError) as error:
        Record.from_json(json.dumps(value), "x/record.json")
    one_line(error.value, "x/record.json")


@generated
@given(key=st.sampled_from(sorted(json.loads(TEXT))), value=json_values)
def test_a_foreign_value_in_a_record_never_escapes_as_another_error(key: str, value: Any) -> None:
    try:
        record = Record.from_json(changed(**{key: value}), "x/record.json")
    except UserError as error:
        one_line(error, "x/record.json")
    else:
        assert Record.from_json(record.to_json()) == record


@generated
@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_refused_everywhere(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / RECORD.run
    folder.mkdir(exist_ok=True)
    for name, read in (
        ("record.json", read_record),
        ("history.csv", read_history),
        ("predictions.npz", read_predictions),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(UserError) as error:
            read(folder)
        one_line(error.value, folder / name)
    (folder / "config.yaml").write_bytes(data)
    try:
        assert isinstance(read_config(folder), dict)
    except UserError as error:
        one_line(error, folder / "config.yaml")
    (folder / "progress.json").write_bytes(data)
    assert read_progress(folder) is None


@settings(generated, max_examples=50)
@given(draw=st.randoms(use_true_random=False))
def test_damaged_files_of_a_run_are_found_by_their_checksum(tmp_path_factory, draw: random.Random) -> None:
    folder = finish_run(tmp_path_factory.mktemp("results"), make_settings(epochs=3), images=100)
    record = read_record(folder)
    assert record is not None
    verify_files(folder, record)
    path = folder / draw.choice(["history.csv", "predictions.npz"])
    content = bytearray(path.read_bytes())
    if draw.random() < 0.5:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        del content[draw.randrange(len(content)) :]
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        verify_files(folder, record)
    one_line(error.value, path)
    for read in (read_history, read_predictions):
        try:
            read(folder)
        except UserError as error:
            one_line(error, folder)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        verify_files(folder, record)


def test_no_code_runs_from_a_pickle_in_the_predictions(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "predictions.npz"
    hostile = np.array([Hostile()], dtype=object)
    np.savez(path, target=hostile, predicted=hostile, target_rank=hostile, confidence=hostile)
    with pytest.raises(UserError) as error:
        read_predictions(tmp_path)
    one_line(error.value, path)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError):
        read_predictions(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_no_code_runs_from_a_config_and_nothing_is_interpolated(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/executed']\n")
    with pytest.raises(UserError):
        read_config(tmp_path)
    assert not (tmp_path / "executed").exists()
    path.write_text("lr: 1e-3\nhome: ${oc.env:HOME}\n")
    assert read_config(tmp_path) == {"lr": 0.001, "home": "${oc.env:HOME}"}


def test_predictions_of_wrong_type_or_length_are_refused(tmp_path: Path) -> None:
    byte, half = np.zeros(4, np.uint8), np.zeros(4, np.float16)
    good = {"target": byte, "predicted": byte, "target_rank": byte, "confidence": half}
    for wrong in (
        {"confidence": half.astype(float)},
        {"predicted": byte[:3]},
        {"target": byte.reshape(2, 2)},
    ):
        np.savez(tmp_path / "predictions.npz", **{**good, **wrong})
        with pytest.raises(UserError):
            read_predictions(tmp_path)
    np.savez(tmp_path / "predictions.npz", **good)
    assert read_predictions(tmp_path).confidence.dtype == np.float16


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("epoch,top1\n1,2\n", "the column learning_rate is missing"),
        (
            "epoch,learning_rate,train_loss,train_top1,test_loss,top1,top5\n1,.1,2,3,4,5,x\n",
            "is not a history",
        ),
        ("epoch,learning_rate,train_loss,train_top1,test_loss,top1,top5\n2,.1,2,3,4,5,6\n", "do not count"),
    ],
)
def test_a_wrong_history_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_history(tmp_path)
    assert problem in one_line(error.value, tmp_path / "history.csv")


def test_a_history_with_epochs_that_were_not_evaluated_is_read(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(
        "epoch,learning_rate,train_loss,train_top1,test_loss,top1,top5\n1,.1,2,3,,,\n2,.1,2,3,4.5,5.5,6.5\n"
    )
    history = read_history(tmp_path)
    assert history["top1"].isna().tolist() == [True, False]
    assert history["top5"][1] == 6.5


def test_progress_comes_back_and_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, progress(float("inf")))
    assert read_progress(tmp_path) == progress(None)


def test_only_the_provenance_of_one_result_may_differ() -> None:
    other = with_provenance(RECORD, host="elsewhere", duration_seconds=1.0, commit="f", resumed=3)
    assert same_result(RECORD, other)
    for change in ({"top1": 74.01}, {"test_loss": 1.9300001}, {"files": {}}):
        content = {**json.loads(TEXT), **change}
        if change == {"files": {}}:
            content["files"] = {"history.csv": "sha256:" + "0" * 64, "predictions.npz": "sha256:" + "1" * 64}
        assert not same_result(RECORD, Record.from_json(json.dumps(content)))


def test_numbers_that_python_finds_equal_are_not_one_setting() -> None:
    assert describe_difference({"nesterov": True}, {"nesterov": 1}) == {"nesterov": ("true", "1")}


def test_a_record_whose_identity_was_edited_is_refused() -> None:
    with pytest.raises(UserError, match="must be that of the identity"):
        Record.from_json(changed(identity={**json.loads(TEXT)["identity"], "precision": "bf16"}))


def test_differences_are_named_with_their_values() -> None:
    a = {"optim": {"lr": 0.1, "decay_at": [0.8, 0.9]}, "seed": 0, "data": {"name": "cifar100"}}
    b = {"optim": {"lr": 0.05, "decay_at": [0.8]}, "seed": 0, "data": {}, "extra": None}
    assert describe_difference(a, b) == {
        "data": ("absent", "{}"),
        "data.name": ('"cifar100"', "absent"),
        "extra": ("absent", "null"),
        "optim.decay_at": ("[0.8, 0.9]", "[0.8]"),
        "optim.lr": ("0.1", "0.05"),
    }
    assert describe_difference(a, a) == {}


def test_runs_are_read_in_one_order_each_with_its_state(tmp_path: Path) -> None:
    waiting = plan_run(tmp_path, make_settings("bce", 10))
    interrupted = interrupt_run(tmp_path, make_settings("bce", 2), epoch=7)
    finished = finish_run(tmp_path, make_settings("bce", 1))
    failed = finish_run(tmp_path, make_settings("anchor_bg", 5), failed=True)
    (tmp_path / "runs" / "table1" / ".merging-x").mkdir()
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


def test_a_folder_that_is_no_runs_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs" / "table1" / "backup").mkdir(parents=True)
    with pytest.raises(UserError, match=r"table1/backup: not the folder of a run"):
        read_runs(tmp_path, "table1")


def test_a_record_in_another_folder_is_refused(tmp_path: Path) -> None:
    folder = finish_run(tmp_path, make_settings(seed=1))
    moved = folder.rename(folder.with_name(make_settings(seed=2).run))
    with pytest.raises(UserError, match="is the record of bce-resnet110-seed1"):
        read_run(moved)
    shutil.rmtree(moved)
    folder = finish_run(tmp_path, make_settings(seed=1))
    edit_record(folder, experiment="small")
    with pytest.raises(UserError, match="is a record of the experiment small"):
        read_runs(tmp_path, "table1")


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
    claim = folder / "claim.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(claim)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = claim.read_bytes()
        assert read_run(folder).state == "running"
        assert claim.read_bytes() == before
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert claim.exists()
    assert read_run(folder).state == "interrupted"


def test_a_claim_from_another_host_is_live_for_its_lease(tmp_path: Path) -> None:
    claim = tmp_path / "claim.lock"
    claim.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=ab\nduration=30.0\n")
    assert claim_is_live(tmp_path)
    long_ago = time.time() - 31
    os.utime(claim, (long_ago, long_ago))
    assert not claim_is_live(tmp_path)


@pytest.mark.parametrize("text", ["", "filelock/2\npid=", "12\nhost\n", "\x00\xff"])
def test_a_damaged_claim_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "claim.lock").write_text(text, encoding="latin-1")
    assert not claim_is_live(tmp_path)


def test_reading_records_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, anchorloss.runs.folder; print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_predictions_come_back(tmp_path: Path) -> None:
    folder = finish_run(tmp_path, make_settings(), top1=60.0, images=200)
    predictions = read_predictions(folder)
    assert np.mean(predictions.target == predictions.predicted) == 0.6
    assert np.array_equal(predictions.target_rank == 0, predictions.target == predictions.predicted)
    assert len(np.load(io.BytesIO((folder / "predictions.npz").read_bytes()))["confidence"]) == 200
