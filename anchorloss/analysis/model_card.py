"""A model card for the weights of an experiment, in the format of the Hugging Face Hub, from its records."""

from __future__ import annotations

from pathlib import Path

import jinja2
import yaml

from anchorloss.analysis import frame, paper, table, text
from anchorloss.config.settings import DATA_SETS
from anchorloss.errors import UserError
from anchorloss.runs.folder import WEIGHTS, read_runs, verify_files

FILE = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def make(results_dir: Path, experiment: str) -> str:
    """Return the card of the runs that kept their weights.

    Raises:
        UserError: No run kept its weights, or a file is not the recorded one.
    """
    folders = read_runs(results_dir, experiment)
    kept = {run.folder: run.record for run in folders if run.record and WEIGHTS in run.record.files}
    if not kept:
        raise UserError(
            f"experiment={experiment}: none of its {len(folders)} runs kept its weights, so there is no model card; "
            f"train with python train.py experiment={experiment} keep_weights=true"
        )
    for folder, record in kept.items():
        verify_files(folder, record)
    runs, plan = frame.runs(experiment, results_dir), paper.planned(experiment)
    frame.require_one_protocol(runs[runs["state"] == "finished"])
    found = runs[runs[f"files.{WEIGHTS}"].notna()]
    rows = [
        [
            text.escape(paper.label(run["loss"])),
            str(run["seed"]),
            *(text.number(run[score]) for score in ("top1", "top5")),
            f"`{name}/{WEIGHTS}`",
            f"`{run[f'files.{WEIGHTS}'].removeprefix('sha256:')[:16]}…`",
        ]
        for name, run in found.to_dict("index").items()
    ]
    first = found.iloc[0]
    known = DATA_SETS.get(first["settings"]["data"]["name"], {})
    names = first.get("dataset.class_names")
    environment = jinja2.Environment(keep_trailing_newline=True, trim_blocks=True)
    environment.filters["yaml"] = _scalar
    environment.filters["python"] = repr
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        experiment=experiment,
        count=len(found),
        first=first,
        model=first["settings"]["model"],
        images={key: int(first[f"dataset.{key}"]) for key in ("training_images", "evaluation_images")},
        means={score: float(found[score].mean()) for score in ("top1", "top5")},
        of_paper=found["loss"].isin(paper.LOSSES).all(),
        classes=len(names) if isinstance(names, list) else known["classes"],
        title=f"Weights of experiment {experiment}{table.title(runs, plan)}",
        provenance=text.made_from(found),
        pixels=(tuple(known["mean"]), tuple(known["std"])) if "mean" in known else None,
        weights=text.markdown_table(
            ["loss", "seed", "Top-1 %", "Top-5 %", "file", "SHA-256"], rows, "lrrrll"
        ),
        escape=text.escape,
        WEIGHTS=WEIGHTS,
    )


def _scalar(value: str | float) -> str:
    """A value as YAML has it within a line."""
    return yaml.safe_dump(value, allow_unicode=True, width=float("inf")).removesuffix("...\n").rstrip()
