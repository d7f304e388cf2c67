"""A model card for the weights of an experiment, in the format of the Hugging Face Hub, from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml

from anchorloss.analysis.markdown import escape, markdown_table
from anchorloss.analysis.protocol import planned
from anchorloss.analysis.published import read_published
from anchorloss.analysis.records import order
from anchorloss.analysis.table import Table, build_table
from anchorloss.errors import UserError
from anchorloss.runs.atomic import write_results
from anchorloss.runs.store import WEIGHTS, Record, read_runs, verify_files

FILE = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def make_card(results_dir: Path, experiment: str) -> Path:
    """Write `results/<experiment>/MODEL_CARD.md` for the runs that kept their weights.

    Returns:
        The file.

    Raises:
        UserError: if no run kept its weights, or a file is not the recorded one.
    """
    runs = read_runs(results_dir, experiment)
    kept = [run for run in runs if run.record is not None and WEIGHTS in run.record.files]
    if not kept:
        raise UserError(
            f"experiment={experiment}: none of its {len(runs)} runs kept its weights, so there is no model card; "
            f"train with python train.py experiment={experiment} keep_weights=true"
        )
    records = []
    for run in kept:
        assert run.record is not None
        verify_files(run.folder, run.record)
        records.append(run.record)
    records.sort(key=lambda record: (order(record.loss), record.seed))
    text = to_markdown(records, build_table(runs, experiment, planned(experiment)))
    write_results(results_dir / experiment, {FILE: text.encode()})
    return results_dir / experiment / FILE


def to_markdown(records: list[Record], table: Table) -> str:
    """The card of these records, which all kept their weights; `table` is that of the whole experiment."""
    first = records[0]
    labels = {loss: row.label for loss, row in read_published().items()}
    front = yaml.safe_dump(_metadata(records), sort_keys=False, allow_unicode=True, width=120)
    rows = [
        [
            escape(labels.get(record.loss, record.loss)),
            str(record.seed),
            f"{record.top1:.2f}",
            f"{record.top5:.2f}",
            f"`{record.run}/{WEIGHTS}`",
            f"`{record.files[WEIGHTS].removeprefix('sha256:')[:16]}…`",
        ]
        for record in records
    ]
    model = first.identity["model"]
    shortcut = f', shortcut="{model["shortcut"]}"' if "shortcut" in model else ""
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), keep_trailing_newline=True)
    return template.render(
        front=front,
        first=first,
        table=table,
        weights=markdown_table(["loss", "seed", "Top-1 %", "Top-5 %", "file", "SHA-256"], rows, "lrrrll"),
        shortcut=shortcut,
        escape=escape,
        WEIGHTS=WEIGHTS,
    )


def _metadata(records: list[Record]) -> dict[str, Any]:
    first = records[0]
    return {
        "license": "mit",
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["anchor-loss", "safetensors", first.model],
        "datasets": [first.data.name],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": record.run,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image Classification"},
                        "dataset": {
                            "name": record.data.label,
                            "type": record.data.name,
                            "split": record.evaluated_on,
                        },
                        "metrics": [
                            {"type": "accuracy", "name": "Top-1 accuracy", "value": record.top1},
                            {"type": "accuracy", "name": "Top-5 accuracy", "value": record.top5},
                        ],
                    }
                ],
            }
            for record in records
        ],
    }
