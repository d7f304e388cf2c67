"""Every figure, in one style, as SVG whose colours are CSS variables: one picture for the light and the dark theme.

In all of them `arms` are what is drawn, by loss, and `name` is unique in the page: it prefixes every id.
"""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from scipy.stats import t as student

from anchorloss.analysis import paper, predictions, text

if TYPE_CHECKING:
    from torch import Tensor

    from anchorloss.loss import Anchor

# variable: (stand-in in figures, light, dark). Stand-ins must differ from each other. Hues after Okabe and Ito's palette
# for colour-blind readers; markers repeat the distinction without colour.
THEME = {
    "ink": ("#1b1d21", "#1b1d21", "#e9e8e4"),
    "muted": ("#63676e", "#5d6168", "#a3a7ae"),
    "rule": ("#d9d7d0", "#dcdad3", "#383c43"),
    "paper": ("#fdfcfa", "#fdfcfa", "#16181c"),
    "stamp": ("#b3261e", "#a8231b", "#ff9d8f"),
    "bce": ("#3d4047", "#3a3d44", "#d6d4ce"),
    "anchor_target": ("#d55e00", "#c45500", "#ff8f40"),
    "anchor_bg": ("#0072b2", "#0072b2", "#56b4e9"),
    "anchor_both": ("#009e73", "#007a58", "#2cc197"),
    "softmax": ("#cc79a7", "#b85f92", "#dd93bb"),
    "other-1": ("#e69f00", "#a87400", "#e69f00"),
    "other-2": ("#7a5cc2", "#7a5cc2", "#a78be6"),
    "other-3": ("#8c6d46", "#8c6d46", "#c4a67c"),
}
INK, MUTED, RULE, PAPER = (THEME[name][0] for name in ("ink", "muted", "rule", "paper"))
OTHERS = ("other-1", "other-2", "other-3")
MARKERS = {"bce": "o", "anchor_target": "^", "anchor_bg": "s", "anchor_both": "D", "softmax": "v"}
MARKERS |= dict(zip(OTHERS, "PXp", strict=True))
# Drawn at 72 units an inch, so a panel of 5 x 3.6 inches is 360 x 259 CSS pixels: text keeps its size on a phone.
LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anchorloss",
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "butt",
    "figure.facecolor": "none",
}
QUANTILE_DASHES: dict[Any, Any] = {"q50": "-", "q90": (0, (5, 2)), "q99": (0, (1, 1.5))}
# What becomes of matplotlib's SVG in a page. Its style rule would reach every element; style.css has it for figures.
# Fonts are left to the page; mathematics comes with the shorthand, which cannot leave the family open.
REWRITTEN = (
    (r"\A.*?(?=<svg)|<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*|<!--.*?-->\s*", ""),
    (r"font-family: [^;\"]*;?", ""),
    (r"font: italic ([\d.]+px)[^;\"]*", r"font-size: \1; font-style: italic"),
    (r"font: ([\d.]+px)[^;\"]*", r"font-size: \1"),
    (r'\b(id="|url\(#|href="#)', r"\1NAME-"),
)
THEMES = {"light": 1, "dark": 2}
styled = mpl.rc_context({**mpl.rcParamsDefault, **LOOK})


def css(theme: str) -> str:
    """The values of the variables in the "light" or the "dark" theme, as CSS declarations."""
    return "".join(f"--{name}:{values[THEMES[theme]]};" for name, values in THEME.items())


class Arm(NamedTuple):
    """What an arm is called, and the variable of its colour."""

    label: str
    variable: str

    @property
    def color(self) -> str:
        """What stands for its colour in a figure."""
        return THEME[self.variable][0]

    @property
    def mark(self) -> dict[str, Any]:
        """Colour and marker as `Axes.plot` takes them."""
        return {"color": self.color, "marker": MARKERS[self.variable]}


Arms = Mapping[Any, Arm]


def arms(losses: Iterable[Any]) -> dict[Any, Arm]:
    """How each loss is drawn; those that Table 1 does not have take the other colours in turn."""
    others = itertools.cycle(OTHERS)
    return {loss: Arm(paper.label(loss), loss if loss in MARKERS else next(others)) for loss in losses}


