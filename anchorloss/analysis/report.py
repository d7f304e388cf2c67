"""The report of an experiment: one page that opens offline, made from its records alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anchorloss.analysis import answer, figures, frame, paper, predictions, stats, table, text
from anchorloss.analysis.frame import MEASURES, PRIMARY, SCORES
from anchorloss.data.class_names import class_names
from anchorloss.runs.differences import flatten
from anchorloss.runs.files import write_results
from anchorloss.runs.folder import read_predictions
from anchorloss.runs.provenance import short_commit

if TYPE_CHECKING:
    from anchorloss.loss import Anchor

FEWEST_IMAGES, MOST_SEEDS_DRAWN = 20, 30
VERSIONS = "provenance.versions."


def _typeset(cell: object) -> object:
    """Text with real minus signs, and no line broken after `p =`."""
    if not isinstance(cell, str) or isinstance(cell, Markup):
        return cell
    cell = re.sub(r"(?<![\w.)-])-(?=\d)", "\N{MINUS SIGN}", cell)
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", cell)


PAGES = Environment(
    loader=PackageLoader("anchorloss.analysis", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters["typeset"] = _typeset


class Table(NamedTuple):
    """Cells as they are shown; the index heads the rows, columns of `left` are set from the left."""

    name: str
    caption: str
    note: str
    frame: pd.DataFrame
    left: Sequence[str] = ()


@dataclass
class Part:
    """A section of the page, or what is folded in one behind its title; `points` are a heading, its colour, and text."""

    title: str
    name: str = ""
    lead: str = ""
    answer: str = ""
    points: Sequence[tuple[str, str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Markup] = ()
    folded: Sequence[Part] = ()
    open: bool = False


class Report:
    """The sections of one experiment's page.

    Args:
        runs: Every run, as `frame.runs` returns it.
        reference: The loss that the others are compared with.
    """

    def __init__(self, runs: pd.DataFrame, reference: str) -> None:
        done = runs[runs["state"] == "finished"]
        self.answers = pd.Series({name: read_predictions(folder) for name, folder in done["folder"].items()})
        self.runs = runs = frame.measured(runs, answers=self.answers)
        self.done = runs[runs["state"] == "finished"]
        self.first = table.basis(runs).iloc[0]
        self.reference, self.against = reference, paper.label(reference)
        self.plan = paper.planned(self.first["experiment"])
        self.numbers = table.numbers(runs, reference, self.plan)
        self.arms = figures.arms(self.numbers.index)
        self.present = [loss for loss in self.arms if loss in set(self.done["loss"])]
        self.verdicts = stats.verdicts(runs, reference, self.arms)
        self.of_paper = len(paper.published(self.first["experiment"], self.first["dataset.label"])) > 0
        self.comparable = bool(self.numbers["comparable_with_paper"].any())

    def of(self, measure: str) -> pd.DataFrame:
        """The verdicts in one measure, by loss."""
        return self.verdicts[self.verdicts.index.get_level_values("measure") == measure].droplevel("measure")

    def claimed(self, measure: str) -> dict[Any, float]:
        """The published differences from the reference in points, by loss."""
        found = self.numbers.get(f"paper_{measure}_difference", pd.Series(dtype=float))
        return found.dropna().to_dict()

    def named(self, loss: Any) -> Markup:
        """A loss as it is written in a table, with its colour."""
        arm = self.arms[loss]
        return Markup('<span class="loss" style="--c:var(--{})">{}</span>').format(arm.variable, arm.label)

    def by_loss(self, cells: pd.DataFrame) -> pd.DataFrame:
        """`cells`, a row for each loss, with the losses named."""
        return cells.set_axis([self.named(loss) for loss in cells.index]).rename_axis("loss")

    def sections(self) -> list[Part]:
        """Those that have something to show."""
        made = [self.verdict(), self.scores()]
        if self.present:
            histories = frame.histories_of(self.done)
            made += [self.training(histories), self.modulation(histories), self.by_class()]
            made += [self.confusion(), self.calibration()]
        made += [self.loss_itself(), self.every_run()]
        return [part for part in made if part.answer or part.tables or part.figures or part.folded]

    def verdict(self) -> Part:
        """The answer in one sentence, the differences drawn, and below them what it rests on."""
        drawn = []
        for key, name in SCORES.items():
            found = self.of(key)
            if found["difference"].notna().any():
                panel = {f"{name} minus {self.against}": found}
                drawn.append(figures.differences(panel, self.claimed(key), self.arms, f"difference-{key}"))
        return Part(
            f"Better than {self.against}?",
            "verdict",
            answer=answer.sentence(self.of(PRIMARY), self.reference),
            figures=drawn,
            folded=[self._verdicts(), self._tests()] if len(self.verdicts) else [],
        )

    def _verdicts(self) -> Part:
        measure, claimed = MEASURES[PRIMARY].name, self.claimed(PRIMARY)
        lead = (
            f"The claim for each loss: its mean {measure} is higher than {self.against}'s. Supported or contradicted "
            "only where p, corrected by Holm's method (the paper's losses as one family, all other losses as "
            f"another), is at most {stats.ALPHA}; otherwise not resolved."
        )
        points: list[tuple[str, str, str]] = []
        for loss, one in self.of(PRIMARY).iterrows():
            heading = Markup("{}: {}").format(self.named(loss), _badge(one["verdict"]))
            said = text.explanation(one.to_dict(), measure, self.against, claimed.get(loss, np.nan))
            points.append((heading, self.arms[loss].variable, said))
        if paper.amended(self.runs, self.plan, self.reference):
            lines = "\n".join(text.amendment(self.runs)).splitlines()
            points += [("", "rule", _prose(line)) for line in lines]
        return Part("What each verdict rests on", lead=lead, points=points)

    def _tests(self) -> Part:
        made, drawn = [], []
        for key, measure in MEASURES.items():
            rows = [self._test(key, str(loss), one) for loss, one in self.of(key).iterrows()]
            kind = "primary measure" if key == PRIMARY else "secondary measure"
            note = f"{kind}; two-sided t tests{'; lower is better' if measure.lower_is_better else ''}"
            caption = f"{measure.name[0].upper()}{measure.name[1:]} minus {self.against}, points"
            shown = self.by_loss(pd.DataFrame(rows, self.of(key).index))
            shown = shown if self.claimed(key) else shown.drop(columns="seeds for the published")
            made.append(Table(f"tests-{key}", caption, note, shown, ("seeds", "verdict")))
        counts = range(2, MOST_SEEDS_DRAWN + 1)
        spreads = {loss: own for loss, own in self.of(PRIMARY)["spreads"].items() if any(own)}
        if spreads:
            detectable = {loss: [stats.detectable(own, n) for n in counts] for loss, own in spreads.items()}
            largest = max(map(abs, self.claimed(PRIMARY).values()), default=0.0)
            svg = figures.power_curve(pd.DataFrame(detectable, counts), self.arms, largest, "power")
            caption = f"In {MEASURES[PRIMARY].name}, 80 % power, with the spread observed here."
            drawn.append(_captioned(svg, caption))
        lead = (
            "Runs with the same seed share initial weights and data order, so they are compared pair by pair where "
            "they were trained on the same kind of processor, and by Welch's test otherwise. Only seeds that both "
            "losses have are compared. The secondary measures are corrected together, apart from "
            f"{MEASURES[PRIMARY].name}. The permutation test assumes no normal distribution, but few seeds cannot give "
            f"it a small p. P(higher) is the probability that a run of the loss scores above a run of {self.against}; "
            "its bootstrap interval is too narrow for a handful of seeds."
        )
        return Part("The tests of every measure, and their power", lead=lead, tables=made, figures=drawn)

    def _test(self, key: str, loss: str, one: pd.Series) -> dict[str, str]:
        own, base, paired = stats.samples(self.runs, key, loss, self.reference)
        share, low, high = stats.improvement(own, base)
        needed = stats.seeds_needed(self.claimed(key).get(loss, np.nan), one["spreads"])
        return {
            "seeds": f"{one['n']} pairs" if paired else f"{one['n']} and {one['n_reference']}, Welch",
            "difference": text.number(one["difference"], "+.2f"),
            "95 % interval": _interval(one["low"], one["high"]),
            "t": text.number(one["t"]),
            "df": text.number(one["df"], ".1f"),
            "p": _p_value(one["p"]),
            "p, Holm": _p_value(one["holm"]),
            "permutation p": _p_value(stats.permutation(own, base, paired)),
            "P(higher)": f"{text.number(share)} ({_interval(low, high, '.2f')})",
            "minimum detectable": text.number(stats.detectable(one["spreads"], len(own))),
            "seeds for the published": text.number(needed, ",.0f"),
            "verdict": _badge(one["verdict"]) + " exploratory" * bool(one["exploratory"]),
        }

    def scores(self) -> Part:
        """Table 1, and every seed drawn."""
        caption = "One mark per seed; below them the mean and its 95 % interval."
        caption += " Grey: the published mean ± std." if self.comparable else ""
        drawn = []
        for key, name in SCORES.items():
            grey = self.numbers[[f"paper_{key}_mean", f"paper_{key}_std"]].dropna()
            grey = grey if self.comparable else grey.iloc[:0]
            title = f"{name}, every seed"
            svg = figures.every_seed(self.done, key, grey, self.arms, title, f"seeds-{key}")
            drawn.append(_captioned(svg, caption))
        note = "mean ± sample standard deviation over n seeds, percent"
        cells = self.by_loss(table.cells(self.numbers, self.reference, bold="{}"))
        count = (self.numbers["planned"] - self.numbers["n"]).sum()
        points = [("", "rule", said) for said in table.notes(self.runs, self.plan)]
        return Part(
            "Beside the paper" if self.of_paper else "The table",
            "table",
            tables=[Table("scores", "Table 1", note, cells)],
            figures=drawn,
            folded=[Part(f"Runs that are not in the means: {count}", points=points)] if count else [],
        )

    def training(self, long: pd.DataFrame) -> Part:
        """Learning curves."""
        late = long[long["learning_rate"] <= long["learning_rate"].max() / 5]
        parts = [("top1", "Top-1, evaluation", long.assign(value=long["top1"]))]
        parts += [("end", "Once the learning rate has fallen", late.assign(value=late["top1"]))]
        if self.reference in self.present:
            scores = long.set_index(["seed", "epoch", "loss"])["top1"].unstack("loss")
            gaps = scores.sub(scores[self.reference], axis=0).drop(columns=self.reference)
            gaps = gaps.reset_index().melt(["seed", "epoch"], var_name="loss").dropna()
            # A difference can be seen in the last three quarters of training.
            gaps = gaps[gaps["epoch"] >= long["epoch"].max() / 4]
            parts.append(("difference", f"Top-1 minus {self.against}, same seed", gaps))
        parts.append(("train", "Top-1, training", long.assign(value=long["train_top1"])))
        drawn = []
        for key, title, own in parts:
            level, unit = (0, "points") if key == "difference" else (None, "percent")
            if own["epoch"].nunique() > 1:
                drawn.append(figures.curves(own, self.arms, title, f"curve-{key}", unit, level))
        lead = "Mean over seeds; band from the lowest seed to the highest."
        return Part("Learning curves", "training", lead, figures=drawn)

    def modulation(self, long: pd.DataFrame) -> Part:
        """How the distribution of the modulating factors moves."""
        drawn = []
        short = {
            loss: arm._replace(label=re.sub(r"^(\(i+\)) .*", r"\1", arm.label))
            for loss, arm in self.arms.items()
        }
        for side in ("target", "background"):
            columns = list(long.filter(like=f"{side}_factor_"))
            own = long.melt(["loss", "seed", "epoch"], columns, "quantile").dropna(subset=["value"])
            own["quantile"] = own["quantile"].str.extract("_(q[0-9]+)$", expand=False)
            # Histories have both sides' columns, also where a loss leaves one alone.
            own = own[own["value"].ne(1).groupby(own["loss"]).transform("any").astype(bool)]
            if own["epoch"].nunique() > 1:
                title, unit = f"Factor on the {side} term", "factor; grey: BCE"
                drawn.append(figures.curves(own, short, title, f"factor-{side}", unit, level=1))
        lead = (
            "Quantiles over the evaluation set of the factor on each term, mean over seeds. Above 1 the term weighs "
            "more than in BCE, below 1 less."
        )
        return Part("The modulating factor over training", "modulation", lead, figures=drawn)

    def class_names(self) -> list[str]:
        """What the classes are called, of one's own data, too."""
        count = 1 + max(int(max(one.target.max(), one.predicted.max())) for one in self.answers)
        own = self.first.get("dataset.class_names")
        return class_names(self.first["dataset.name"], own if isinstance(own, list) else [], count)

    def by_class(self) -> Part:
        """Accuracy by class minus the reference's, over the seeds that both losses have."""
        lead = f"Accuracy by class minus {self.against}'s, mean over the seeds that both losses have."
        made = Part("Class by class", "classes", lead)
        if self.reference not in self.present or len(self.present) < 2:
            return made
        names = self.class_names()
        found = [predictions.class_accuracy(one, len(names)) for one in self.answers]
        index = pd.MultiIndex.from_frame(self.done[["loss", "seed"]])
        accuracy = pd.DataFrame(found, index, columns=names)
        drawn, base = [], accuracy.loc[[self.reference]].droplevel("loss")
        shown = {self.against: base.mean().apply(text.number, form=".1f")}
        for loss in [loss for loss in self.present if loss != self.reference]:
            sides = accuracy.loc[[loss]].droplevel("loss"), base
            shared = sides[0].index.intersection(base.index)
            own, other = (side.loc[shared] if len(shared) else side for side in sides)
            change, title = own.mean() - other.mean(), f"{self.arms[loss].label} minus {self.against}"
            # Standard deviation of a class's difference if only seeds differed, pooled over classes.
            chance = math.hypot(*((float(side.var().mean()) / len(side)) ** 0.5 for side in (own, other)))
            svg = figures.class_differences(change, chance, self.arms[loss], title, f"classes-{loss}")
            drawn.append(_captioned(svg, _outside(change, chance)))
            shown[title] = change.apply(text.number, form="+.1f")
        cells = pd.DataFrame(shown).rename_axis("class")
        listed = Table("class-table", "Accuracy by class", "percent, mean over seeds; points", cells)
        made.folded = [
            Part(f"All {len(cells)} classes, drawn and as a table", figures=drawn, tables=[listed])
        ]
        return made

    def confusion(self) -> Part:
        """The most confused pairs of classes."""
        pairs = predictions.confused_pairs(self.answers, self.done["loss"], self.class_names())[self.present]
        caption = (
            "Chosen by the mean over all losses: pairs chosen by one loss would flatter the others by chance."
        )
        drawn = [_captioned(figures.confused(pairs, self.arms, "pairs"), caption)] if len(pairs) else []
        counts = pairs.map(text.number, form=".1f").rename(columns=paper.label)
        made = Table(
            "pairs-table", "Mistakes between two classes", "images a run", counts.rename_axis("pair")
        )
        lead = "The loss modulates background classes that score near the target."
        folded = [Part("How often each pair is confused", tables=[made])]
        return Part("Confused classes", "confusion", lead, figures=drawn, folded=folded)

    def calibration(self) -> Part:
        """Reliability diagrams and the expected calibration error."""
        drawn, rows = [], {}
        for loss in self.present:
            own = self.done[self.done["loss"] == loss]
            error, gap = (text.mean_std(own[key].mean(), own[key].std()) for key in ("ece", "score_gap"))
            bins, arm = predictions.reliability(list(self.answers[own.index])), self.arms[loss]
            title = f"{arm.label}: error {error} %"
            drawn.append(figures.reliability_diagram(bins, FEWEST_IMAGES, arm, title, f"reliability-{loss}"))
            rows[loss] = {"n": f"{len(own)}", "calibration error": error, "mean score minus accuracy": gap}
            if ("ece", loss) in self.verdicts.index:
                ends = self.of("ece").loc[str(loss)][list(table.INTERVAL)]
                rows[loss][f"error minus {self.against} (95 %)"] = text.with_interval(*ends)
        note = "percent; the gap is above zero for overconfidence, and one can fall while the other rises"
        cells = self.by_loss(pd.DataFrame.from_dict(rows, orient="index").fillna(text.DASH))
        listed = Table("calibration-table", "Expected calibration error", note, cells)
        lead = (
            "Score of the predicted class (sigmoid, or softmax for losses on a softmax) against the share that is "
            f"right, in 15 bins over all seeds. Bars: images by score. Bins with fewer than {FEWEST_IMAGES} images are "
            "not drawn."
        )
        folded = [Part("Reliability diagrams", figures=drawn, open=len(drawn) <= 6)]
        folded.append(Part("Expected calibration error, a secondary measure", tables=[listed]))
        return Part("Is a score a probability?", "calibration", lead, folded=folded)

    def loss_itself(self) -> Part:
        """Figure 1 of the supplement."""
        sides: tuple[Anchor, ...] = ("target", "background")
        lead = "Figure 1 of the supplement, drawn by the loss code. Shaded: where anchor loss exceeds BCE."
        drawn = [figures.figure1(side, f"figure1-{side}") for side in sides if self.of_paper]
        return Part("The loss itself", "loss", lead, figures=drawn)

    def every_run(self) -> Part:
        """Every run folder, and the settings that decide a result: those all runs share, and each loss's own."""
        runs = self.runs
        made = runs.filter(like="provenance.").rename(columns=lambda key: key.removeprefix("provenance."))
        versions = zip(made["commit"], made["dirty"], strict=True)
        epoch = runs["progress.epoch"].map(lambda one: "" if pd.isna(one) else f", epoch {one:.0f}")
        cells = {
            "seed": runs["seed"].map(str),
            "state": runs["state"] + epoch,
            **{name: runs[key].apply(text.number) for key, name in SCORES.items()},
            "best Top-1*": runs["best.top1"].apply(text.number),
            "commit": [None if pd.isna(one) else short_commit(one, dirty) for one, dirty in versions],
            "device": made["device"],
            "precision": made["precision"],
            "minutes": (made["duration_seconds"] / 60).apply(text.number, form=".1f"),
            "resumed": made["resumed"].apply(text.number, form=".0f"),
            "finished": made["finished"],
            "run": runs.index.map(_code),
        }
        listed = self.by_loss(pd.DataFrame(cells).fillna(text.DASH).set_axis(runs["loss"]))
        note = "accuracies in percent after the last epoch; *picked on the evaluation set, in no mean"
        left = ("state", "commit", "device", "precision", "finished", "run")
        software = self.done.filter(like=VERSIONS).rename(columns=lambda key: key.removeprefix(VERSIONS))
        said = {
            ", ".join(f"{key} {value}" for key, value in one.dropna().items())
            for _, one in software.iterrows()
        }
        settings = flatten({key: value for key, value in self.first["settings"].items() if key != "loss"})
        settings = {"data": table.data(runs), "data checksum": self.first["dataset.checksum"], **settings}
        for loss, one in self.done.drop_duplicates("loss").set_index("loss")["settings"].items():
            own = flatten(one["loss"]).items()
            settings[self.named(loss)] = ", ".join(f"{key}={value}" for key, value in own)
        values = pd.DataFrame({"value": settings}).map(_code).rename_axis("setting")
        shared = Table("settings-table", "Shared by all runs, and those of each loss", "", values, ("value",))
        folded = [
            Part(
                f"All {len(runs)} runs, with commit, device and time",
                lead=f"{'; '.join(sorted(said))}.",
                tables=[Table("runs-table", "Every run", note, listed, left)],
            ),
            Part("Every setting that decides a result", tables=[shared]),
        ]
        checked = "The files of every finished run were checked against the SHA-256 in its record."
        return Part("Every run", "runs", f"{_prose(text.made_from(self.runs))} {checked}", folded=folded)


