"""CIFAR-100 and CIFAR-10 as their authors published them: found, verified by checksum, and only then unpickled.

torchvision.datasets is not used because torchvision only imports beside the torch that it was built for; see
`torchvision_download`.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anchorloss.config.settings import DATA_SETS
from anchorloss.errors import UserError
from anchorloss.runs.files import write_atomically

REMEDY = "name the official folder or archive with data.root=…, or get it with `make data`"
# The largest official file has 155 MB; an archive that claims more is not unpacked into memory.
_MOST_BYTES = 1 << 28
# Operators that are defined for torchvision last only as long as their library is referenced.
_OPERATORS: list[Any] = []


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        name: As in `data.name`.
        folder: The folder inside the archive.
        file, url: The archive's file name, and where its authors publish it.
        md5: The archive's md5 sum.
        train, test, meta: Names of the training files, the test files and the file with the class names, each with its
            md5 sum.
        label_key: Key of the labels in a training or test file.
        class_key: Key of the class names in the meta file.
    """

    name: str
    folder: str
    file: str
    url: str
    md5: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    label_key: str
    class_key: str

    @property
    def md5_of(self) -> dict[str, str]:
        """The md5 sum of every file that is read."""
        return {**self.train, **self.test, **self.meta}

    @property
    def checksum(self) -> str:
        """The checksum in a run's record: one digest over the md5 sums of the files."""
        text = "\n".join(f"{name} {md5}" for name, md5 in sorted(self.md5_of.items()))
        return f"md5:{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"


ARCHIVES = {
    name: Archive(name, **facts["archive"]) for name, facts in DATA_SETS.items() if "archive" in facts
}
CIFAR100, CIFAR10 = ARCHIVES["cifar100"], ARCHIVES["cifar10"]


