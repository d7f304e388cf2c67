"""record.json: what is written comes back, what is damaged or contradicts itself is one line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from anchorloss.errors import UserError
from anchorloss.runs.differences import describe_difference, same_result
from anchorloss.runs.folder import write_record
from anchorloss.runs.record import Record
from tests.run_folders import make_record, make_settings, sealed

RECORD = make_record(make_settings("anchor_bg", 3))
FAILED = make_record(make_settings("anchor_bg", 3), failed=True)
CONTENT = json.loads(RECORD.to_json())


def refusal(text: bytes) -> str:
    with pytest.raises(UserError) as error:
        Record.from_json(text, "x/record.json")
    line = str(error.value)
    assert line.startswith("x/record.json: ")
    assert line.isascii()
    assert line.isprintable()
    return line


@pytest.mark.parametrize("record", [RECORD, FAILED])
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    text = record.to_json().encode()
    assert Record.from_json(text) == record
    assert Record.from_json(text).to_json().encode() == text


def test_the_checksum_is_the_last_key_and_of_the_text_without_it() -> None:
    assert list(CONTENT)[-1] == "checksum"
    assert sealed(CONTENT) == RECORD.to_json().encode()


def test_a_record_from_before_there_was_a_checksum_is_read_and_is_the_same_result() -> None:
    content = {key: value for key, value in CONTENT.items() if key != "checksum"}
    text = (json.dumps(content, indent=2) + "\n").encode()
    old = Record.from_json(text)
    assert old.to_json().encode() == text
    assert same_result(old, RECORD)


def test_no_flipped_bit_and_no_cut_is_taken_for_a_record() -> None:
    text = RECORD.to_json().encode()
    draw = random.Random(0)
    for bit in draw.sample(range(8 * len(text)), 1000):
        damaged = bytearray(text)
        damaged[bit // 8] ^= 1 << bit % 8
        refusal(bytes(damaged))
    for end in draw.sample(range(len(text) - 1), 100):
        refusal(text[:end])


def changed(part: str | None = None, **changes: Any) -> bytes:
    """The record with other values, and the checksum of what is then there."""
    content = json.loads(RECORD.to_json())
    (content if part is None else content[part]).update(changes)
    return sealed(content)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed(seed=4), "seed is 4: must be 3"),
        (changed(loss="bce"), "loss is 'bce': must be 'anchor_bg'"),
        (changed(hash="0" * 10), "hash is '0000000000': must be"),
        (changed(run="../x"), "run is '../x': must be 'anchor_bg-resnet110-seed3-"),
        (changed(evaluated_on="validation"), "evaluated_on is 'validation': must be 'test'"),
        (changed(status="failed", failure=None), "must have all of top1"),
        (changed(top1=None), "must have all of top1"),
        (changed(status="done"), "status is 'done'"),
        (changed(format=2), "format is 2"),
        (changed(epochs=3), "epochs is 3: must be 200"),
        (changed(seed=3.0), "seed is 3.0: must be"),
        (changed(top1="74"), "top1 is '74': must be"),
        (changed(top1=100.5), "top1 is 100.5: must be"),
        (changed(extra=1), "extra is 1: is not a key"),
        (changed("data", label="MNIST"), "MNIST"),
        (changed("identity", precision="bf16"), "must be"),
        (changed("identity", loss=[1]), "its identity is not that of a run"),
        (changed("provenance", host="a\x1b[31m"), "provenance.host"),
        (changed("files", **{"../x": "sha256:" + "0" * 64}), "../x"),
        (changed("files", **{"history.csv": "sha256:0"}), "files.history.csv is 'sha256:0'"),
        (changed(top1=float("nan")), "top1 is nan"),
        (json.dumps(CONTENT).encode(), "is not written as a run writes it"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "must be an object"),
        (b"\xff", "JSON"),
        (b"", "JSON"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(text: bytes, problem: str) -> None:
    assert problem in refusal(text)


def test_a_record_is_written_once_and_only_if_it_can_be_read_back(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    with pytest.raises(FileExistsError):
        write_record(tmp_path, FAILED)
    assert (tmp_path / "record.json").read_text() == RECORD.to_json()
    with pytest.raises(UserError, match="checksum"):
        write_record(tmp_path / "other", RECORD.model_copy(update={"top1": 1.0}))


def test_only_the_provenance_of_one_result_may_differ() -> None:
    assert same_result(
        RECORD, make_record(make_settings("anchor_bg", 3), host="elsewhere", commit="f", resumed=3)
    )
    for change in (
        {"top1": 74.01},
        {"test_loss": 1.9300001},
        {"files": {"history.csv": "sha256:" + "0" * 64}},
    ):
        assert not same_result(RECORD, Record.from_json(changed(**change)))
    kept = Record.from_json(changed("files", **{"weights.safetensors": "sha256:" + "0" * 64}))
    assert same_result(RECORD, kept)


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
    # Python finds these equal.
    assert describe_difference({"nesterov": True}, {"nesterov": 1}) == {"nesterov": ("true", "1")}
