"""Archives as a user may have them: whole, packed, damaged, hostile, missing."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from anchorloss.config.settings import DATA_SETS
from anchorloss.data.cifar import CIFAR10, CIFAR100, Archive, Source, download, install
from anchorloss.errors import UserError
from tests import small_cifar
from tests.commands import Done, call
from tests.conftest import ROOT


def get_data(*arguments: str | Path) -> Done:
    return call("get_data.py", *arguments, seconds=120)


def refused(done: Done, *words: str) -> None:
    """One line on stderr with these words, status 2, nothing on stdout."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def files_under(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def roots(kind: str, tmp_path: Path) -> tuple[Archive, Path]:
    archive = small_cifar.write(tmp_path / "plain")
    match kind:
        case "a folder that holds the official folder":
            return archive, tmp_path / "plain"
        case "the official folder itself":
            return archive, tmp_path / "plain" / archive.folder
        case "the archive":
            return archive, small_cifar.pack(tmp_path / "plain", tmp_path / "my copy.tgz")
        case "a folder that holds the archive":
            (tmp_path / "packed").mkdir()
            small_cifar.pack(tmp_path / "plain", tmp_path / "packed" / archive.file)
            return archive, tmp_path / "packed"
    raise ValueError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "a folder that holds the official folder",
        "the official folder itself",
        "the archive",
        "a folder that holds the archive",
    ],
)
def test_root_may_be(kind, tmp_path):
    archive, root = roots(kind, tmp_path)
    source = Source(archive, root)
    images, labels = source.images(archive.train)
    expected = small_cifar.batch(small_cifar.TRAIN, 0)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert labels.tolist() == expected["fine_labels"]
    # The first 1024 numbers of an image are its reds, row by row; then green; then blue.
    for image, channel, row, column in ((0, 0, 0, 0), (7, 1, 30, 2), (599, 2, 31, 31)):
        number = 1024 * channel + 32 * row + column
        assert images[image, channel, row, column] == expected["data"][image, number]
    assert source.class_names()[42] == "thing 42"


def test_files_of_several_batches_follow_one_another(tmp_path):
    first, second = small_cifar.batch(30, 2), small_cifar.batch(20, 3)
    archive = small_cifar.write(tmp_path, train=first, test=second)
    _, labels = Source(archive, tmp_path).images(["train", "test"])
    assert labels.tolist() == first["fine_labels"] + second["fine_labels"]


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_with_a_wrong_md5_sum_is_never_unpickled(packed, tmp_path):
    archive = small_cifar.write(tmp_path)
    (tmp_path / archive.folder / "train").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    root = small_cifar.pack(tmp_path, tmp_path / archive.file) if packed else tmp_path
    with pytest.raises(UserError, match=r"train: is not the official file.*data\.root=.*make data"):
        Source(archive, root).images(["train"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("cut", [0, 10, 100_000])
def test_a_truncated_file_is_named(cut, tmp_path):
    archive = small_cifar.write(tmp_path)
    file = tmp_path / archive.folder / "test"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cifar-100-python/test: is not the official file"):
        Source(archive, tmp_path).images(["test"])


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_archive_is_named(fraction, tmp_path):
    archive = small_cifar.write(tmp_path)
    packed = small_cifar.pack(tmp_path, tmp_path / "packed.tar.gz")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match=r"packed\.tar\.gz: damaged or no tar archive.*make data"):
        Source(archive, packed)


def test_a_missing_file_is_named(tmp_path):
    archive = small_cifar.write(tmp_path, meta=None)
    with pytest.raises(UserError, match=r"cifar-100-python/meta: missing"):
        Source(archive, tmp_path).class_names()
    with pytest.raises(UserError, match=r"packed:meta: missing"):
        Source(archive, small_cifar.pack(tmp_path, tmp_path / "packed")).class_names()


def test_a_missing_root_is_named(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"data\.root=.*make data"):
            Source(CIFAR100, root)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"fine_labels": [100] * 4, "data": np.zeros((4, 3072), np.uint8)}, "labels outside 0 to 99"),
        ({"fine_labels": [-1] * 4, "data": np.zeros((4, 3072), np.uint8)}, "labels outside 0 to 99"),
        ({"fine_labels": ["cat"] * 4, "data": np.zeros((4, 3072), np.uint8)}, "labels outside 0 to 99"),
        ({"fine_labels": [1] * 3, "data": np.zeros((4, 3072), np.uint8)}, "a label for each image"),
        ({"data": np.zeros((4, 3072), np.uint8)}, "a label for each image"),
        ({"fine_labels": [1] * 4, "data": np.zeros((4, 3071), np.uint8)}, "no 32x32 images"),
        ({"fine_labels": [1] * 4, "data": np.zeros((4, 3072), np.float32)}, "no 32x32 images"),
        ({"fine_labels": [1] * 4}, "no 32x32 images"),
        ([1, 2], "no CIFAR batch"),
        (b"no pickle at all", "is no pickle"),
    ],
)
def test_contents_that_are_wrong_are_named(train, message, tmp_path):
    archive = small_cifar.write(tmp_path, train=train)
    with pytest.raises(UserError, match=rf"cifar-100-python/train: .*{message}"):
        Source(archive, tmp_path).images(["train"])