class Source:
    """The files of an archive, in a folder or in a tar archive that is read in memory."""

    def __init__(self, archive: Archive, root: Path, names: Iterable[str] | None = None) -> None:
        """Find the files `names`, by default all of the archive's; no other is opened.

        `root` is the official folder or the archive, or a folder that holds one of them.

        Raises:
            UserError: There is neither the official folder nor the archive, or the archive is damaged.
        """
        self.archive = archive
        self.names = tuple(archive.md5_of if names is None else names)
        self._contents: dict[str, bytes] | None = None
        found = locate(archive, root)
        if found is None:
            raise UserError(f"data.root={root}: holds neither {archive.folder}/ nor {archive.file}; {REMEDY}")
        self._place = found
        if found.is_file():
            self._contents = _members(archive, found, self.names)

    def read(self, name: str) -> bytes:
        """Read one of the files and verify its md5 sum.

        Raises:
            UserError: the file is missing or is not the official one; the message names it.
        """
        try:
            content = (self._place / name).read_bytes() if self._contents is None else self._contents[name]
        except (OSError, KeyError):
            raise self._wrong(name, "missing or unreadable") from None
        if _md5(content) != self.archive.md5_of[name]:
            raise self._wrong(name, "is not the official file (md5 sum), damaged perhaps")
        return content

    def images(self, names: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Read the images and labels of these files, one file after another.

        Returns:
            Images uint8 (N, 3, 32, 32) and labels int64 (N,).

        Raises:
            UserError: as `read`, or images or labels of a file have a wrong shape or range.
        """
        images, labels = zip(*map(self._batch, names), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def class_names(self) -> tuple[str, ...]:
        """Read the names of the classes, in the order of the labels.

        Raises:
            UserError: as `images`.
        """
        (meta,) = self.archive.meta
        names = self._unpickle(meta).get(self.archive.class_key)
        if not isinstance(names, list) or len(names) != DATA_SETS[self.archive.name]["classes"]:
            raise self._wrong(meta, f"does not name {DATA_SETS[self.archive.name]['classes']} classes")
        return tuple(str(name) for name in names)

    def _batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        batch, classes = self._unpickle(name), DATA_SETS[self.archive.name]["classes"]
        images, labels = batch.get("data"), batch.get(self.archive.label_key)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3072,):
            raise self._wrong(name, "holds no 32x32 images")
        if not isinstance(labels, list) or len(labels) != len(images):
            raise self._wrong(name, "does not hold a label for each image")
        if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
            raise self._wrong(name, f"has labels outside 0 to {classes - 1}")
        return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)

    def _unpickle(self, name: str) -> dict[str, object]:
        content = self.read(name)
        try:
            loaded = pickle.loads(content, encoding="latin1")
        except Exception as error:  # whatever the pickle makes its parts raise
            raise self._wrong(name, f"is no pickle ({type(error).__name__})") from None
        if not isinstance(loaded, dict):
            raise self._wrong(name, "holds no CIFAR batch")
        return loaded

    def _wrong(self, name: str, what: str) -> UserError:
        place = f"{self._place}{'/' if self._contents is None else ':'}{name}"
        return UserError(f"{place}: {what}; {REMEDY}")


def locate(archive: Archive, root: Path) -> Path | None:
    """Find the official folder or the archive without reading it; None if there is neither.

    Raises:
        UserError: `root` cannot be read.
    """
    try:
        if root.is_file():
            return root
        if (root / archive.folder).is_dir():
            return root / archive.folder
        if any((root / name).is_file() for name in (*archive.train, *archive.test)):
            return root
        return root / archive.file if (root / archive.file).is_file() else None
    except OSError as error:
        raise UserError(f"data.root={root}: cannot be read ({error.strerror}); {REMEDY}") from None


def install(source: Source, root: Path) -> Path:
    """Put the official folder with the files of `source` into `root`; every file is verified before any is written.

    A folder that is not there yet appears whole. In one that is there, only files that are not the official ones are
    replaced, and nothing else is touched.

    Returns:
        The folder.

    Raises:
        UserError: a file of `source` is missing or damaged, or `root` cannot hold a folder. Nothing is left behind.
        RunError: the files cannot be written, on a full disk for example. Nothing is left behind.
    """
    folder = root / source.archive.folder
    contents = {name: source.read(name) for name in source.names}
    with _staging(root) as staging:
        staged = staging / folder.name
        staged.mkdir()
        for name, content in contents.items():
            if not _is_official(folder / name, source.archive.md5_of[name]):
                write_atomically(staged / name, content)
        try:
            root.mkdir(parents=True, exist_ok=True)
            _move(staged, folder)
        except OSError as error:
            raise _no_folder(folder, error) from None
    return folder


def download(archive: Archive, root: Path) -> Path:
    """Fetch the archive through torchvision, verify it, and put the official folder into `root`.

    Returns:
        The folder.

    Raises:
        UserError: torchvision does not import, or the archive cannot be fetched or is not the official one; otherwise as
            `install`. Nothing is left behind.
    """
    remedy = f"fetch {archive.url} yourself and name the file: data.root=FILE, or `make data FROM=FILE`"
    try:
        download_url = torchvision_download()
    except Exception as error:  # a torchvision built for another torch raises many kinds
        raise UserError(
            f"data.root={root}: torchvision, which downloads, fails ({error}); {remedy}"
        ) from None
    with _staging(root) as staging:
        try:
            download_url(archive.url, str(staging), archive.file, archive.md5)
        except Exception as error:  # urllib's, the system's and torchvision's own
            raise UserError(f"data.root={root}: the download failed ({error}); {remedy}") from None
        return install(Source(archive, staging), root)


def torchvision_download() -> Callable[..., None]:
    """Import torchvision's `download_url`.

    Beside a torch without CUDA, torchvision imports only once two operators are defined.
    """
    try:
        from torchvision.datasets.utils import download_url
    except RuntimeError:
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        _OPERATORS.append(library)
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.datasets.utils import download_url
    found: Callable[..., None] = download_url
    return found


def _move(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError:
        # It is there already, or another process has just put it there.
        if not folder.is_dir():
            raise
        for path in staged.iterdir():
            path.replace(folder / path.name)


def _no_folder(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written to ({error.strerror}); name another folder")


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder on the disk of `root`, gone at the end; `root` itself need not be there."""
    beside = next(parent for parent in (root, *root.absolute().parents) if parent.is_dir())
    try:
        staging = tempfile.TemporaryDirectory(prefix=".anchorloss-", dir=beside)
    except OSError as error:
        raise _no_folder(root, error) from None
    with staging as path:
        yield Path(path)


def _members(archive: Archive, file: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """These files of a tar archive, in memory: nothing is extracted to a path that the archive chooses."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                wanted = folder == archive.folder and name in names and member.size < _MOST_BYTES
                if wanted and member.isfile() and (extracted := tar.extractfile(member)) is not None:
                    contents[name] = extracted.read()
    except Exception as error:  # tarfile's, gzip's, zlib's and the system's, by the kind of damage
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
        raise UserError(f"{file}: damaged or no tar archive ({reason}); {REMEDY}") from None
    return contents


def _is_official(path: Path, md5: str) -> bool:
    with contextlib.suppress(OSError):
        return _md5(path.read_bytes()) == md5
    return False


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
