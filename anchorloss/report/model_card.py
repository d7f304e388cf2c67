"""A model card for the weights of an experiment, in the format of the Hugging Face Hub, from its records."""

from __future__ import annotations

from pathlib import Path

import jinja2
import yaml

from anchorloss.errors import UserError
from anchorloss.report.markdown import escape, markdown_table
from anchorloss.report.protocol import planned
from anchorloss.report.published import PAPER_LOSSES, read_published
from anchorloss.report.records import made_from, order
from anchorloss.report.table import Table, build_table
from anchorloss.runs.files import write_results
from anchorloss.runs.folder import WEIGHTS, Record, read_runs, verify_files

FILE = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def make_card(results_dir: Path, experiment: str) -> Path:
    """Write `results/<experiment>/MODEL_CARD.md` for the runs that kept their weights, and return its path.

    Raises:
        UserError: if no run kept its weights, or a file is not the recorded one.
    """
    runs = read_runs(results_dir, experiment)
    kept = {run.folder: run.record for run in runs if run.record is not None and WEIGHTS in run.record.files}
    if not kept:
        raise UserError(
            f"experiment={experiment}: none of its {len(runs)} runs kept its weights, so there is no model card; "
            f"train with python train.py experiment={experiment} keep_weights=true"
        )
    for folder, record in kept.items():
        verify_files(folder, record)
    records = sorted(kept.values(), key=lambda record: (order(record.loss), record.seed))
    text = to_markdown(records, build_table(runs, experiment, planned(experiment)))
    write_results(results_dir / experiment, {FILE: text.encode()})
    return results_dir / experiment / FILE


def to_markdown(records: list[Record], table: Table) -> str:
    """The card of these records, which all kept their weights; `table` is that of the whole experiment."""
    from anchorloss.data.dataset import MEAN_STD  # imports torch

    labels = {loss: row.label for loss, row in read_published().items()}
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
    first, model = records[0], records[0].identity["model"]
    environment = jinja2.Environment(keep_trailing_newline=True, trim_blocks=True)
    environment.filters["yaml"] = _scalar
    environment.filters["python"] = repr
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        records=records,
        first=first,
        of_paper=all(record.loss in PAPER_LOSSES for record in records),
        function=model.get("function"),
        arguments=model.get("arguments", {}),
        classes=len(first.data.class_names or ()) or (10 if first.data.name == "cifar10" else 100),
        table=table,
        provenance=made_from(records),
        pixels=MEAN_STD.get(first.data.name),
        weights=markdown_table(["loss", "seed", "Top-1 %", "Top-5 %", "file", "SHA-256"], rows, "lrrrll"),
        escape=escape,
        WEIGHTS=WEIGHTS,
    )


def _scalar(value: str | float) -> str:
    """A value as YAML has it within a line."""
    return yaml.safe_dump(value, allow_unicode=True, width=float("inf")).removesuffix("...\n").rstrip()