def _panels(height: float = 3.6, width: float = 5.0, count: int = 1) -> list[Axes]:
    """Axes below each other with one scale, in a figure of that size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return list(figure.subplots(count, sharex=True, squeeze=False).flat)


def _svg(axes: Axes, name: str, said: str) -> Markup:
    """The figure as an element for a page; `said` is what a reader who cannot see it should know."""
    figure = cast(Figure, axes.figure)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower left", ncols=2, fontsize=10)
    document = io.StringIO()
    # Not `savefig`, which draws everything once more beforehand.
    FigureCanvasSVG(figure).print_svg(document)
    svg = document.getvalue()
    for pattern, replacement in REWRITTEN:
        svg = re.sub(pattern, replacement.replace("NAME", name), svg, flags=re.DOTALL)
    for variable, (stand_in, _, _) in THEME.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    opening, _, body = svg.partition(">")
    box = opening.partition('viewBox="')[2].partition('"')[0]
    return Markup(
        f'<svg viewBox="{box}" role="img" aria-label="{html.escape(said)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">' + re.sub(r"\n\s*", "\n", body).strip()
    )


def stand_alone(svg: str, theme: str = "light") -> bytes:
    """The figure as a file of its own, on the page's colour, in the "light" or the "dark" theme."""
    column = THEMES[theme]
    for variable, values in THEME.items():
        svg = svg.replace(f"var(--{variable})", values[column])
    width, height = svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    opening, _, body = svg.partition(">")
    style = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
    return (
        f'{opening} width="{width}pt" height="{height}pt" style="{style}">\n'
        f'<rect width="{width}" height="{height}" fill="{THEME["paper"][column]}"/>\n{body}\n'
    ).encode()


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, … from top to bottom."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.42, -0.58)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)


@styled
def differences(
    groups: Mapping[str, pd.DataFrame],
    claimed: Mapping[Any, float],
    arms: Arms,
    name: str,
    unit: str = "points",
    width: float = 5.0,
) -> Markup:
    """Differences from the reference with their 95 % intervals, a row for each arm; hollow: the published ones.

    Args:
        groups: Title of each panel -> a row for each arm with `difference`, `low`, `high` in points, NaN where missing.
        claimed: The published difference of an arm, where there is one.
    """
    height = 0.75 + 0.45 * len(groups) + 0.5 * sum(map(len, groups.values()))
    panels, said = _panels(height, width, len(groups)), "Differences in points."
    for axes, (title, found) in zip(panels, groups.items(), strict=True):
        axes.axvline(0, color=MUTED, lw=1.2)
        for place, (arm, row) in enumerate(found.iterrows()):
            axes.plot([row["low"], row["high"]], [place] * 2, color=arms[arm].color, lw=2.4)
            axes.plot(row["difference"], place, **arms[arm].mark, ms=8, mec=PAPER)
            axes.plot(claimed.get(arm, np.nan), place + 0.26, "d", color="none", mec=MUTED, ms=7)
            right, beside = axes.get_yaxis_transform(), _with_interval(row, "\n")
            axes.text(1.03, place, beside, transform=right, va="center", fontsize=10, linespacing=1.3)
        _rows(axes, [arms[arm].label for arm in found.index])
        axes.set_title(title)
        rows = "; ".join(f"{arms[arm].label} {_with_interval(row)}" for arm, row in found.iterrows())
        said += f" {title}: {rows}."
    panels[-1].set_xlabel(f"{unit}; bar: 95 % interval" + "; ◇ published" * bool(claimed))
    return _svg(panels[0], name, said)


def _with_interval(row: pd.Series, between: str = " ") -> str:
    if pd.isna(row["difference"]):
        return "not run"
    low, high = text.signed(row["low"]), text.signed(row["high"])
    return text.signed(row["difference"]) + ("" if pd.isna(row["low"]) else f"{between}{low} to {high}")


