"""Records that contradict themselves or the files beside them, and files that are none, are refused in one line."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anchorloss.config.identity import identity_hash
from anchorloss.errors import UserError
from anchorloss.runs.files import sha256
from anchorloss.runs.folder import read_config, read_ended, read_progress, read_record
from tests.commands import call, time_limit
from tests.run_folders import finish_run, make_settings

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finish_run(tmp_path / "results", make_settings("anchor_bg", 3, epochs=4), images=1000)


def edit(folder: Path, change: Edit) -> Path:
    """Change a record and give it the hash, name and folder that it would then have."""
    record = json.loads((folder / "record.json").read_text())
    change(record)
    record["hash"] = identity_hash(record["identity"])
    record["run"] = f"{record['loss']}-{record['model']}-seed{record['seed']}-{record['hash']}"
    (folder / "record.json").write_text(json.dumps(record))
    return folder.rename(folder.with_name(record["run"]))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file and the checksum of it in the record."""
    (folder / name).write_bytes(content)
    record = json.loads((folder / "record.json").read_text())
    record["files"][name] = sha256(content)
    (folder / "record.json").write_text(json.dumps(record))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error, time_limit(20):
        read_record(folder)
    text = str(error.value)
    assert str(folder) in text
    assert "\n" not in text
    return text


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz") as archive:
        return dict(archive)


def save_arrays(folder: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(folder, "predictions.npz", buffer.getvalue())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r["identity"].update(seed=4), "identity.seed is 4: must be 3"),
        (lambda r: r["identity"]["model"].update(name="resnet8"), "identity.model.name is 'resnet8'"),
        (lambda r: r["identity"]["optim"].update(epochs=3), "identity.optim.epochs is 3: must be 4"),
        (lambda r: r["identity"]["optim"].update(epochs=4.0), "identity.optim.epochs is 4.0"),
        (lambda r: r["identity"]["data"].update(evaluate_on="validation"), "identity.data.evaluate_on"),
        (lambda r: r["identity"]["loss"].update(name="bce"), "identity.loss.name is 'bce'"),
        (lambda r: r["identity"].update(precision="bf16"), "identity.precision is 'bf16'"),
        (
            lambda r: r["identity"]["optim"].update(momentum=1.5),
            "identity.optim.momentum is 1.5: must be less",
        ),
        (lambda r: r["identity"]["optim"].update(lr="0.1"), "identity.optim.lr is '0.1': must be a number"),
        (lambda r: r["identity"]["model"].update(width=2), "identity.model.width is 2: is not a key"),
        (lambda r: r["identity"].pop("loss"), "identity.loss.name is None"),
        (lambda r: r["identity"].update(loss=[1]), "identity.loss.name is None"),
        (lambda r: r["data"].update(label="SYNTHETIC"), "data.label is 'SYNTHETIC': must be CIFAR-100"),
        (lambda r: r.update(top1=93.0), "must not be above top5"),
        (lambda r: r.update(epochs=1_000_001), "epochs is 1000001: must be at most 1000000"),
        (lambda r: r["provenance"].update(device="a\nb"), "must be printable"),
        (lambda r: r["provenance"].update(host="\x1b[31m"), "must be printable"),
        (lambda r: r["identity"]["loss"].update(note="a\nb"), "must be printable"),
        (lambda r: r["data"].update(evaluation_images=-1), "data.evaluation_images is -1"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(folder: Path, change: Edit, problem: str) -> None:
    assert problem in refusal(edit(folder, change))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.update(top1=73.9), "history.csv: top1 is 74.0 in the last row, 73.9 in record.json"),
        (lambda r: r.update(test_loss=1.0), "test_loss is 1.93 in the last row"),
        (lambda r: r["best"].update(epoch=2), "record.json names 74.0 in epoch 2"),
        (lambda r: r["best"].update(top1=80.0), "its best Top-1 is 74.0"),
        (
            lambda r: (
                r.update(epochs=3),
                r["identity"]["optim"].update(epochs=3),
                r["best"].update(epoch=3),
            ),
            "has 4 rows, not 3",
        ),
        (lambda r: r["data"].update(evaluation_images=999), "has 1,000 predictions"),
    ],
)
def test_a_record_that_contradicts_its_files_is_refused(folder: Path, change: Edit, problem: str) -> None:
    assert problem in refusal(edit(folder, change))


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_a_history_of_another_length_is_refused(folder: Path, rows: int) -> None:
    header, *lines = (folder / "history.csv").read_text().splitlines()
    content = "\n".join([header, *(lines * 100)[:rows]]) + "\n"
    replace_file(folder, "history.csv", content.encode())
    assert f"has {rows} rows, not 4" in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("\n2,", "\n3,", "its epochs do not count"),
        (",74.0,", ",74.5,", "top1 is 74.5 in the last row"),
        (",74.0,", ",,", "was not evaluated"),
        (",74.0,", ",nan,", "not finite"),
        (",74.0,", ",NaN,", "not finite"),
        (",74.0,", ",inf,", "no training gives"),
        ("_q50", "\x1b[31m", "is not a history"),
        (",74.0,", ",x,", "is not a history"),
        ("epoch,", "\xff,", "is not a history"),
        ("top1", "top", "is not a history"),
    ],
)
def test_a_history_that_is_none_is_refused(folder: Path, old: str, new: str, problem: str) -> None:
    content = (folder / "history.csv").read_text()
    replace_file(folder, "history.csv", content.replace(old, new).encode("latin-1"))
    assert problem in refusal(folder)