def write_report(results_dir: Path, experiment: str, reference: str = paper.REFERENCE) -> Path:
    """Write `report.html`, `statistics.md` and `curves.svg` into `<results_dir>/<experiment>`.

    Returns:
        The path of the page.

    Raises:
        UserError: No run has ended, a file is damaged, or the runs cannot stand in one table.
        RunError: A file cannot be written.
    """
    runs = frame.runs(experiment, results_dir)
    if reference != paper.REFERENCE:
        frame.require_reference(reference, runs["loss"])
    report = Report(runs, reference)
    sections, lead = report.sections(), table.protocol(runs)
    if report.first["dataset.label"] == "SYNTHETIC":
        lead += " These numbers show that the pipeline works and say nothing about the losses."
    elif report.of_paper and not report.comparable:
        lead += " Compare differences with the paper's, not absolute accuracies."
    page = PAGES.get_template("page.html").render(
        experiment=experiment,
        stamp=" · ".join(filter(None, [*paper.stamps(table.basis(runs)), paper.interim(runs, report.plan)])),
        protocol=lead,
        sections=sections,
        css=figures.css,
    )
    # Equal runs give equal bytes.
    contents = {
        "report.html": page.encode(),
        "statistics.md": table.statistics(report.runs, reference).encode(),
    }
    for section in sections:
        if section.name == "training":
            contents["curves.svg"] = figures.stand_alone(section.figures[0])
    write_results(results_dir / experiment, contents)
    return results_dir / experiment / "report.html"


