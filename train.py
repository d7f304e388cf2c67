"""The door: Hydra in, runs out.

python train.py loss=anchor_bg                              one run
python train.py loss=anchor_bg seeds=[0,1,2]                three runs
python train.py -m loss=bce,anchor_target,anchor_bg         a sweep, in one process
python train.py experiment=table1                           everything of an experiment

Given again, the same command skips what is finished and goes on with what is not.
"""

from __future__ import annotations

import os
import sys

from anchorloss.errors import one_line_errors

with one_line_errors():
    import hydra
    from omegaconf import DictConfig

    from anchorloss.config.hydra_errors import config_errors
    from anchorloss.sweep.plan import register_schema, train_all


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(config: DictConfig) -> None:
    with one_line_errors():
        train_all([config])


def command_line(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them: `-m` in front, wherever it stood, and flags of ours as overrides."""
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    others = [argument for argument in arguments if argument not in multirun]
    return [
        *multirun[:1],
        *("retry_failed=true" if argument == "--retry-failed" else argument for argument in others),
    ]


if __name__ == "__main__":
    # Hydra then raises what it would otherwise print over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = command_line(sys.argv[1:])
    register_schema()
    with one_line_errors(), config_errors():
        main()
