"""The figure beside the README's answer: each loss minus BCE with its interval, and the published difference."""

from __future__ import annotations

import html
from collections.abc import Iterator

from anchorloss.analysis.palette import VARIABLES, styles
from anchorloss.analysis.published import PAPER_LOSSES, read_published
from anchorloss.report.answer import Answer, signed

WIDTH, LEFT, RIGHT = 720, 150, 40
ROW, HEADING, AXIS, LEGEND = 26, 34, 44, 30
_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"


def draw(answers: list[Answer], *, dark: bool) -> bytes:
    """The figure as an SVG file, in colours for a light or a dark page; equal answers give equal bytes."""
    colours = {name: values[2 if dark else 1] for name, values in VARIABLES.items()}
    published = read_published()
    claimed = {loss: published[loss].top1_mean - published["bce"].top1_mean for loss in PAPER_LOSSES}
    scale = _Scale(answers, list(claimed.values()))
    height = LEGEND + sum(HEADING + ROW * len(answer.comparisons) for answer in answers) + AXIS
    body = [*_legend(colours)]
    top = LEGEND
    for answer in answers:
        note = f" ({answer.interim})" if answer.interim else f" ({_seeds(answer)} seeds)"
        body.append(_text(12, top + 23, answer.size + note, colours["ink"], "start", bold=True))
        top += HEADING
        for loss, found in answer.comparisons.items():
            middle = top + ROW / 2
            style = styles((loss,))[loss]
            colour = colours[style.variable]
            body.append(_text(LEFT - 12, middle + 4, published[loss].label, colours["ink"], "end"))
            at = scale(claimed[loss])
            diamond = f"M{at:.1f} {middle - 6:.1f}l6 6l-6 6l-6 -6z"
            body.append(f'<path d="{diamond}" fill="none" stroke="{colours["muted"]}" stroke-width="1.5"/>')
            difference = found.difference
            if difference is None:
                body.append(_text(WIDTH - RIGHT, middle + 4, "not run", colours["muted"], "end"))
            else:
                if difference.interval is not None:
                    low, high = scale(difference.interval.low), scale(difference.interval.high)
                    body.append(
                        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="{colour}" stroke-width="2.5"/>'
                    )
                else:
                    body.append(_text(WIDTH - RIGHT, middle + 4, "one seed", colours["muted"], "end"))
                x = scale(difference.estimate)
                body.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4.5" fill="{colour}"/>')
            top += ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" font-size="13" style="{_FONT}">',
            f"<title>{html.escape(describe(answers))}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="{colours["paper"]}"/>',
            *_axis(scale, top, colours),
            *body,
            "</svg>\n",
        ]
    ).encode()


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


def _seeds(answer: Answer) -> int:
    return max(found.summary.n for found in answer.comparisons.values())


class _Scale:
    """From points of Top-1 to a place in the figure."""

    def __init__(self, answers: list[Answer], claimed: list[float]) -> None:
        values = [0.0, *claimed]
        for found in (found.difference for answer in answers for found in answer.comparisons.values()):
            if found is not None:
                values.append(found.estimate)
                values += [found.interval.low, found.interval.high] if found.interval is not None else []
        self.step = next(
            (step for step in (0.25, 0.5, 1.0, 2.0) if (max(values) - min(values)) / step <= 9), 5.0
        )
        self.low = self.step * (min(values) // self.step)
        self.high = -self.step * (-max(values) // self.step)

    def __call__(self, points: float) -> float:
        return LEFT + (points - self.low) / (self.high - self.low) * (WIDTH - RIGHT - LEFT)

    def ticks(self) -> list[float]:
        return [
            self.low + self.step * place for place in range(round((self.high - self.low) / self.step) + 1)
        ]


def _legend(colours: dict[str, str]) -> Iterator[str]:
    yield f'<path d="M{LEFT} 17h28" stroke="{colours["ink"]}" stroke-width="2.5"/>'
    yield f'<circle cx="{LEFT + 14}" cy="17" r="4.5" fill="{colours["ink"]}"/>'
    yield _text(LEFT + 36, 21, "here, with 95 % interval", colours["muted"], "start")
    diamond = f"M{LEFT + 222} 11l6 6l-6 6l-6 -6z"
    yield f'<path d="{diamond}" fill="none" stroke="{colours["muted"]}" stroke-width="1.5"/>'
    yield _text(LEFT + 236, 21, "published (ResNet-110)", colours["muted"], "start")


def _axis(scale: _Scale, bottom: float, colours: dict[str, str]) -> Iterator[str]:
    for tick in scale.ticks():
        zero = abs(tick) < 1e-9
        colour = colours["muted"] if zero else colours["rule"]
        yield f'<path d="M{scale(tick):.1f} {LEGEND}V{bottom:.1f}" stroke="{colour}" stroke-width="1"/>'
        text = "0" if zero else f"{tick:+g}".replace("-", "\u2212")
        yield _text(scale(tick), bottom + 17, text, colours["muted"], "middle")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield _text(middle, bottom + 36, "Top-1 minus BCE, percentage points", colours["muted"], "middle")


def _text(x: float, y: float, text: str, colour: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>'
    )
