"""Write a model card for the weights that an experiment's runs kept: results/<experiment>/MODEL_CARD.md.

It has the format of the Hugging Face Hub, with a `model-index` made from the records.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run


def main() -> None:
    arguments = parser(__doc__, experiment="table1_resnet20").parse_args()
    from anchorloss.analysis import model_card
    from anchorloss.runs.files import write_results

    folder, name = arguments.results_dir / arguments.experiment, model_card.FILE
    write_results(folder, {name: model_card.make(arguments.results_dir, arguments.experiment).encode()})
    print(f"written: {folder / name}")


if __name__ == "__main__":
    run(main)
