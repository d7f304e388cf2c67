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
from anchorloss.errors import UserError, one_line_errors

if TYPE_CHECKING:
    from omegaconf import DictConfig

HERE = Path(__file__).resolve().parent
OURS = {"--retry-failed": "retry_failed=true", "--dry-run": "dry_run=true"}
# Hydra's options: those that name a folder of configs, are followed by another value, only show something, the rest.
FOLDERS = ("--config-dir", "-cd", "--config-path", "-cp")
WITH_VALUE = (*FOLDERS, "--config-name", "-cn", "--package", "-p", "--cfg", "-c", "--info", "-i")
SHOWING = ("--help", "-h", "--version", "--cfg", "-c", "--info", "-i")
OTHERS = ("--multirun", "-m", "--run", "-r", "--resolve", "--shell-completion", "-sc")


def main() -> None:
    """Train what the command line asks for."""
    # Hydra then raises what it would otherwise print over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from anchorloss.config.hydra_errors import check_overrides, config_errors
    from anchorloss.config.yaml_files import check_config_files

    composed: list[tuple[DictConfig, str]] = []

    def keep(config: DictConfig) -> None:
        """An error that is raised in what Hydra calls would get a second line from it."""
        composed.append((config, HydraConfig.get().runtime.choices["hydra/launcher"]))

    sys.argv[1:], folders = command_line(sys.argv[1:])
    check_overrides(sys.argv[1:])
    check_config_files(folders)
    with config_errors(folders):
        hydra.main(version_base="1.3", config_path="configs", config_name="config")(keep)()
        for config, launcher in composed:
            from anchorloss.sweep.executor import train_all

            if launcher != "here":
                raise UserError(f"hydra/launcher={launcher}: is for sweeps; add -m")
            train_all([config])


def command_line(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """The arguments as Hydra takes them, overrides first, and the folders of configs that they name.

    What only shows something is no sweep, and Hydra refuses `-m` beside it.
    """
    if "--hydra-help" in arguments:
        return ["--hydra-help"], []  # about Hydra alone: it would not know the keys of our overrides
    overrides: list[str] = []
    options: list[str] = []
    folders = [HERE / "configs"]
    for before, argument, after in zip(["", *arguments], arguments, [*arguments[1:], "..."], strict=False):
        name, equals, value = argument.partition("=")
        is_option = name.startswith("-") and before not in WITH_VALUE
        if is_option and name not in (*OURS, *WITH_VALUE, *SHOWING, *OTHERS):
            raise UserError(f"{argument}: there is no such option; write {name.lstrip('-')}={value or after}")
        if before in FOLDERS or (name in FOLDERS and equals):
            folders += [base / (argument if before in FOLDERS else value) for base in (HERE, Path())]
        is_ours = argument in OURS or not (is_option or before in WITH_VALUE)
        (overrides if is_ours else options).append(OURS.get(argument, argument))
    if any(option.partition("=")[0] in SHOWING for option in options):
        options = [option for option in options if option not in ("-m", "--multirun")]
    return [*overrides, *options], folders


if __name__ == "__main__":
    with one_line_errors():
        main()
