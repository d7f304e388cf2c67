"""Small pieces of HTML: tables that scroll and can be reached by keyboard, figures, a loss in its colour."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anchorloss.analysis.comparison import NOT_RESOLVED
from anchorloss.analysis.stats import Interval, Summary
from anchorloss.report.colours import Style

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A heading and how its cells are set: `number` right-aligned, `short` unbroken, `text` as it comes."""

    heading: str
    kind: str = "number"


def escape(text: object) -> str:
    """Text for HTML content and attribute values."""
    return html.escape(str(text), quote=True)


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], note: str = ""
) -> str:
    """A table whose cells are HTML; the first column heads its row. `name` is unique in the page."""
    small = f" <span>{escape(note)}</span>" if note else ""
    head = "".join(f'<th scope="col" class="{c.kind}">{escape(c.heading)}</th>' for c in columns)
    body = []
    for row in rows:
        cells = [f'<th scope="row" class="{columns[0].kind}">{row[0]}</th>']
        cells += [f'<td class="{c.kind}">{cell}</td>' for c, cell in zip(columns[1:], row[1:], strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">'
        f'<table><caption><div id="{name}">{escape(caption)}{small}</div></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def figures(pictures: Sequence[tuple[str | None, str]]) -> str:
    """Pictures side by side where there is room, each an (svg, caption); those that are None are left out."""
    shown = [(svg, caption) for svg, caption in pictures if svg is not None]
    if not shown:
        return ""
    items = [
        f"<figure>{svg}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"
        for svg, caption in shown
    ]
    kind = "figures one" if len(items) == 1 else "figures"
    return f'<div class="{kind}">' + "\n".join(items) + "</div>"


def loss_name(label: str, style: Style) -> str:
    """The loss with its colour before it."""
    return f'<span class="loss" style="--c:var(--{style.variable})">{escape(label)}</span>'


def badge(verdict: str) -> str:
    """The verdict as a small label; its colour repeats the word, never replaces it."""
    kind = "" if verdict == NOT_RESOLVED else f" {verdict}"
    return f'<span class="badge{kind}">{escape(verdict)}</span>'


def number(value: float | None, form: str = "{:.2f}") -> str:
    """A number with a real minus sign, a dash for None."""
    return DASH if value is None else form.format(value).replace("-", "\N{MINUS SIGN}")


def probability(value: float | None) -> str:
    """A p-value with three digits."""
    if value is None:
        return DASH
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def spread(summary: Summary, form: str = "{:.2f}") -> str:
    """Mean ± sample standard deviation; the latter a dash for one value."""
    if summary.mean is None:
        return DASH
    return f"{number(summary.mean, form)} ± {number(summary.std, form)}"


def interval(found: Interval | None, form: str = "{:+.2f}") -> str:
    """Low to high."""
    return DASH if found is None else f"{number(found.low, form)} to {number(found.high, form)}"
