"""Whether training in bf16 changes the accuracy: the same runs in bf16 and in fp32, paired by seed, from records."""

from __future__ import annotations

from pathlib import Path

from anchorloss.errors import UserError
from anchorloss.report.comparison import compare, explanation
from anchorloss.report.markdown import document, markdown_table, spread
from anchorloss.report.records import by_seed, finished, made_from, order, processors, require_one_protocol
from anchorloss.runs.folder import read_runs

REFERENCE, OTHER = "fp32", "bf16"


def compare_precisions(results_dir: Path, experiment: str, beside: str | None = None) -> str:
    """Compare bf16 with fp32 for each loss that has both.

    The runs of a second experiment `beside` count too, so that a table's own runs need not be trained again.

    Returns:
        Markdown: Top-1 means, difference and 95 % interval of each loss.

    Raises:
        UserError: No loss has finished runs in both precisions, or the runs differ in more than loss, seed and precision.
    """
    named = [experiment, *([beside] if beside else [])]
    runs = [run for name in named for run in read_runs(results_dir, name)]
    done = finished(runs)
    of = {
        name: [record for record in done if record.identity["precision"] == name]
        for name in (REFERENCE, OTHER)
    }
    for name, found in of.items():
        if not found:
            raise UserError(
                f"experiment={experiment}: no finished run in {name}; "
                f"run python train.py experiment={experiment} precision={name}"
            )
    require_one_protocol([*of[REFERENCE], *of[OTHER]], apart_from=("precision",))
    losses = {record.loss for record in of[REFERENCE]} & {record.loss for record in of[OTHER]}
    if not losses:
        raise UserError(
            f"experiment={experiment}: no loss has finished runs in both {REFERENCE} and {OTHER}; name an experiment "
            "that has the others with --beside"
        )
    first = of[REFERENCE][0]
    cells = []
    for loss in sorted(losses, key=order):
        own = {name: [record for record in found if record.loss == loss] for name, found in of.items()}
        top1 = {name: by_seed(found, "top1") for name, found in own.items()}
        trained_on = {name: processors(found) for name, found in own.items()}
        (result,) = compare(top1, REFERENCE, trained_on)
        summaries = (result.reference_summary, result.summary)
        means = [f"{spread(summary, '')} (n = {summary.n})" for summary in summaries]
        cells.append([loss, *means, explanation(result, REFERENCE)])
    failed = sum(run.state == "failed" and run.loss in losses for run in runs)
    used = [record for found in of.values() for record in found if record.loss in losses]
    return document(
        f"# {OTHER} against {REFERENCE}, experiment {' and '.join(named)}, {first.data.label} data",
        f"{first.model}, {first.epochs} epochs, {first.data.training_images:,} training images. Top-1 in percent on the "
        f"{first.data.evaluation_images:,} {first.evaluated_on} images after the last epoch.",
        markdown_table(["loss", REFERENCE, OTHER, "comparison"], cells, "lrrl"),
        f"Failed runs, not in the means: {failed}." if failed else "",
        made_from(used),
    )
