"""The answer that opens the README: does one of the paper's losses beat BCE, at which size, and how surely?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anchorloss.report.comparison import CONTRADICTED, SUPPORTED, Comparison, compare
from anchorloss.report.protocol import FULL, interim, planned
from anchorloss.report.published import PAPER_LOSSES, read_published
from anchorloss.report.records import by_seed, finished, processors, require_one_protocol
from anchorloss.report.stats import Difference
from anchorloss.report.text import listed, signed
from anchorloss.runs.folder import read_runs

# From the full protocol down; the first with two or more shared seeds for every loss leads.
EXPERIMENTS = (FULL, "table1_resnet20", "table1_small")


@dataclass(frozen=True)
class Answer:
    """The paper's losses against BCE in one experiment, Top-1 in points.

    Attributes:
        size: network and epochs, in words.
        interim: "interim, 3 of 10 seeds complete", or None if every planned seed is there.
        comparisons: by loss, one family.
    """

    experiment: str
    size: str
    interim: str | None
    comparisons: dict[str, Comparison]

    @property
    def seeds(self) -> str:
        """How many seeds the losses were compared with: "5", or "2 to 3" where they differ."""
        counts = sorted({found.summary.n for found in self.comparisons.values()})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    @property
    def decides(self) -> bool:
        """Whether every loss has an interval."""
        return all(
            found.difference is not None and found.difference.interval is not None
            for found in self.comparisons.values()
        )


def read_answers(results_dir: Path) -> list[Answer]:
    """An answer for each of `EXPERIMENTS` that has a finished run, largest first."""
    found = []
    for experiment in EXPERIMENTS:
        runs = read_runs(results_dir, experiment)
        records = [record for record in finished(runs) if record.loss in PAPER_LOSSES]
        if not records:
            continue
        require_one_protocol(records)
        own = {loss: [record for record in records if record.loss == loss] for loss in PAPER_LOSSES}
        values = {loss: by_seed(of_loss, "top1") for loss, of_loss in own.items()}
        trained_on = {loss: processors(of_loss) for loss, of_loss in own.items()}
        size = f"{records[0].model.replace('resnet', 'ResNet-')}, {records[0].epochs} epochs"
        comparisons = {one.loss: one for one in compare(values, processors=trained_on)}
        found.append(Answer(experiment, size, interim(runs, planned(experiment)), comparisons))
    return found


def to_markdown(answers: list[Answer]) -> str:
    """The answer in a sentence, and how far the larger sizes have come."""
    leading = next((answer for answer in answers if answer.decides), None)
    if leading is None:
        unknown = "Not known yet: no experiment has two seeds of every loss."
        return f"**Does anchor loss beat BCE on CIFAR-100?** {unknown} {_status(answers, None)}"
    labels = {loss: row.label for loss, row in read_published().items()}
    better, worse = (
        [labels[loss].split()[0] for loss, found in leading.comparisons.items() if found.verdict == verdict]
        for verdict in (SUPPORTED, CONTRADICTED)
    )
    if better:
        verdict = f"Yes, {listed(better)}"
    elif len(worse) == len(leading.comparisons):
        verdict, worse = "Not" if leading.interim else "No", []
    else:
        verdict = "Not resolved"
    verdict += " so far" if leading.interim else ""
    verdict += f"; {listed(worse)} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    intervals = ", ".join(
        _interval(labels[loss], found.difference, place == 0)
        for place, (loss, found) in enumerate(leading.comparisons.items())
    )
    return (
        f"**Does anchor loss beat BCE on CIFAR-100? {verdict}.** With {leading.size} and {leading.seeds} seeds "
        f"({leading.interim or 'final'}), the difference in Top-1 from BCE is {intervals}. {_status(answers, leading)}"
    )


def _interval(label: str, difference: Difference | None, first: bool) -> str:
    assert difference is not None
    assert difference.interval is not None
    low, high = signed(difference.interval.low), signed(difference.interval.high)
    unit, named = (" points", "95 % interval ") if first else ("", "")
    return f"{signed(difference.estimate)}{unit} for {label} ({named}{low} to {high})"


def _status(answers: list[Answer], leading: Answer | None) -> str:
    sentences = [
        f"{answer.size}: {answer.interim or 'complete'}."
        for answer in answers
        if answer is not leading and (leading is None or answers.index(answer) < answers.index(leading))
    ]
    if all(answer.experiment != FULL for answer in answers):
        sentences.append("The full protocol (ResNet-110, 200 epochs) has not been run.")
    return " ".join(sentences)
