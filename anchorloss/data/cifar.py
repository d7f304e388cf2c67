"""CIFAR-100 and CIFAR-10 as their authors published them: found, verified by md5 sum, and only then unpickled."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anchorloss.config.settings import DATA_SETS
from anchorloss.data.custom import Images
from anchorloss.errors import UserError
from anchorloss.runs.files import read_file, write_atomically

REMEDY = "name the official folder or archive with data.root=…, or get it with `make data`"
# The official archives have 170 MB, unpacked 186 MB; of a larger one no more is read.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        folder: The folder inside the archive.
        file, url: The archive's file name, and where its authors publish it.
        md5: The archive's md5 sum.
        train, test, meta: Names of the training files, the test files and the rest, each with its md5 sum.
        label_key: Key of the labels in a training or test file.
    """

    folder: str
    file: str
    url: str
    md5: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    label_key: str

    @property
    def md5_of(self) -> dict[str, str]:
        """The md5 sum of every file."""
        return {**self.train, **self.test, **self.meta}

    @property
    def checksum(self) -> str:
        """The checksum in a run's record: one digest over the md5 sums of the files."""
        text = "\n".join(f"{name} {md5}" for name, md5 in sorted(self.md5_of.items()))
        return f"md5:{_md5(text.encode())}"


ARCHIVES = {name: Archive(**facts["archive"]) for name, facts in DATA_SETS.items() if "archive" in facts}


def load(name: str, root: Path, *, download: bool = False, read_test: bool = True) -> Images:
    """Read a set of `ARCHIVES` from its folder or archive.

    Args:
        name: As in `data.name`.
        root: The official folder or the archive, or a folder that holds one of them.
        download: Let torchvision fetch the archive into `root` where neither is there.
        read_test: False leaves the test files alone, and returns no test images.

    Raises:
        UserError: Nothing is there, or a file is missing or is not the official one; the message names it.
    """
    archive = ARCHIVES[name]
    if download and _locate(archive, root) is None:
        fetch(archive, root)
    source = Source(archive, root)
    train = source.images(archive.train)
    test = source.images(archive.test) if read_test else (train[0][:0], train[1][:0])
    return Images(*train, *test, DATA_SETS[name]["class_names"])


class Source:
    """The files of an archive, in a folder or in a tar archive that is unpacked in memory."""

    def __init__(self, archive: Archive, root: Path) -> None:
        """Find them: `root` is the official folder or the archive, or a folder that holds one of them.

        Raises:
            UserError: There is neither, or the archive is damaged.
        """
        found = _locate(archive, root)
        if found is None:
            raise UserError(f"data.root={root}: holds neither {archive.folder}/ nor {archive.file}; {REMEDY}")
        self.archive, self.place = archive, found
        self._members = None if found.is_dir() else _unpack(found)

    def read(self, name: str) -> bytes:
        """Read one of the files and verify its md5 sum.

        Raises:
            UserError: The file is missing or is not the official one; the message names it.
        """
        if self._members is None:
            where, content = f"{self.place / name}", read_file(self.place / name, _MOST_BYTES)
        else:
            where, content = f"{self.place}:{name}", self._members.get(f"{self.archive.folder}/{name}")
        if content is None:
            raise UserError(f"{where}: missing; {REMEDY}")
        if _md5(content) != self.archive.md5_of[name]:
            raise UserError(f"{where}: is not the official file (md5 sum), damaged perhaps; {REMEDY}")
        return content

    def images(self, names: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Read the images uint8 (N, 3, 32, 32) and labels int64 (N,) of these files, one file after another."""
        batches = [pickle.loads(self.read(name), encoding="latin1") for name in names]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch[self.archive.label_key] for batch in batches])
        return images, labels.astype(np.int64)


def install(source: Source, root: Path) -> Path:
    """Put the official folder with the files of `source` into `root`, and return it.

    Every file is verified before any is written. A folder that is not there yet appears whole; in one that is there, the
    official files are replaced one by one, and nothing else is touched.

    Raises:
        UserError: A file of `source` is missing or damaged.
        RunError: A file cannot be written, on a full disk for example.
        OSError: `root` cannot hold a folder.
    """
    folder = root / source.archive.folder
    contents = {name: source.read(name) for name in source.archive.md5_of}
    if source.place == folder:
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".anchorloss-", dir=root) as staging:
        staged = Path(staging, folder.name)
        staged.mkdir()
        for name, content in contents.items():
            write_atomically(staged / name, content)
        if folder.is_dir():
            for path in staged.iterdir():
                path.replace(folder / path.name)
        else:
            staged.rename(folder)
    return folder


def fetch(archive: Archive, root: Path) -> Path:
    """Fetch the archive through torchvision, verify it, and put the official folder into `root`.

    Returns:
        The folder.

    Raises:
        UserError: torchvision does not import, or the archive cannot be fetched or is not the official one.
        RunError, OSError: As `install`.
    """
    remedy = f"fetch {archive.url} yourself and name the file: `make data FROM=FILE`, or data.root=FILE"
    try:
        from torchvision.datasets.utils import download_url
    except Exception as error:  # a torchvision that was built for another torch raises many kinds
        raise UserError(f"torchvision, which downloads, does not import here ({error}); {remedy}") from None
    with tempfile.TemporaryDirectory() as staging:
        try:
            download_url(archive.url, staging, archive.file, archive.md5)
        except Exception as error:  # urllib's, the system's and torchvision's own
            raise UserError(f"{archive.url}: the download failed ({error}); {remedy}") from None
        return install(Source(archive, Path(staging)), root)


def _locate(archive: Archive, root: Path) -> Path | None:
    """The official folder or the archive; None if neither is there."""
    try:
        if root.is_file():
            return root
        if (root / archive.folder).is_dir():
            return root / archive.folder
        # A pipe of that name is refused when it is read.
        files = (root / name for name in (*archive.train, *archive.test))
        if any(file.exists() and not file.is_dir() for file in files):
            return root
        return root / archive.file if (root / archive.file).is_file() else None
    except OSError as error:
        raise UserError(f"data.root={root}: cannot be read ({error.strerror}); {REMEDY}") from None


def _unpack(file: Path) -> dict[str, bytes]:
    """The files of a tar archive, compressed by gzip or not, in memory: nothing goes to a path that the archive names."""
    content = read_file(file, _MOST_BYTES) or b""
    try:
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(_MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            # A sparse file may claim any size.
            files = {member.name: tar.extractfile(member) for member in tar if not member.issparse()}
            return {name.removeprefix("./"): file.read() for name, file in files.items() if file is not None}
    except Exception as error:  # tarfile's, gzip's and zlib's, by the kind of damage
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
        raise UserError(f"{file}: damaged or no tar archive ({reason}); {REMEDY}") from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
