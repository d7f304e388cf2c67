"""Archives as a user may have them: whole, packed, damaged, hostile, missing."""

from __future__ import annotations

import ast
import io
import os
import pickle
import sys
import tarfile
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from anchorloss.config.settings import DATA_SETS
from anchorloss.data.cifar import ARCHIVES, Archive, Source, fetch, install
from anchorloss.errors import UserError
from tests import small_cifar
from tests.commands import Done, call, time_limit
from tests.small_cifar import CIFAR100

UTILS = "torchvision.datasets.utils"


def get_data(*arguments: str | Path) -> Done:
    return call("get_data.py", *arguments, seconds=120)


def files_under(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_root_is_the_folder_or_the_archive_or_holds_it(packed, inside, tmp_path):
    archive, plain = small_cifar.write(tmp_path / "plain"), tmp_path / "plain"
    (tmp_path / "packed").mkdir()
    tar = small_cifar.pack(plain, tmp_path / "packed" / archive.file)
    root = (tar.parent if inside else tar) if packed else plain if inside else plain / archive.folder
    images, labels = Source(archive, root).images(["train", "test"])
    expected = small_cifar.batch(small_cifar.TRAIN, 0)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert labels.tolist() == expected["fine_labels"] + small_cifar.batch(small_cifar.TEST, 1)["fine_labels"]
    # The first 1024 numbers of an image are its reds, row by row; then green; then blue.
    for image, channel, row, column in ((0, 0, 0, 0), (7, 1, 30, 2), (599, 2, 31, 31)):
        number = 1024 * channel + 32 * row + column
        assert images[image, channel, row, column] == expected["data"][image, number]


class Trap:
    """Unpickled, it makes a folder."""

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


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_archive_is_named(fraction, tmp_path):
    archive = small_cifar.write(tmp_path)
    packed = small_cifar.pack(tmp_path, tmp_path / "packed.tar.gz")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match=r"packed\.tar\.gz: damaged or no tar archive.*make data"):
        Source(archive, packed)


def test_what_is_missing_is_named(tmp_path):
    archive = small_cifar.write(tmp_path)
    (tmp_path / archive.folder / "test").unlink()
    for root, place in ((tmp_path, "/test"), (small_cifar.pack(tmp_path, tmp_path / "packed"), ":test")):
        with pytest.raises(UserError, match=rf"{place}: missing.*make data"):
            Source(archive, root).read("test")
    for root in (tmp_path / "nowhere", tmp_path / "x" / ("x" * 300)):
        with pytest.raises(UserError, match=r"data\.root=.*make data"):
            Source(archive, root)


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
@pytest.mark.parametrize("place", ["train", "archive", "root"])
def test_what_is_no_file_is_not_opened(kind, place, tmp_path):
    """A pipe waits for its writer for ever, and a link to /dev/zero has no end."""
    archive = small_cifar.write(tmp_path / "plain")
    names = {"archive": tmp_path / "root" / archive.file, "root": tmp_path / "root" / "x"}
    path = names.get(place, tmp_path / "plain" / archive.folder / place)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "endless": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    root = path if place == "root" else tmp_path / ("root" if place == "archive" else "plain")
    before = files_under(tmp_path)
    with (
        time_limit(20),
        pytest.raises(
            UserError, match=rf"({path.name}: (not a regular file|cannot be read)|root={root}: holds neither)"
        ),
    ):
        install(Source(archive, root), tmp_path / "new")
    assert files_under(tmp_path) == before


