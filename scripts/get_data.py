"""Put CIFAR-100 (or CIFAR-10) into a folder, from a copy or archive at hand or by download, every file verified."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run

from anchorloss.errors import UserError


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--dataset", choices=("cifar100", "cifar10"), default="cifar100")
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="copy", metavar="PATH", help="the official folder or .tar.gz")
    source.add_argument("--download", action="store_true", help="by torchvision, unless it is there already")
    options.add_argument("--to", type=folder, default=Path("data"), help="default: %(default)s")
    arguments = options.parse_args()
    print(f"{_get(arguments.dataset, arguments.copy, arguments.to)}: the official files, verified")


def _get(name: str, copy: str | None, to: Path) -> Path:
    from anchorloss.data import cifar

    archive = cifar.ARCHIVES[name]
    if copy is not None:
        if not copy.strip() or not Path(copy).exists():
            raise UserError(
                f"--from '{copy}': no such file or folder; name the official folder or archive, as in "
                f"`make data FROM={archive.file}`; `make data` without FROM downloads it"
            )
        return cifar.install(cifar.Source(archive, Path(copy)), to)
    try:
        return cifar.install(cifar.Source(archive, to), to)
    except UserError:
        return cifar.fetch(archive, to)


if __name__ == "__main__":
    run(main)