@styled
def every_seed(
    runs: pd.DataFrame, measure: str, published: pd.DataFrame, arms: Arms, title: str, name: str
) -> Markup:
    """A row for each arm: a mark for each seed, below them the mean with its 95 % interval.

    Args:
        runs: A row for each finished run.
        measure: A column, in percent.
        published: Mean and standard deviation of some of the arms, drawn in grey.
    """
    (axes,), means = _panels(0.95 + 0.55 * len(arms)), []
    for place, (loss, arm) in enumerate(arms.items()):
        own = runs.loc[runs["loss"] == loss, measure]
        mean, margin = own.mean(), own.sem() * student.ppf(0.975, len(own) - 1)
        axes.plot(own, [place - 0.14] * len(own), ls="", **arm.mark, ms=6, mec=PAPER, alpha=0.85)
        axes.plot([mean - margin, mean + margin], [place + 0.2] * 2, color=arm.color, lw=2.2)
        axes.plot(mean, place + 0.2, "|", color=INK, ms=11, mew=2)
        if loss in published.index:
            theirs, std = published.loc[loss].to_numpy(float)
            axes.plot([theirs - std, theirs + std], [place + 0.36] * 2, color=MUTED, lw=1.2)
            axes.plot(theirs, place + 0.36, "d", color=PAPER, mec=MUTED, ms=6)
        means.append(f"{arm.label} {text.number(mean)}, n = {len(own)}")
    _rows(axes, [arm.label for arm in arms.values()])
    axes.set(title=title, xlabel="percent, last epoch")
    return _svg(axes, name, f"{title}, in percent. Means: {'; '.join(means)}.")


@styled
def curves(
    long: pd.DataFrame, arms: Arms, title: str, name: str, unit: str, level: float | None = None
) -> Markup:
    """Mean over seeds by epoch, with a band from the lowest seed to the highest.

    Args:
        long: A row for each value: `loss`, `seed`, `epoch`, `value`, and perhaps `quantile`, drawn dashed without a band.
        level: Where a grey line is drawn.
    """
    (axes,), ends = _panels(), []
    keys = [key for key in ("loss", "quantile") if key in long]
    ordered = pd.concat([long[long["loss"] == loss] for loss in arms]).dropna(subset=["value"])
    if level is not None:
        axes.axhline(level, color=MUTED, lw=1.2)
    for group, own in ordered.groupby(keys, sort=False):
        loss, *quantile = cast(tuple[Any, ...], group)
        arm, by_epoch = arms[loss], own.groupby("epoch")["value"].agg(["mean", "min", "max"])
        label = " ".join([arm.label, *(f"{one[1:]} %" for one in quantile)])
        dashes = QUANTILE_DASHES[quantile[0]] if quantile else "-"
        marker = "o" if len(by_epoch) == 1 else ""  # one point makes no line
        axes.plot(by_epoch["mean"], color=arm.color, ls=dashes, marker=marker, label=label)
        if not quantile:
            low, high = by_epoch["min"], by_epoch["max"]
            axes.fill_between(by_epoch.index, low, high, color=arm.color, alpha=0.15, lw=0)
        ends.append(f"{label} {by_epoch['mean'].iloc[-1]:.2f}")
    axes.margins(x=0)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    return _svg(axes, name, f"{title} by epoch, mean over seeds. At the end: {'; '.join(ends)}.")


