"""Whether training in bf16 changes the accuracy: the same runs in bf16 and in fp32, paired by seed, from records."""

from __future__ import annotations

from pathlib import Path

from anchorloss.analysis.comparison import compare, explanation
from anchorloss.analysis.markdown import markdown_table
from anchorloss.analysis.stats import Summary
from anchorloss.analysis.table import made_from, order, require_one_protocol
from anchorloss.device import processor_kind
from anchorloss.errors import UserError
from anchorloss.runs.store import Record, describe_difference, read_runs

REFERENCE, OTHER = "fp32", "bf16"


def compare_precisions(results_dir: Path, experiment: str, beside: str | None = None) -> str:
    """Compare bf16 with fp32 for each loss that has both.

    Args:
        results_dir: The results folder.
        experiment: The experiment's name.
        beside: A second experiment whose runs count too, so that a table's own runs need not be trained again.

    Returns:
        Markdown: Top-1 means, difference and 95 % interval of each loss.

    Raises:
        UserError: A precision has no finished run, or the runs differ in more than loss, seed and precision.
    """
    named = [experiment, *([beside] if beside else [])]
    runs = [run for name in named for run in read_runs(results_dir, name)]
    records = [run.record for run in runs if run.record is not None]
    finished = [record for record in records if record.status == "finished"]
    of = {name: [record for record in finished if _precision(record) == name] for name in (REFERENCE, OTHER)}
    for name, found in of.items():
        if not found:
            raise UserError(
                f"experiment={experiment}: no finished run in {name}; "
                f"run python train.py experiment={experiment} precision={name}"
            )
        require_one_protocol(found)
    _require_same_but_precision(of[REFERENCE][0], of[OTHER][0])
    first = of[REFERENCE][0]
    losses = {record.loss for record in of[REFERENCE]} & {record.loss for record in of[OTHER]}
    lines = [
        f"# {OTHER} against {REFERENCE}, experiment {' and '.join(named)}, {first.data.label} data",
        "",
        f"{first.model}, {first.epochs} epochs, {first.data.training_images:,} training images. Top-1 in percent on the "
        f"{first.data.evaluation_images:,} {first.evaluated_on} images after the last epoch.",
        "",
    ]
    cells = []
    for loss in sorted(losses, key=order):
        top1 = {
            name: {r.seed: r.top1 for r in found if r.loss == loss and r.top1 is not None}
            for name, found in of.items()
        }
        processors = {
            name: {r.seed: processor_kind(r.provenance.device) for r in found if r.loss == loss}
            for name, found in of.items()
        }
        (result,) = compare(top1, REFERENCE, processors)
        means = [_mean(summary) for summary in (result.reference_summary, result.summary)]
        cells.append([loss, *means, explanation(result, REFERENCE)])
    lines.append(markdown_table(["loss", REFERENCE, OTHER, "comparison"], cells, "lrrl"))
    failed = sum(record.status == "failed" and record.loss in losses for record in records)
    if failed:
        lines += ["", f"{failed} failed runs are not in the means."]
    used = [record for found in of.values() for record in found if record.loss in losses]
    return "\n".join([*lines, "", made_from(used), ""])


def _precision(record: Record) -> str:
    return str(record.identity["precision"])


def _require_same_but_precision(first: Record, second: Record) -> None:
    difference = describe_difference(first.identity, second.identity)
    others = [key for key in difference if key not in ("precision", "seed") and not key.startswith("loss.")]
    if others:
        raise UserError(
            f"{first.run} and {second.run}: differ in {', '.join(others)} too; compare runs of one protocol"
        )


def _mean(summary: Summary) -> str:
    if summary.mean is None:
        return "no run"
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    return f"{summary.mean:.2f}{spread} (n = {summary.n})"
