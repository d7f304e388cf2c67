"""How numbers, tables and comparisons are written: one rule of rounding, one dash, one place that escapes Markdown."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd

from anchorloss.analysis import stats
from anchorloss.analysis.paper import MARGIN, REFERENCE, label
from anchorloss.runs.provenance import short_commit

DASH = "—"
Row = Mapping[Hashable, Any]


def number(value: float | None, form: str = ".2f", dash: str = DASH) -> str:
    """Format a number as `form` says (".2f", "+.2f", ",.0f"), a missing one as `dash`.

    An exact half is rounded away from zero: 65.215 is 65.22, though binary floating point holds a little less.
    """
    if value is None or pd.isna(value):
        return dash
    exact = Decimal(repr(round(float(value), 9)))
    digits = int(form.rpartition(".")[2].removesuffix("f"))
    return format(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP), form)


def mean_std(mean: float, std: float, dash: str = DASH) -> str:
    """Format mean ± sample standard deviation, the latter a dash for one run."""
    return dash if pd.isna(mean) else f"{number(mean)} ± {number(std, dash=dash)}"


def with_interval(difference: float, low: float, high: float, n: float = 2, dash: str = DASH) -> str:
    """Format a difference in points with its interval: +0.10 [-0.20, +0.40]; a dash where `n` seeds have no spread."""
    if pd.isna(difference) or n < 2:
        return number(difference, "+.2f", dash)
    interval = dash if pd.isna(low) else f"{number(low, '+.2f')}, {number(high, '+.2f')}"
    return f"{number(difference, '+.2f')} [{interval}]"


def signed(value: float) -> str:
    """Format a difference in points for the page, with a real minus sign."""
    return number(value, "+.2f", "\N{EN DASH}").replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Format a p-value with its relation: `= 0.041`, `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"= {number(value, '.3f')}"


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def duration(seconds: float) -> str:
    """Format seconds in a suitable unit: `59 s`, `10 min`, `1.5 h`, `2.0 days`."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def one_line(text: str) -> str:
    """`text` with every line break and unprintable character, and runs of spaces, replaced by one space."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def escape(text: str) -> str:
    """`text` as one line of Markdown that shows it as it is: no markup, HTML or terminal control in it works."""
    return re.sub(r"[\\`*\[\]<>|&#~$]", r"\\\g<0>", one_line(text))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lr") -> str:
    """A table in GitHub's Markdown, padded so that it also reads well as plain text.

    Cells are Markdown: text that is not ours goes through `escape` first. `align` has `l` or `r` for each column; the
    last letter is that of all further columns.
    """
    columns = list(zip(*([one_line(cell) for cell in row] for row in [header, *rows]), strict=True))
    padded = []
    for column, side in zip(columns, align.ljust(len(columns), align[-1]), strict=False):
        # Three at least: some readers of Markdown take a rule of fewer for text.
        width = max(3, *map(len, column))
        rule = ":" + "-" * (width - 1) if side == "l" else "-" * (width - 1) + ":"
        cells = [cell.ljust(width) if side == "l" else cell.rjust(width) for cell in column]
        padded.append([cells[0], rule, *cells[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def document(*paragraphs: str) -> str:
    """A file of these paragraphs; empty ones are left out."""
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def failure(run: Row) -> str:
    """Return why a run failed: "non-finite loss in epoch 3, step 17, last finite loss 12.5"; empty for other runs."""
    if run["state"] != "failed":
        return ""
    text = f"{one_line(run['failure.reason'])} in epoch {run['failure.epoch']:.0f}"
    if run["failure.step"] >= 0:  # an evaluation has no step
        text += f", step {run['failure.step']:.0f}"
    last = run["failure.last_finite_loss"]
    return text if pd.isna(last) else f"{text}, last finite loss {last:.4g}"


def made_from(runs: pd.DataFrame) -> str:
    """Return the line below every table, in Markdown: how many records, of which commits, on which devices."""
    made = runs[runs["state"].isin(["finished", "failed"])]
    versions = zip(made["provenance.commit"], made["provenance.dirty"], strict=True)
    commits = sorted({short_commit(*version) for version in versions})
    devices = sorted({escape(device) for device in made["provenance.device"]})
    count = f"{len(made)} record{'' if len(made) == 1 else 's'}"
    return f"Made from {count}; commit {', '.join(commits)}; on {', '.join(devices)}."


def explanation(one: Row, measure: str, reference: str, claimed: float = float("nan")) -> str:
    """Return what a verdict rests on, in plain words.

    `one` is a row of `stats.corrected` on `measure` ("Top-1"), `reference` what the reference is called, `claimed` the
    published difference in points, if there is one.
    """
    if pd.isna(one["difference"]):
        return f"There is no finished run to compare with {reference}."
    side = "above" if one["difference"] >= 0 else "below"
    gap = f"Mean {measure} is {number(abs(one['difference']))} points {side} {reference}"
    if pd.isna(one["p"]):
        counts = "one shared seed" if one["paired"] else f"n = {one['n']:.0f} and {one['n_reference']:.0f}"
        counts = "equal differences" if min(one["n"], one["n_reference"]) > 1 else counts
        return f"{gap}; with {counts} there is no spread, so no interval and no test."
    low, high = number(one["low"], "+.2f"), number(one["high"], "+.2f")
    how = f"{one['n']:.0f} against {one['n_reference']:.0f} runs, unpaired"
    if one["paired"]:
        how = f"{one['n']:.0f} paired seeds"
        how += "" if pd.isna(one["correlation"]) else f", correlation {number(one['correlation'])}"
    family = f"; corrected for {one['comparisons']:.0f} comparisons p {p_value(one['holm'])}"
    said = [
        f"{gap} (95 % interval {low} to {high}; {how}).",
        f"p {p_value(one['p'])}{family if one['comparisons'] > 1 else ''}.",
    ]
    if one["p"] <= stats.ALPHA < one["holm"]:
        said.append("It is below 0.05 only before the correction.")
    if one["verdict"] == stats.NOT_RESOLVED:
        said += _resolution(one, claimed)
    if not pd.isna(claimed):
        where = "inside" if one["low"] <= claimed <= one["high"] else "outside"
        said.append(f"The published difference of {number(claimed, '+.2f')} lies {where} the interval.")
    return " ".join(said)


def _resolution(one: Row, claimed: float) -> list[str]:
    """What these seeds can detect, and how many the published difference needs, each over the spread's interval."""
    least, most = stats.spread_bounds(one["df"])
    found = stats.detectable(one["spreads"], min(one["n"], one["n_reference"]))
    said = [
        f"Minimum detectable difference (80 % power): {number(found)} points "
        f"(95 % interval {number(least * found)} to {number(most * found)})."
    ]
    scaled = [[factor * spread for spread in one["spreads"]] for factor in (1, least, most)]
    needed, fewest, many = (stats.seeds_needed(claimed, spreads) for spreads in scaled)
    if not pd.isna(needed):
        upper = number(many, ",.0f", "more than a million")
        said.append(
            f"The published {number(abs(claimed))} points need {needed:,} seeds of each loss for 80 % power "
            f"(95 % interval {fewest:,} to {upper})."
        )
    return said


