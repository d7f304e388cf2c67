"""An ablation: one loss with other arguments (gamma, slack, anchors not detached), compared with the one in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anchorloss.errors import UserError
from anchorloss.report.comparison import compare, explanation
from anchorloss.report.markdown import document, markdown_table, spread
from anchorloss.report.palette import BLUE, INK
from anchorloss.report.plotting import picture, to_bytes
from anchorloss.report.records import by_seed, finished, made_from, processors
from anchorloss.report.stats import mean_interval, summarise
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.folder import Record, read_runs


@dataclass(frozen=True)
class Ablation:
    """The arms of an ablation: one loss with other arguments.

    Attributes:
        experiments: The ablation and the experiment of the table.
        stamp: What the figure's headline says.
        arms: Arm -> seed -> Top-1 in percent; the first is the loss with the table's arguments.
        processors: As for `compare`.
        table_arguments: The table's gamma and slack, as text.
    """

    loss: str
    experiments: tuple[str, str]
    protocol: str
    stamp: str
    arms: Mapping[str, Mapping[int, float]]
    processors: Mapping[str, Mapping[int, str]]
    table_arguments: str
    provenance: str


BASE = "as in the table"


def read_ablation(results_dir: Path, experiment: str, beside: str) -> Ablation:
    """Read the finished runs of an ablation, all of one loss, and those of `beside` at the table's arguments.

    Raises:
        UserError: One of the two has no finished run, or runs differ in more than the loss's arguments and the seed.
    """
    ours, table = (finished(read_runs(results_dir, name)) for name in (experiment, beside))
    if not ours:
        raise UserError(
            f"experiment={experiment}: no finished run; run python train.py experiment={experiment}"
        )
    first = ours[0]
    base = [record for record in table if record.loss == first.loss]
    if not base:
        raise UserError(f"experiment={beside}: no finished run of {first.loss} to compare with; run it first")
    for record in [*ours, *base]:
        difference = describe_difference(base[0].identity, record.identity)
        others = [key for key in difference if key != "seed" and not key.startswith("loss.")]
        if others or record.loss != first.loss or record.data != base[0].data:
            named = ", ".join(others) or "loss or data"
            raise UserError(
                f"{record.run}: differs from {base[0].run} in {named}; move it to an experiment of its own"
            )
    # Every arm is seen at the same seeds.
    seeds = {record.seed for record in ours}
    arms = {BASE: [record for record in base if record.seed in seeds]}
    for record in sorted(ours, key=lambda record: (_arm(base[0], record), record.seed)):
        arms.setdefault(_arm(base[0], record), []).append(record)
    data = first.data
    size = f"{data.label}, {first.model}, {first.epochs} epochs"
    return Ablation(
        first.loss,
        (experiment, beside),
        f"{size}, {data.training_images:,} training images; Top-1 in percent on the {data.evaluation_images:,} "
        f"{first.evaluated_on} images after the last epoch.",
        f"{size}: not the paper's protocol",
        {arm: by_seed(records, "top1") for arm, records in arms.items()},
        {arm: processors(records) for arm, records in arms.items()},
        ", ".join(f"{key} {base[0].identity['loss'].get(key)}" for key in ("gamma", "slack")),
        made_from(record for records in arms.values() for record in records),
    )


def to_markdown(ablation: Ablation) -> str:
    """Return a table with a row for each arm: n, mean ± std, and the comparison with the first row."""
    found = {result.loss: result for result in compare(ablation.arms, BASE, ablation.processors)}
    cells = []
    for arm, values in ablation.arms.items():
        summary = summarise(values)
        against = explanation(found[arm], ablation.loss) if arm in found else ""
        cells.append([arm, str(summary.n), spread(summary, "") or "not run", against])
    return document(
        f"# {ablation.loss} with other arguments: experiments {' and '.join(ablation.experiments)}",
        f"{ablation.protocol} In the table: {ablation.table_arguments}.",
        markdown_table(["arm", "n", "Top-1", "compared with the first row"], cells, "lrrl"),
        ablation.provenance,
    )


def draw(ablation: Ablation) -> bytes:
    """Draw every seed of every arm, with the mean and its 95 % interval, as SVG: the same bytes every time."""
    with picture(6.5, 1.4 + 0.5 * len(ablation.arms), ablation.stamp) as (figure, axes):
        for row, values in enumerate(ablation.arms.values()):
            axes.plot(list(values.values()), [row - 0.12] * len(values), "o", ms=6, alpha=0.8, color=BLUE)
            mean, interval = summarise(values).mean, mean_interval(values)
            if interval is not None:
                axes.plot([interval.low, interval.high], [row + 0.18] * 2, color=INK, lw=2)
            if mean is not None:
                axes.plot(mean, row + 0.18, "|", color=INK, ms=10, mew=2)
        axes.set_yticks(range(len(ablation.arms)), list(ablation.arms))
        axes.set_ylim(len(ablation.arms) - 0.5, -0.5)
        axes.set_xlabel("Top-1 in percent; a dot a seed, the mean with its 95 % interval below")
        axes.set_title(f"{ablation.loss} (in the table {ablation.table_arguments})", loc="left", fontsize=10)
        return to_bytes(figure)


def _arm(base: Record, record: Record) -> str:
    """Return what differs from the base: `gamma 0.25`, `slack 0.05, gamma 1`."""
    difference = describe_difference(base.identity["loss"], record.identity["loss"])
    return ", ".join(f"{key} {now}" for key, (_, now) in difference.items()) or BASE
