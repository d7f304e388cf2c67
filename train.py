"""Entry point: compose the config, train its runs.

python train.py loss=anchor_bg                              one run
python train.py loss=anchor_bg seeds=[0,1,2]                three runs
python train.py -m loss=bce,anchor_target,anchor_bg         a sweep, in one process
python train.py experiment=table1                           everything of an experiment

The same command again skips finished runs and continues unfinished ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# The package that stands here, whichever is installed; Python's safe path has no place for it.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from anchorloss.errors import one_line_errors

if TYPE_CHECKING:
    from omegaconf import DictConfig

FLAGS = {"--retry-failed": "retry_failed=true", "--dry-run": "dry_run=true"}
SHOWING = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}


def main() -> None:
    """Train what the command line asks for."""
    # Hydra then raises what it would otherwise print over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra

    from anchorloss.config.hydra_errors import check_config_files, check_overrides, config_errors
    from anchorloss.sweep.plan import register_schema

    sys.argv[1:] = command_line(sys.argv[1:])
    check_overrides(sys.argv[1:])
    check_config_files()
    register_schema()
    with config_errors():
        hydra.main(version_base="1.3", config_path="configs", config_name="config")(train)()


def train(config: DictConfig) -> None:
    """Train the runs of one composed config; Hydra calls it."""
    from hydra.core.hydra_config import HydraConfig

    from anchorloss.config.hydra_errors import config_errors
    from anchorloss.errors import UserError
    from anchorloss.sweep.executor import train_all

    # An error that reached Hydra would get a second line from it.
    with one_line_errors(), config_errors():
        launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
        if launcher != "here":
            raise UserError(f"hydra/launcher={launcher}: is for sweeps; add -m")
        train_all([config])


def command_line(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them: `-m` first, and the flags of this project as overrides.

    What only shows something is no sweep, and Hydra refuses `-m` beside it.
    """
    if "--hydra-help" in arguments:
        return ["--hydra-help"]  # about Hydra alone: it would not know the keys of our overrides
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    others = [argument for argument in arguments if argument not in multirun]
    if any(argument in SHOWING or argument.startswith(("--cfg=", "--info=")) for argument in others):
        multirun = []
    return [*multirun[:1], *(FLAGS.get(argument, argument) for argument in others)]


if __name__ == "__main__":
    with one_line_errors():
        main()