def test_predictions_that_are_not_the_records_are_refused(folder: Path) -> None:
    good = arrays(folder)
    wrong = good["predicted"].copy()
    wrong[0] = (wrong[0] + 1) % 100
    rank = good["target_rank"].copy()
    rank[0] = 1
    far = np.where(good["target_rank"] > 0, 9, 0).astype(np.uint8)
    cases: list[tuple[dict[str, np.ndarray], str]] = [
        ({"predicted": wrong}, "or the reverse"),
        ({"predicted": wrong, "target_rank": rank}, "its top1 is 73.9"),
        ({"target_rank": far}, "its top5 is 74.0, 92.0 in record.json"),
        (
            {"predicted": np.where(good["predicted"] == 5, 255, good["predicted"]).astype(np.uint8)},
            "goes up to 255",
        ),
        ({key: value[:-1] for key, value in good.items()}, "has 999 predictions"),
        ({"confidence": np.full(1000, np.nan, np.float16)}, "not between 0 and 1"),
        ({"confidence": np.full(1000, np.inf, np.float16)}, "not between 0 and 1"),
        ({"confidence": np.float16(0.5)}, "confidence is float16 ()"),
        ({key: value[0] for key, value in good.items()}, "target is uint8 ()"),
        ({"target": good["target"].astype(np.int64)}, "target is int64"),
    ]
    for changed, problem in cases:
        save_arrays(folder, **{**good, **changed})
        assert problem in refusal(folder)
    save_arrays(folder, **good)
    assert read_record(folder) is not None


def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("target.npy", bytes(100 << 20))
    replace_file(folder, "predictions.npz", buffer.getvalue())
    assert "has 104,857,600 bytes" in refusal(folder)


def test_every_reader_refuses_it(folder: Path, tmp_path: Path) -> None:
    folder = edit(folder, lambda record: record.update(top1=73.9))
    results = tmp_path / "results"
    with pytest.raises(UserError, match="top1"):
        read_ended(results, "table1")
    for script, arguments in (
        ("make_table1.py", ("--experiment", "table1", "--results-dir", results)),
        ("status.py", ("--experiment", "table1", "--results-dir", results)),
        ("make_table1.py", ("--by", "run", "--results-dir", results)),
        ("merge_results.py", (results, "--into", tmp_path / "into")),
        ("rerun.py", (folder, "--data-root", tmp_path)),
    ):
        done = call(script, *arguments)
        assert done.returncode == 2, (script, done.stderr)
        assert "history.csv: top1 is 74.0 in the last row, 73.9 in record.json" in done.stderr.replace(
            "\n", " "
        )
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    "name", ["record.json", "history.csv", "predictions.npz", "config.yaml", "progress.json"]
)
@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "dangling", "loop", "sparse", "long"])
def test_what_is_no_ordinary_file_is_refused_at_once(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    else:
        target = {"zero": "/dev/zero", "dangling": "nowhere", "loop": path, "long": "a" * 255 + "/b"}[kind]
        path.symlink_to(target)
    with time_limit(20):
        if name == "progress.json":
            assert read_progress(folder) is None
        elif name == "config.yaml":
            with pytest.raises(UserError, match=r"config\.yaml"):
                read_config(folder)
        else:
            assert name in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "a: &a [1]\nb: *a\n",
        "a: " + "[" * 900 + "]" * 900,
        "- 1\n",
        "5\n",
        "",
        "\x00",
        "a: !!python/object/apply:os.getcwd []\n",
    ],
)
def test_a_hostile_config_of_a_run_is_refused(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError) as error, time_limit(20):
        read_config(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lr: 0.1", "lr: ${oc.env:HOME}"),
        ("lr: 0.1", "lr: fast"),
        ("lr: 0.1", "lr: 0.2"),
        ("lr: 0.1", "lr: 0.1\n  other: 1"),
        ("name: table1", "name: other"),
        ("seeds:", "sheds:"),
    ],
)
def test_a_config_that_is_not_its_records_is_not_trained(
    folder: Path, tmp_path: Path, old: str, new: str
) -> None:
    path = folder / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = call("rerun.py", folder, "--data-root", tmp_path, "--into", tmp_path / "into")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "config.yaml" in line
    assert not (tmp_path / "into").exists()


def test_a_record_nested_deeply_is_refused(folder: Path) -> None:
    for depth in (20, 900, 100_000):
        text = (folder / "record.json").read_text()
        nested = '{"a":' * depth + "1" + "}" * depth
        (folder / "record.json").write_text(
            text.replace('"identity": {', f'"identity": {{"deep": {nested},', 1)
        )
        assert "nested too deeply" in refusal(folder)
        (folder / "record.json").write_text(text)
