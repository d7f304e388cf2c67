"""Put CIFAR-100 (or CIFAR-10) into a folder, from a copy or archive at hand or by download, every file verified."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import UserError, one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=("cifar100", "cifar10"), default="cifar100")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="copy", type=Path, metavar="PATH", help="the official folder or .tar.gz"
    )
    source.add_argument("--download", action="store_true", help="by torchvision, unless it is there already")
    parser.add_argument("--to", type=Path, default=Path("data"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        folder = _get(arguments.dataset, arguments.copy, arguments.to)
        print(f"{folder}: the official files, verified")


def _get(name: str, copy: Path | None, to: Path) -> Path:
    from anchorloss.data import cifar

    archive = {"cifar100": cifar.CIFAR100, "cifar10": cifar.CIFAR10}[name]
    if copy is not None:
        if not copy.exists():
            raise UserError(
                f"--from {copy}: there is no such file or folder; name the official folder or archive"
            )
        return cifar.install(cifar.Source(archive, copy), to)
    try:
        return cifar.install(cifar.Source(archive, to), to)
    except UserError:
        return cifar.download(archive, to)


if __name__ == "__main__":
    main()