def _prose(markdown: str) -> str:
    """A line of Markdown as the text that it shows."""
    return re.sub(r"\\([^\w\s])|[`*]", r"\1", markdown.removeprefix("- "))


def _captioned(svg: Markup, caption: str) -> Markup:
    return svg + Markup("<figcaption>{}</figcaption>").format(caption) if caption else svg


def _badge(verdict: str) -> Markup:
    kind = "" if verdict == stats.NOT_RESOLVED else verdict
    return Markup('<span class="badge {}">{}</span>').format(kind, verdict)


def _interval(low: float, high: float, form: str = "+.2f") -> str:
    return text.DASH if pd.isna(low) else f"{text.number(low, form)} to {text.number(high, form)}"


def _p_value(value: float) -> str:
    return text.DASH if pd.isna(value) else text.p_value(value).removeprefix("= ")


def _code(value: Any) -> Markup:
    return Markup("<code>{}</code>").format(value)


def _outside(change: pd.Series, chance: float) -> str:
    """How many classes differ by more than seeds alone would make them."""
    if np.isnan(chance):
        return ""
    outside = int((change.abs() > 2 * chance).sum())
    return (
        f"Band: ± {2 * chance:.1f} points, two standard deviations of what seeds alone do. {outside} of {len(change)} "
        f"classes are outside; chance would put about {round(0.0455 * len(change))} there."
    )