def test_a_hostile_archive_writes_nothing_and_is_refused(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    evil = tmp_path / "root" / "evil.tar"
    evil.parent.mkdir()
    with tarfile.open(evil, "w") as tar:
        for name in ("../train", "/tmp/train", "other/train", "cifar-100-python/../../train"):
            content = (tmp_path / "plain" / archive.folder / "train").read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "plain" / archive.folder / "train")
        tar.addfile(link)
    before = files_under(tmp_path)
    with pytest.raises(UserError, match="train: missing"):
        Source(archive, evil).images(["train"])
    assert files_under(tmp_path) == before


def test_install_makes_the_folder_and_leaves_nothing_else(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    packed = small_cifar.pack(tmp_path / "plain", tmp_path / "packed")
    target = tmp_path / "new" / "data"
    assert install(Source(archive, packed), target) == target / archive.folder
    assert files_under(target) == {target / archive.folder} | {
        target / archive.folder / name for name in ("train", "test", "meta")
    }
    for name in ("train", "test", "meta"):
        copied, original = (root / archive.folder / name for root in (target, tmp_path / "plain"))
        assert copied.read_bytes() == original.read_bytes()
        assert copied.stat().st_mode == original.stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "packed", "new"}


def test_install_repairs_a_folder_and_keeps_what_is_not_its_own(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    target = tmp_path / "data"
    folder = install(Source(archive, tmp_path / "plain"), target)
    (folder / "train").write_bytes(b"damaged")
    (folder / "test").unlink()
    (folder / "notes.txt").write_text("mine")
    untouched = (folder / "meta").stat().st_mtime_ns
    install(Source(archive, tmp_path / "plain"), target)
    assert {path.name for path in folder.iterdir()} == {"train", "test", "meta", "notes.txt"}
    assert (folder / "meta").stat().st_mtime_ns == untouched
    Source(archive, target).images(["train", "test"])
    assert list(target.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["train", "meta"])
def test_install_writes_nothing_from_a_damaged_source(name, tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    (tmp_path / "plain" / archive.folder / name).write_bytes(b"damaged")
    before = files_under(tmp_path)
    with pytest.raises(UserError, match=f"{name}: is not the official file"):
        install(Source(archive, tmp_path / "plain"), tmp_path / "new" / "data")
    assert files_under(tmp_path) == before


def test_install_into_something_that_is_no_folder(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    (tmp_path / "file").write_text("")
    before = files_under(tmp_path)
    for target in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(UserError, match=r"file.*name another folder"):
            install(Source(archive, tmp_path / "plain"), target)
    assert files_under(tmp_path) == before


DOWNLOAD = """
import json, sys
from pathlib import Path
from anchorloss.data import cifar
from anchorloss.errors import one_line_errors
with one_line_errors():
    cifar.download(cifar.Archive(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture
def site(tmp_path):
    """A web server of this machine with the small archive; the archive's facts, with its address."""
    archive = small_cifar.write(tmp_path / "plain")
    (tmp_path / "site").mkdir()
    packed = small_cifar.pack(tmp_path / "plain", tmp_path / "site" / archive.file)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield replace(
            archive,
            url=f"http://127.0.0.1:{server.server_port}/{archive.file}",
            md5=hashlib.md5(packed.read_bytes()).hexdigest(),
        )
        server.shutdown()


def run_download(archive: Archive, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD, json.dumps(asdict(archive)), str(root)],
        env={**os.environ, "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_download_ends_in_a_verified_folder(site, tmp_path):
    done = run_download(site, tmp_path / "new" / "data")
    assert done.returncode == 0, done.stderr
    Source(site, tmp_path / "new" / "data").images(["train", "test"])
    assert [path.name for path in (tmp_path / "new" / "data").iterdir()] == [site.folder]


@pytest.mark.parametrize("trouble", ["another archive", "no server"])
def test_a_download_that_fails_leaves_nothing(trouble, site, tmp_path):
    changes = {
        "another archive": {"md5": "0" * 32},
        "no server": {"url": "http://127.0.0.1:9/archive.tar.gz"},
    }
    before = files_under(tmp_path)
    done = run_download(replace(site, **changes[trouble]), tmp_path / "new" / "data")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the download failed" in done.stderr.splitlines()[-1]
    assert "data.root=FILE" in done.stderr.splitlines()[-1]
    assert files_under(tmp_path) == before


def test_download_without_a_working_torchvision_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"data\.root=.*torchvision.*nms.*https://www\.cs\.toronto\.edu"):
        download(CIFAR100, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_get_data_refuses_what_is_not_the_official_set(tmp_path):
    small_cifar.write(tmp_path / "small")
    target = tmp_path / "data"
    refused(get_data("--from", tmp_path / "nowhere", "--to", target), "--from", "nowhere", "no such")
    refused(get_data("--from", tmp_path / "small", "--to", target), "train", "not the official file")
    refused(get_data("--from", tmp_path, "--to", target), str(tmp_path), "holds neither")
    refused(get_data("--dataset", "cifar10", "--from", tmp_path / "small", "--to", target), CIFAR10.file)
    assert not target.exists()


def test_md5_sums_are_those_that_torchvision_checks():
    """Read from torchvision's source, because it does not import beside every torch."""
    import ast
    from importlib.util import find_spec

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed")
    source = (Path(spec.origin).parent / "datasets" / "cifar.py").read_text()
    facts = {
        node.name: {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in node.body
            if isinstance(statement, ast.Assign)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }
    for theirs, ours in ((facts["CIFAR100"], CIFAR100), (facts["CIFAR10"], CIFAR10)):
        assert (theirs["base_folder"], theirs["filename"]) == (ours.folder, ours.file)
        assert (theirs["url"], theirs["tgz_md5"]) == (ours.url, ours.md5)
        assert dict(theirs["train_list"]) == ours.train
        assert dict(theirs["test_list"]) == ours.test
        assert {theirs["meta"]["filename"]: theirs["meta"]["md5"]} == ours.meta
        assert theirs["meta"]["key"] == ours.class_key


def test_get_data_copies_the_official_set(cifar_root, tmp_path):
    done = get_data("--from", cifar_root, "--to", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "data" / CIFAR100.folder).iterdir()} == {
        "train",
        "test",
        "meta",
    }
    again = get_data("--download", "--to", tmp_path / "data")
    assert again.returncode == 0, "what is there and official is not fetched again"
    assert again.stdout == done.stdout


def test_the_official_set(cifar_root):
    source = Source(CIFAR100, cifar_root)
    images, labels = source.images(CIFAR100.train)
    assert images.shape == (50_000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [500] * 100
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1)
    mean = pixels.mean(1) / 255
    std = [
        float(np.sqrt(np.mean(np.square(channel, dtype=np.float64)) / 255**2 - centre**2))
        for channel, centre in zip(pixels, mean, strict=True)
    ]
    assert np.round(mean, 7).tolist() == DATA_SETS["cifar100"]["mean"]
    assert np.round(std, 7).tolist() == DATA_SETS["cifar100"]["std"]
    images, labels = source.images(CIFAR100.test)
    assert images.shape == (10_000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [100] * 100
    assert source.class_names()[:3] == ("apple", "aquarium_fish", "baby")