def amendment(runs: pd.DataFrame) -> list[str]:
    """Return the paragraphs of the amendment of 2026-11-30 in docs/protocol.md on Top-1, as Markdown."""
    exclusion, equivalence, sensitivity = [], [], []
    for loss, one in stats.amendment(runs).to_dict("index").items():
        value = {key: number(value, "+.2f") for key, value in one.items()}
        interval = {
            end: f"{value[f'low{end}']} to {value[f'high{end}']}" for end in ("", "90", "_3", "_5", "_10")
        }
        named = f"- {label(str(loss))}"
        exclusion.append(
            f"{named}{'' if loss == 'anchor_bg' else ' (descriptive)'}: a true difference of {value['published']} is "
            f"{'excluded, at this depth and length' if one['excluded'] else 'not excluded'} (95 % interval "
            f"{interval['']}). Ours minus the paper's: {value['above_paper']} (95 % interval for the paper's unknown "
            "number of runs, "
            f"n = 3: {interval['_3']}; n = 5: {interval['_5']}; n = 10: {interval['_10']})."
        )
        equivalence.append(
            f"{named}: {'equivalent' if one['equivalent'] else 'not shown to be equivalent'} to {label(REFERENCE)} "
            f"within {MARGIN} points (90 % interval {interval['90']}; p {p_value(one['p'])})."
        )
        sensitivity.append(
            f"{named}: {value['pooled']} points (95 % interval {value['pooled_low']} to {value['pooled_high']}; p = "
            f"{number(one['pooled_p'])})."
        )
    return [
        "Exclusion (Top-1; amendment of 2026-11-30 in docs/protocol.md): does the registered interval lie wholly below "
        "the published difference?",
        "\n".join(exclusion),
        f"Equivalence (two one-sided t tests at 0.05, margin {MARGIN} points; not corrected for {len(exclusion)} losses; "
        f"power about .45 at a true difference of 0; inside ±{MARGIN} does not mean that there is no effect):",
        "\n".join(equivalence),
        "Sensitivity (`top1 ~ loss` over all finished runs, variance pooled over the losses, Dunnett's correction; it "
        "decides nothing):",
        "\n".join(sensitivity),
    ]
