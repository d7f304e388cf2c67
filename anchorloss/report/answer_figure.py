"""The figure beside the README's answer: each loss minus BCE with its interval, and the published difference."""

from __future__ import annotations

from anchorloss.report.answer import Answer
from anchorloss.report.palette import VARIABLES, styles
from anchorloss.report.published import PAPER_LOSSES, read_published
from anchorloss.report.rendering import environment
from anchorloss.report.text import signed

WIDTH, LEFT, RIGHT = 720, 150, 680
ROW, HEADING, LEGEND = 26, 34, 30


def draw(answers: list[Answer], *, dark: bool) -> bytes:
    """The figure as an SVG file, in colours for a light or a dark page; equal answers give equal bytes."""
    published = read_published()
    claimed = {loss: published[loss].top1_mean - published["bce"].top1_mean for loss in PAPER_LOSSES}
    groups, bottom = [], LEGEND
    for answer in answers:
        first = bottom + HEADING + ROW / 2
        rows = [
            (loss, found.difference, first + ROW * place)
            for place, (loss, found) in enumerate(answer.comparisons.items())
        ]
        groups.append((answer, bottom, rows))
        bottom += HEADING + ROW * len(rows)
    svg = (
        environment()
        .get_template("answer.svg")
        .render(
            groups=groups,
            bottom=bottom,
            legend=LEGEND,
            width=WIDTH,
            left=LEFT,
            right=RIGHT,
            scale=_Scale(answers, list(claimed.values())),
            claimed=claimed,
            published=published,
            styles=styles(PAPER_LOSSES),
            colours={name: values[2 if dark else 1] for name, values in VARIABLES.items()},
            description=describe(answers),
        )
    )
    return f"{svg}\n".encode()


def describe(answers: list[Answer]) -> str:
    """What the figure shows, for readers who cannot see it."""
    published = read_published()
    parts = []
    for answer in answers:
        shown = []
        for loss, found in answer.comparisons.items():
            label, difference = published[loss].label, found.difference
            if difference is None:
                shown.append(f"{label} not run")
            elif difference.interval is None:
                shown.append(f"{label} {signed(difference.estimate)} from one seed")
            else:
                low, high = signed(difference.interval.low), signed(difference.interval.high)
                shown.append(f"{label} {signed(difference.estimate)} ({low} to {high})")
        parts.append(f"{answer.size}{f', {answer.interim}' if answer.interim else ''}: {', '.join(shown)}")
    return f"Top-1 minus BCE in points, with 95 % intervals. {'. '.join(parts)}."


class _Scale:
    """From points of Top-1 to a place in the figure."""

    def __init__(self, answers: list[Answer], claimed: list[float]) -> None:
        values = [0.0, *claimed]
        for found in (found.difference for answer in answers for found in answer.comparisons.values()):
            if found is not None:
                values.append(found.estimate)
                values += [found.interval.low, found.interval.high] if found.interval is not None else []
        step = next((step for step in (0.25, 0.5, 1.0, 2.0) if (max(values) - min(values)) / step <= 9), 5.0)
        self.low = step * (min(values) // step)
        self.high = -step * (-max(values) // step)
        self.ticks = [self.low + step * place for place in range(round((self.high - self.low) / step) + 1)]

    def __call__(self, points: float) -> float:
        return LEFT + (points - self.low) / (self.high - self.low) * (RIGHT - LEFT)
