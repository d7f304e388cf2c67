"""A small archive in the official format, with md5 sums of its own, so that tests need no images of CIFAR's."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anchorloss.data.cifar import ARCHIVES, Archive

TRAIN, TEST, CLASSES = 600, 200, 100
CIFAR100 = ARCHIVES["cifar100"]


def batch(images: int, seed: int) -> dict[str, Any]:
    """What an official file holds: pixels uint8 (N, 3072), a list of labels; every class equally often."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(images) % CLASSES).tolist()
    data = generator.integers(0, 256, (images, 3072), dtype=np.uint8)
    return {"data": data, "fine_labels": labels, "coarse_labels": [0] * images}


def write(root: Path, **changed: Any) -> Archive:
    """Put `root/cifar-100-python/{train,test,meta}` in place; the archive's facts, with the md5 sums of these files.

    `changed` are contents (to be pickled, or bytes) in place of the usual ones; None leaves a file out.
    """
    contents = {
        "train": batch(TRAIN, 0),
        "test": batch(TEST, 1),
        "meta": {"fine_label_names": [f"thing {label}" for label in range(CLASSES)]},
        **changed,
    }
    folder = root / CIFAR100.folder
    folder.mkdir(parents=True)
    md5 = {}
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
        md5[name] = hashlib.md5(data).hexdigest()
        if content is not None:
            (folder / name).write_bytes(data)
    return replace(
        CIFAR100,
        **{part: {name: md5[name]} for part, name in zip(("train", "test", "meta"), md5, strict=True)},
    )


def pack(root: Path, to: Path) -> Path:
    """The folder under `root` as a .tar.gz at `to`, with a stray file as in the official one."""
    with tarfile.open(to, "w:gz") as tar:
        (root / CIFAR100.folder / "file.txt~").write_text("stray")
        tar.add(root / CIFAR100.folder, CIFAR100.folder)
        (root / CIFAR100.folder / "file.txt~").unlink()
    return to