def test_a_hostile_archive_writes_nothing_and_is_refused(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    evil = tmp_path / "evil.tar"
    file = tmp_path / "plain" / archive.folder / "train"
    with tarfile.open(evil, "w") as tar:
        for name in ("../train", "/tmp/train", "other/train", "cifar-100-python/../../train"):
            member = tarfile.TarInfo(name)
            member.size = file.stat().st_size
            tar.addfile(member, io.BytesIO(file.read_bytes()))
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, str(file)
        tar.addfile(link)
    before = files_under(tmp_path)
    with pytest.raises(UserError, match=r"evil\.tar"):
        Source(archive, evil).images(["train"])
    assert files_under(tmp_path) == before


def test_install_makes_the_folder_and_leaves_nothing_else(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    packed = small_cifar.pack(tmp_path / "plain", tmp_path / "packed")
    folder = install(Source(archive, packed), tmp_path / "new" / "data")
    names = {"train", "test", "meta"}
    assert files_under(tmp_path / "new" / "data") == {folder} | {folder / name for name in names}
    for name in names:
        original = tmp_path / "plain" / archive.folder / name
        assert (folder / name).read_bytes() == original.read_bytes()
        assert (folder / name).stat().st_mode == original.stat().st_mode


def test_install_repairs_a_folder_and_keeps_what_is_not_its_own(tmp_path):
    """As an interrupted copy leaves it: it is not taken for a whole one, and the same command again completes it."""
    archive = small_cifar.write(tmp_path / "plain")
    folder = tmp_path / "data" / archive.folder
    folder.mkdir(parents=True)
    (folder / "train").write_bytes((tmp_path / "plain" / archive.folder / "train").read_bytes()[:100_000])
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="train: is not the official file"):
        Source(archive, tmp_path / "data").images(["train"])
    assert install(Source(archive, tmp_path / "plain"), tmp_path / "data") == folder
    assert {path.name for path in folder.iterdir()} == {"train", "test", "meta", "notes.txt"}
    Source(archive, tmp_path / "data").images(["train", "test"])
    assert list(folder.parent.iterdir()) == [folder]


def test_install_writes_nothing_from_a_damaged_source_or_into_no_folder(tmp_path):
    archive = small_cifar.write(tmp_path / "plain")
    (tmp_path / "file").write_text("")
    before = files_under(tmp_path)
    for target in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(OSError, match="file"):
            install(Source(archive, tmp_path / "plain"), target)
    (tmp_path / "plain" / archive.folder / "meta").write_bytes(b"damaged")
    with pytest.raises(UserError, match="meta: is not the official file"):
        install(Source(archive, tmp_path / "plain"), tmp_path / "new" / "data")
    assert files_under(tmp_path) == before


@pytest.fixture
def site(tmp_path, monkeypatch) -> Archive:
    """The small archive at an address, and a stand-in for torchvision, which imports only beside its own torch."""

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        urllib.request.urlretrieve(url, Path(root, filename))

    modules = {name: ModuleType(name) for name in ("torchvision", "torchvision.datasets", UTILS)}
    modules[UTILS].download_url = download_url
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    archive = small_cifar.write(tmp_path / "plain")
    return replace(archive, url=small_cifar.pack(tmp_path / "plain", tmp_path / "served").as_uri())


def test_a_download_ends_in_a_verified_folder(site, tmp_path):
    assert fetch(site, tmp_path / "new" / "data") == tmp_path / "new" / "data" / site.folder
    Source(site, tmp_path / "new" / "data").images(["train", "test"])
    assert [path.name for path in (tmp_path / "new" / "data").iterdir()] == [site.folder]


@pytest.mark.parametrize("trouble", ["another archive", "no server", "no torchvision"])
def test_a_download_that_fails_leaves_nothing(trouble, site, tmp_path, monkeypatch):
    message = "test: is not the official file"
    if trouble == "another archive":
        site = replace(site, test={"test": "0" * 32})
    elif trouble == "no server":
        site, message = (
            replace(site, url=(tmp_path / "nothing").as_uri()),
            "the download failed.*make data FROM=FILE",
        )
    else:
        monkeypatch.setitem(sys.modules, UTILS, None)
        message = r"torchvision, which downloads, does not import.*fetch file:.*make data FROM=FILE"
    with pytest.raises(UserError, match=message):
        fetch(site, tmp_path / "new" / "data")
    assert not (tmp_path / "new").exists()


def test_get_data_refuses_what_is_not_the_official_set(tmp_path):
    small_cifar.write(tmp_path / "small")
    target = tmp_path / "data"
    for arguments, words in (
        (["--from", tmp_path / "nowhere"], "no such file"),
        (["--from", tmp_path / "small"], "train: is not the official file"),
        (["--from", tmp_path], "holds neither"),
        (["--dataset", "cifar10", "--from", tmp_path / "small"], ARCHIVES["cifar10"].file),
        (["--from", ""], "--from"),
    ):
        done = get_data(*arguments, "--to", target)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
    assert not target.exists()


def test_md5_sums_are_those_that_torchvision_checks():
    """Read from torchvision's source, because it does not import beside every torch."""
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
    for theirs, ours in ((facts["CIFAR100"], CIFAR100), (facts["CIFAR10"], ARCHIVES["cifar10"])):
        assert (theirs["base_folder"], theirs["filename"]) == (ours.folder, ours.file)
        assert (theirs["url"], theirs["tgz_md5"]) == (ours.url, ours.md5)
        assert dict(theirs["train_list"]) == ours.train
        assert dict(theirs["test_list"]) == ours.test
        assert {theirs["meta"]["filename"]: theirs["meta"]["md5"]} == ours.meta


def test_the_official_set(cifar_root, tmp_path):
    done = get_data("--from", cifar_root, "--to", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    again = get_data("--download", "--to", tmp_path / "data")
    assert again.stdout == done.stdout, "what is there and official is not fetched again"
    source = Source(CIFAR100, tmp_path / "data")
    images, labels = source.images(CIFAR100.train)
    assert images.shape == (50_000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [500] * 100
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1)
    mean = pixels.mean(1) / 255
    std = [
        float(np.sqrt(np.mean(np.square(channel, dtype=np.float64)) / 255**2 - centre**2))
        for channel, centre in zip(pixels, mean, strict=True)
    ]
    facts = DATA_SETS["cifar100"]
    assert (np.round(mean, 7).tolist(), np.round(std, 7).tolist()) == (facts["mean"], facts["std"])
    images, labels = source.images(CIFAR100.test)
    assert images.shape == (10_000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [100] * 100
    assert pickle.loads(source.read("meta"))["fine_label_names"] == facts["class_names"]
