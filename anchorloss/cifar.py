"""CIFAR-100 and CIFAR-10 as their authors published them: found, verified by checksum, and only then unpickled."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anchorloss.errors import UserError

REMEDY = "name the official folder or archive with data.root=…, or get it with `make data`"


@dataclass(frozen=True)
class Archive:
    """The facts of one published archive; the md5 sums are the ones that torchvision checks."""

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
    classes: int

    @property
    def md5_of(self) -> dict[str, str]:
        """The md5 sum of every file that is read."""
        return {**self.train, **self.test, **self.meta}

    @property
    def checksum(self) -> str:
        """What a record says of the data: one digest over the md5 sums of its files."""
        text = "\n".join(f"{name} {md5}" for name, md5 in sorted(self.md5_of.items()))
        return f"md5:{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"


CIFAR100 = Archive(
    name="cifar100",
    folder="cifar-100-python",
    file="cifar-100-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    label_key="fine_labels",
    class_key="fine_label_names",
    classes=100,
)
CIFAR10 = Archive(
    name="cifar10",
    folder="cifar-10-batches-py",
    file="cifar-10-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    label_key="labels",
    class_key="label_names",
    classes=10,
)


class Source:
    """Where the files of an archive are: a folder, or a tar archive that is read in memory."""

    def __init__(self, archive: Archive, root: Path) -> None:
        """Raises: UserError if there is neither the official folder nor the archive at `root`."""
        self.archive = archive
        folders = [
            folder
            for folder in (root / archive.folder, root)
            if (folder / next(iter(archive.train))).is_file()
        ]
        archives = [file for file in (root / archive.file, root) if file.is_file()]
        if folders:
            self._files = {name: folders[0] / name for name in archive.md5_of}
            self._contents: dict[str, bytes] = {}
        elif archives:
            self._files = {}
            self._contents = _members(archive, archives[0])
            self._place = archives[0]
        else:
            raise UserError(f"data.root={root}: holds neither {archive.folder}/ nor {archive.file}; {REMEDY}")

    def read(self, name: str) -> dict[str, object]:
        """One of the files, unpickled once its md5 sum is found right.

        Raises: UserError naming the file if it is missing, is not the official one, or cannot be read.
        """
        place = self._files.get(name) or f"{self._place}:{name}"
        try:
            content = self._files[name].read_bytes() if self._files else self._contents[name]
        except (OSError, KeyError):
            raise UserError(f"{place}: missing or unreadable; {REMEDY}") from None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != self.archive.md5_of[name]:
            raise UserError(f"{place}: is not the official file (md5 sum), damaged perhaps; {REMEDY}")
        loaded = pickle.load(io.BytesIO(content), encoding="latin1")
        if not isinstance(loaded, dict):
            raise UserError(f"{place}: holds no CIFAR batch; {REMEDY}")
        return loaded

    def images(self, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
        """The images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of these files, one after another.

        Raises: UserError naming the file whose images or labels have a wrong shape or range.
        """
        parts = [self._batch(name) for name in names]
        return np.concatenate([images for images, _ in parts]), np.concatenate(
            [labels for _, labels in parts]
        )

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels. Raises: UserError as `read` does."""
        (meta,) = self.archive.meta
        names = self.read(meta).get(self.archive.class_key)
        if not isinstance(names, list) or len(names) != self.archive.classes:
            raise UserError(f"data.root: {meta} names no {self.archive.classes} classes; {REMEDY}")
        return tuple(str(name) for name in names)

    def _batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        batch = self.read(name)
        images, labels = np.asarray(batch.get("data")), np.asarray(batch.get(self.archive.label_key))
        if (
            images.dtype != np.uint8
            or images.ndim != 2
            or images.shape[1] != 3072
            or labels.shape != images.shape[:1]
        ):
            raise UserError(f"data.root: {name} holds no 32x32 images with a label each; {REMEDY}")
        if labels.dtype.kind != "i" or labels.min() < 0 or labels.max() >= self.archive.classes:
            raise UserError(f"data.root: {name} has labels outside 0 to {self.archive.classes - 1}; {REMEDY}")
        return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def download(archive: Archive, root: Path) -> None:
    """Fetch the archive into `root` through torchvision, which verifies its md5 sum.

    Raises: UserError if torchvision does not import, or the archive cannot be fetched.
    """
    try:
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:
        raise UserError(f"data.download=true: torchvision does not import ({error}); {REMEDY}") from None
    try:
        root.mkdir(parents=True, exist_ok=True)
        download_url(archive.url, str(root), archive.file, archive.md5)
    except Exception as error:  # urllib's, the system's and torchvision's own
        raise UserError(f"data.download=true: {archive.url} cannot be fetched ({error}); {REMEDY}") from None


def _members(archive: Archive, file: Path) -> dict[str, bytes]:
    """The files of a tar archive that are read, in memory: nothing is extracted to a path the archive chooses."""
    contents = {}
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if folder == archive.folder and name in archive.md5_of and member.isfile():
                    extracted = tar.extractfile(member)
                    contents[name] = extracted.read() if extracted else b""
    except Exception as error:  # tarfile's, gzip's, zlib's and the system's, by the kind of damage
        raise UserError(
            f"{file}: damaged or no tar archive ({type(error).__name__}: {error}); {REMEDY}"
        ) from None
    return contents