@styled
def power_curve(detectable: pd.DataFrame, arms: Arms, claimed: float, name: str) -> Markup:
    """The minimum detectable difference by the number of seeds of each loss; `detectable` is seeds x arm, in points."""
    title, (axes,) = "Minimum detectable difference", _panels()
    for loss, own in detectable.items():
        axes.plot(own, color=arms[loss].color, label=arms[loss].label)
    if claimed > 0:
        axes.axhline(claimed, color=MUTED, ls=(0, (4, 3)), lw=1.2, label=f"published {text.signed(claimed)}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(title=title, xlabel="seeds of each loss", ylabel="points")
    return _svg(axes, name, f"{title} by the number of seeds of each loss, 80 % power.")


@styled
def class_differences(change: pd.Series, chance: float, arm: Arm, title: str, name: str) -> Markup:
    """Accuracy by class minus the reference's, sorted, in points; band: two standard deviations that seeds alone give."""
    (axes,), heights = _panels(), np.sort(change.dropna())
    largest = 1.15 * np.abs(heights).max(initial=0.1)
    if not np.isnan(chance):
        axes.axhspan(-2 * chance, 2 * chance, color=RULE, alpha=0.6, lw=0)
    axes.bar(np.arange(len(heights)), heights, width=0.85, color=arm.color, lw=0)
    axes.axhline(0, color=MUTED, lw=1)
    axes.grid(visible=False)
    axes.set(title=title, xlabel="classes, sorted", ylabel="points", xticks=[], ylim=(-largest, largest))
    return _svg(axes, name, f"Accuracy by class, {title}, in points.")


@styled
def confused(means: pd.DataFrame, arms: Arms, name: str) -> Markup:
    """Mistakes between two classes under each loss; `means` is pair x loss, in images a run."""
    (axes,) = _panels(1.5 + 0.32 * len(means))
    axes.hlines(range(len(means)), means.min(axis=1), means.max(axis=1), color=RULE, lw=3)
    for loss, own in means.items():
        axes.plot(own, range(len(own)), ls="", **arms[loss].mark, ms=7, mec=PAPER, label=arms[loss].label)
    _rows(axes, list(means.index))
    axes.set(title="Classes taken for each other", xlabel="mistakes between the two, images a run")
    return _svg(axes, name, f"The most confused pairs of classes: {'; '.join(means.index)}.")


@styled
def reliability_diagram(bins: pd.DataFrame, fewest: int, arm: Arm, title: str, name: str) -> Markup:
    """Share right against the score of the predicted class, and below how many images have that score.

    Args:
        bins: What `predictions.reliability` returns.
        fewest: Bins with fewer images have no mark.
    """
    (axes,), width = _panels(3.9), 1 / predictions.BINS
    many, shares = bins[bins["images"] >= fewest], 0.3 * bins["images"] / bins["images"].max()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls=(0, (4, 3)))
    axes.bar(width * bins.index, shares, width=width, align="edge", color=RULE, lw=0)
    axes.plot(many["score"], many["right"], **arm.mark, ms=6, mec=PAPER)
    axes.set(title=title, xlabel="score of the predicted class", ylabel="share right")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return _svg(axes, name, f"Reliability of {title}.")


def modulated_loss(side: Anchor, gamma: float, q: Tensor, anchor: float) -> Tensor:
    """The loss of the class on one side against its score, Equations 2 ("target") and 3 ("background").

    The factor is that of the loss code, for samples of two classes: one has the score q, the other is the anchor.

    Args:
        side: The loss's `anchor`, and the class whose loss is returned.
        gamma: Exponent of the modulating factor; 0 is binary cross entropy.
        q: Scores, float64 (points,).
        anchor: The anchor's score, 0 to 1.

    Returns:
        Losses, float64 (points,).
    """
    import torch  # seconds, which only a page that draws Figure 1 needs

    from anchorloss.loss import modulation

    scores = (q, torch.full_like(q, anchor))
    logits = torch.special.logit(torch.stack(scores if side == "target" else scores[::-1], dim=1))
    target, background = modulation(logits, torch.zeros(len(q), dtype=torch.int64), gamma, side)
    return -target * q.log() if side == "target" else -background[:, 1] * (1 - q).log()


@styled
def figure1(side: Anchor, name: str) -> Markup:
    """One half of Figure 1 of the supplement, drawn by the loss code; shaded: where anchor loss exceeds BCE."""
    import torch

    anchor, symbol, number = {"target": (0.2, "pos", "(i)"), "background": (0.8, "neg", "(ii)")}[side]
    (axes,), title = _panels(), f"{number} Modulate the loss of the {side}"
    axes.axvspan(*((0, anchor) if side == "target" else (anchor, 1)), color=INK, alpha=0.07, lw=0)
    axes.axvline(anchor, color=INK, alpha=0.6, lw=1, ls=":")
    q = torch.linspace(0.005, 0.995, 397, dtype=torch.float64)
    # A gamma is no loss, so it has the hue of none.
    for gamma, hue in zip((0.0, 0.5, 1.0, 2.0), ("bce", *OTHERS), strict=True):
        label, dashes = (rf"AL, $\gamma$ = {gamma:g}", "-") if gamma else ("BCE", (0, (4, 2)))
        axes.plot(q, modulated_loss(side, gamma, q, anchor), color=THEME[hue][0], ls=dashes, label=label)
    axes.text(anchor, 5.05, rf"$q_{{{symbol}}}$ = {anchor:g}", ha="center", va="bottom", fontsize=10)
    axes.set(xlabel=f"score of the {side} class", ylabel="loss", xlim=(0, 1), ylim=(0, 5))
    axes.set_title(title, pad=22)
    said = f"{title}: BCE and anchor loss against the score of the {side} class, anchor {anchor:g}."
    return _svg(axes, name, said)
