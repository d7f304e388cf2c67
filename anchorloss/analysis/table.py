"""The tables of an experiment as Markdown, LaTeX and CSV: by loss (Table 1), by settings, precision, run and epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from anchorloss.analysis import frame, paper, stats, text
from anchorloss.analysis.frame import MEASURES, PRIMARY, SCORES
from anchorloss.analysis.paper import NO_PLAN, Plan
from anchorloss.analysis.text import DASH, document, escape, markdown_table, mean_std, number, with_interval
from anchorloss.errors import UserError
from anchorloss.runs.differences import flatten
from anchorloss.runs.provenance import short_commit

KINDS = ("loss", "settings", "precision", "run", "epoch")
TEMPLATE = Path(__file__).with_name("table1.tex.j2")
INTERVAL = ("difference", "low", "high", "n")
DIGITS = 4  # of percentages in CSV files: 0.01 is one image of 10,000
CSV = (  # columns of table1.csv; 0 is a score, 1 the reference
    *("{0}_mean {0}_std", "paper_{0}_mean paper_{0}_std", "{0}_minus_paper", "{0}_minus_{1}"),
    *("paper_{0}_minus_{1}", "{0}_minus_{1}_low {0}_minus_{1}_high"),
)
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
        "—": "---",
    }
)


def make(
    results_dir: Path,
    experiment: str,
    by: str | None = None,
    reference: str | None = None,
    beside: str | None = None,
) -> dict[str, str]:
    """Make a table of an experiment.

    Args:
        results_dir: The results folder.
        experiment: Its name.
        by: One of `KINDS`; by default `loss`, or `settings` where runs of one loss differ in more than the seed.
        reference: The loss to compare with; by default BCE in Table 1, in other tables none.
        beside: A further experiment whose runs, of the same losses and seeds, stand beside these in a table by settings
            or precision; by default the one that `paper.EXPERIMENTS` names.

    Returns:
        Name of a file -> its text; the Markdown comes first.

    Raises:
        UserError: No run has ended, runs cannot stand in one table, or the reference has no run.
    """
    runs = frame.runs(experiment, results_dir)
    if by is None:
        by = "settings" if frame.swept(runs[runs["state"] == "finished"]) else "loss"
    if by == "loss":
        return by_loss(runs, reference or paper.REFERENCE)
    runs = ended(runs)
    if by in ("run", "epoch"):
        return {"runs.md": by_run(runs)} if by == "run" else {"curves.md": by_epoch(runs)}
    question = paper.EXPERIMENTS.get(experiment)
    if beside := beside or (question.beside if question else None):
        others = frame.runs(beside, results_dir)
        same = others["loss"].isin(runs["loss"]) & others["seed"].isin(runs["seed"])
        runs = pd.concat([runs, ended(others[same])])
    return by_settings(runs, by == "precision", reference, beside)


def ended(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a record. Raises UserError if there is none."""
    found = runs[runs["state"].isin(["finished", "failed"])]
    if found.empty:
        experiment = "".join(runs["experiment"].iloc[:1])
        raise UserError(
            f"experiment={experiment}: none of the {len(runs)} runs has ended, so there is no table; "
            f"run python train.py experiment={experiment}"
        )
    return found


def basis(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that a table rests on: the finished ones, or the failed ones where none has finished."""
    found = ended(runs)
    return found[found["state"] == "finished"] if (found["state"] == "finished").any() else found


def title(runs: pd.DataFrame, plan: Plan = NO_PLAN) -> str:
    """Return what follows an experiment's name in a title: what its runs are not, whether planned seeds are missing."""
    return "".join(f" - {said}" for said in [*paper.stamps(basis(runs)), paper.interim(runs, plan)] if said)


def data(runs: pd.DataFrame) -> str:
    """Return what was trained on what: "CIFAR-100, resnet20, 40 epochs, 50,000 training images"."""
    first = basis(runs).iloc[0]
    images = f"{first['dataset.training_images']:,.0f} training images"
    return f"{first['dataset.label']}, {first['model']}, {first['epochs']:.0f} epochs, {images}"


def protocol(runs: pd.DataFrame) -> str:
    """Return the paragraph above Table 1."""
    return (
        f"{data(runs)}. Accuracy in percent on the {_evaluated(basis(runs))} after the last epoch, mean ± sample "
        "standard deviation (n - 1) over n seeds. A difference is over the seeds that a loss shares with the reference, "
        "and need not be that of the two means; its 95 % interval is not corrected for several comparisons."
    )


def _evaluated(runs: pd.DataFrame) -> str:
    sets = ", ".join(sorted(set(runs["evaluated_on"])))
    return f"{runs['dataset.evaluation_images'].iloc[0]:,.0f} {sets} images"


def scores(runs: pd.DataFrame, arms: pd.Index, column: str, within: list[str]) -> pd.DataFrame:
    """Summarise the arms, values of `column`, and compare each with the one arm of the reference in its group.

    Args:
        runs: A row a run; `base` says which are of the reference.
        arms: The arms, in order.
        column: The column that tells the arms apart.
        within: Columns that tell the groups apart.

    Returns:
        A row for each arm: `n`, `failed`, and for each score `{score}_mean`, `_std`, `_difference`, `_low`, `_high`, `_n`
        (of `stats.compare`), and the columns of `stats.corrected` for the primary measure.
    """
    done = frame.measured(runs[runs["state"] == "finished"], SCORES)
    failed = runs.loc[runs["state"] == "failed", column].value_counts()
    table = pd.DataFrame({"n": done[column].value_counts().reindex(arms, fill_value=0)}, index=arms)
    table["failed"] = failed.reindex(arms, fill_value=0)
    for key in SCORES:
        grouped, parts = done.groupby(column)[key], [pd.DataFrame(columns=list(stats.COLUMNS), dtype=object)]
        table[f"{key}_mean"], table[f"{key}_std"] = grouped.mean(), grouped.std()
        for _, group in done.groupby(within) if within else [((), done)]:
            base = group.loc[group["base"], column].unique()
            parts += [stats.corrected(stats.compare(group, key, base[0], column))] if len(base) == 1 else []
        found = pd.concat([part for part in parts if len(part)] or parts).reindex(arms)
        for end in INTERVAL:
            table[f"{key}_{end}"] = found[end].astype(float)
        table = table if key != PRIMARY else table.join(found.drop(columns=["n"]))
    return table


def numbers(runs: pd.DataFrame, reference: str = paper.REFERENCE, plan: Plan = NO_PLAN) -> pd.DataFrame:
    """Compute all that Table 1 says.

    Returns:
        The columns of `scores` with a row for each loss, planned ones included, and `label`, `planned`,
        `comparable_with_paper`; for each score `paper_{score}_mean` and `_std`, `paper_{score}_difference`,
        `{score}_minus_paper` where comparable, and `{score}_best`: whether it is the highest mean, resolved from every
        other. What is not known is NaN.

    Raises:
        UserError: No run has ended, or finished ones differ in more than loss and seed.
    """
    runs = frame.measured(runs, SCORES)
    experiment, first = runs["experiment"].iloc[0], basis(runs)
    frame.require_one_protocol(runs[runs["state"] == "finished"])
    losses = pd.Index(sorted({*runs["loss"], *plan.losses}, key=frame.order), name="loss")
    table = scores(runs.assign(base=runs["loss"] == reference), losses, "loss", [])
    table["label"], table["planned"] = losses.map(paper.label), len({*runs["seed"], *plan.seeds})
    table["comparable_with_paper"] = comparable = experiment in paper.EXPERIMENTS and not paper.stamps(first)
    published = paper.published(experiment, first["dataset.label"].iloc[0]).reindex(losses)
    for key in SCORES:
        for part in ("mean", "std"):
            table[f"paper_{key}_{part}"] = published.get(f"{key}_{part}", math.nan)
        means, ours = table[f"paper_{key}_mean"], table[f"{key}_mean"]
        table[f"{key}_minus_paper"] = ours - means if comparable else math.nan
        table[f"paper_{key}_difference"] = (means - means.get(reference, math.nan)).where(losses != reference)
        best = str(ours.idxmax()) if ours.notna().sum() > 1 else ""
        others = stats.corrected(stats.compare(runs, key, best, names=ours.dropna().index))
        table[f"{key}_best"] = (losses == best) & bool((others["verdict"] == stats.CONTRADICTED).all())
    return table


def cells(
    table: pd.DataFrame, reference: str = paper.REFERENCE, dash: str = DASH, bold: str = "**{}**"
) -> pd.DataFrame:
    """Return Table 1 as text, a row for each loss.

    Beside our scores stand the paper's where they may be compared, else its differences, where it has any.
    """
    shown, base = pd.DataFrame(index=table.index), paper.label(reference)
    comparable = bool(table["comparable_with_paper"].any())

    def add(name: str, write: Any, *keys: str, **options: str) -> None:
        shown[name] = [write(*row, dash=dash, **options) for row in table[list(keys)].itertuples(index=False)]

    shown["n"] = _counted(table)
    for key, name in SCORES.items():
        add(name, mean_std, f"{key}_mean", f"{key}_std")
        shown[name] = shown[name].where(~table[f"{key}_best"], shown[name].map(bold.format))
        shown[name] = shown[name].where(table["n"] + table["failed"] > 0, "not run")
    for key, name in list(SCORES.items())[: 1 if comparable else None]:
        add(f"{name} - {base} (95 %)", with_interval, *(f"{key}_{end}" for end in INTERVAL))
    for key, name in SCORES.items():
        if comparable:
            add(f"paper {name}", mean_std, f"paper_{key}_mean", f"paper_{key}_std")
        elif table[f"paper_{key}_difference"].notna().any():
            add(f"paper {name} - {base}", number, f"paper_{key}_difference", form="+.2f")
    for key, name in SCORES.items() if comparable else ():
        add(f"{name} - paper", number, f"{key}_minus_paper", form="+.2f")
    return shown


def _counted(table: pd.DataFrame) -> list[str]:
    """The number of finished runs, of how many if some are missing, and how many failed."""
    counts = zip(table["n"], table.get("planned", table["n"]), table["failed"], strict=True)
    return [
        f"{n}{f' of {planned}' if n != planned else ''}{f' ({failed} failed)' if failed else ''}"
        for n, planned, failed in counts
    ]


def notes(runs: pd.DataFrame, plan: Plan = NO_PLAN) -> list[str]:
    """List every run that is not in the means, and every planned one that is not there at all."""
    said, seen = [], set(runs["seed"])
    for loss in sorted({*runs["loss"], *plan.losses}, key=frame.order):
        own = runs[runs["loss"] == loss]
        for name, run in own[own["state"] != "finished"].to_dict("index").items():
            said.append(": ".join(filter(None, (run["state"], str(name), text.failure(run)))))
        if own.empty:
            said.append(f"not run: {loss}")
            continue
        absent = sorted({*seen, *plan.seeds} - set(own["seed"]))
        for there, remark in ((True, ", which other losses have"), (False, "")):
            if missing := [seed for seed in absent if (seed in seen) is there]:
                plural = "s" if len(missing) > 1 else ""
                said.append(f"not run: {loss} seed{plural} {', '.join(map(str, missing))}{remark}")
    return said


def by_loss(runs: pd.DataFrame, reference: str = paper.REFERENCE) -> dict[str, str]:
    """Return Table 1 as `table1.md`, `.tex` and `.csv`."""
    experiment = runs["experiment"].iloc[0]
    if reference != paper.REFERENCE:
        frame.require_reference(reference, runs["loss"])
    plan, first = paper.planned(experiment), basis(runs)
    table, remarks = numbers(runs, reference, plan), notes(runs, plan)
    heading, made = f"Table 1, experiment {experiment}{title(runs, plan)}", text.made_from(runs)
    shown, stamps = cells(table, reference), ", ".join(paper.stamps(first))
    caveat = f"Compare only the differences from {paper.label(reference)} with the paper's: {escape(stamps)}."
    markdown = document(
        f"# {escape(heading)}",
        escape(protocol(runs)),
        _markdown(shown.set_axis(table["label"].map(escape)), "loss"),
        caveat if stamps and any(str(name).startswith("paper ") for name in shown) else "",
        "\n".join(["Not in the means:", "", *(f"- {escape(said)}" for said in remarks)] if remarks else []),
        made,
    )
    minus = {end: f"minus_{reference}{'' if end == 'difference' else f'_{end}'}" for end in INTERVAL[:3]}
    names = {f"{key}_{end}": f"{key}_{name}" for key in SCORES for end, name in minus.items()}
    names |= {f"paper_{key}_difference": f"paper_{key}_minus_{reference}" for key in SCORES}
    content = table.reset_index().rename(columns=names).assign(experiment=experiment)
    content[["data", "evaluated_on"]] = first[["dataset.label", "evaluated_on"]].iloc[0].tolist()
    content["comparable_with_paper"] = content["comparable_with_paper"].map({True: "true", False: "false"})
    columns = [
        "experiment",
        "data",
        "evaluated_on",
        "comparable_with_paper",
        "loss",
        "label",
        "n",
        "planned",
        "failed",
    ]
    columns += [name.format(key, reference) for names in CSV for key in SCORES for name in names.split()]
    tex = _latex(table, reference, caption=f"{heading}. {protocol(runs)}", notes=remarks, provenance=made)
    return {"table1.md": markdown, "table1.tex": tex, "table1.csv": _csv(content[columns])}


def _latex(table: pd.DataFrame, reference: str, **said: Any) -> str:
    """Table 1 as a LaTeX `table` for the booktabs package."""
    shown = cells(table, reference, "--", "\\textbf{{{}}}")
    signed = shown.replace(r"^([+-]\d.*)$", r"$\1$", regex=True).replace(r"\[--\]", "[$--$]", regex=True)
    signed = signed.replace("±", r"$\\pm$", regex=True)
    # Delimiters that LaTeX does not use.
    delimiters = ("<%", "%>", "<<", ">>", "<#", "#>")
    environment = jinja2.Environment(*delimiters, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["latex"] = lambda one: text.one_line(one).translate(LATEX)
    rows = list(zip(table["label"], signed.to_numpy().tolist(), strict=True))
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(header=list(shown), rows=rows, **said)


def _markdown(shown: pd.DataFrame, name: str) -> str:
    return markdown_table([name, *shown], ([index, *row] for index, *row in shown.itertuples()))


def _csv(content: pd.DataFrame) -> str:
    """CSV with as many digits as mean something; a cell without a value is empty."""
    return content.round(DIGITS).to_csv(index=False, lineterminator="\n")


def statistics(runs: pd.DataFrame, reference: str = paper.REFERENCE) -> str:
    """Return `statistics.md`: every loss against the reference in every measure, in plain words.

    Raises:
        UserError: As `numbers`, and if a predictions.npz is damaged.
    """
    experiment, label = runs["experiment"].iloc[0], basis(runs)["dataset.label"].iloc[0]
    plan, of_paper = paper.planned(experiment), len(paper.published(experiment, label)) > 0
    frame.require_one_protocol(runs[runs["state"] == "finished"])
    runs, losses = frame.measured(runs), sorted({*runs["loss"], *plan.losses}, key=frame.order)
    found, base = stats.verdicts(runs, reference, losses), escape(paper.label(reference))
    parts = [f"# Statistics of experiment {escape(experiment + title(runs, plan))}"]
    for key, measure in MEASURES.items():
        lines = []
        rows = found[found.index.get_level_values("measure") == key].droplevel("measure")
        for loss, one in zip(rows.index.astype(str), rows.to_dict("records"), strict=True):
            claimed = paper.published_difference(loss, key, reference) if of_paper else math.nan
            said = text.explanation(one, measure.name, base, claimed)
            verdict = f"{one['verdict']}{' (exploratory)' if one['exploratory'] else ''}"
            lines.append(f"- {escape(paper.label(loss))}: {verdict}. {said}")
            if key == "ece" and not math.isnan(one["difference"]):
                both = stats.samples(runs, "score_gap", loss, reference)[:2]
                own, other = (number(gaps.mean(), "+.2f") for gaps in both)
                lines[-1] += f" Mean score minus accuracy: {own} points, {base} {other}."
        kind = "primary measure" if key == PRIMARY else "secondary measure"
        kind += "; lower is better" if measure.lower_is_better else ""
        parts.append(f"{measure.name[0].upper()}{measure.name[1:]} ({kind}), better than {base}:")
        parts.append("\n".join(lines))
    if found["exploratory"].any():
        parts.append("Exploratory: not planned before these runs were seen (docs/protocol.md).")
    if paper.amended(runs, plan, reference):
        parts += text.amendment(runs)
    return document(*parts, text.made_from(runs))


def by_settings(
    runs: pd.DataFrame, precision: bool = False, reference: str | None = None, beside: str | None = None
) -> dict[str, str]:
    """Return a row for each loss and combination of the settings in which runs differ, as Markdown and CSV.

    Compared are, by `precision`, each loss's other precisions with fp32; with a `reference`, the other losses at the same
    settings; else with `beside`, the runs of each loss with those of that experiment. The settings of the losses
    themselves (`loss.gamma`) make no difference between losses.

    Raises:
        UserError: Runs saw different data, the reference has no run, or there is no second precision.
    """
    experiment = " and ".join(dict.fromkeys(runs["experiment"]))
    kind, keys = ("precision", ["precision"]) if precision else ("setting", frame.swept(runs))
    frame.require_one_protocol(runs, keys)
    flat = runs["settings"].map(flatten)
    runs = runs.assign(**{key: [_value(own.get(key, "absent")) for own in flat] for key in keys})
    within, base, name = ["loss"], runs["experiment"] == beside, beside or ""
    if precision:
        base, name = runs["precision"] == "fp32", "fp32"
    elif reference is not None:
        frame.require_reference(reference, runs["loss"])
        base, name = runs["loss"] == reference, paper.label(reference)
        within = [key for key in keys if not key.startswith("loss.")]
    said = [runs["loss"], *(key + " " + runs[key] for key in keys)]
    runs = runs.assign(base=base, arm=[", ".join(one) for one in zip(*said, strict=True)])
    arms = runs.drop_duplicates("arm").set_index("arm")[["loss", *keys]]
    arms = arms.loc[sorted(arms.index, key=lambda arm: [_sortable(str(value)) for value in arms.loc[arm]])]
    table = scores(runs, arms.index, "arm", within)
    compared = table.dropna(subset="difference").to_dict("index")
    if precision and not compared:
        raise UserError(
            f"experiment={experiment}: no loss has finished runs in fp32 and another precision; name an experiment that "
            "has the others with --beside"
        )
    shown, lines = arms.map(escape).assign(n=_counted(table)), []
    for key, score in SCORES.items():
        shown[score] = [mean_std(*row) for row in table[[f"{key}_mean", f"{key}_std"]].to_numpy()]
    for key, score in SCORES.items() if name else ():
        rows = table[[f"{key}_{end}" for end in INTERVAL]].to_numpy()
        shown[f"{score} - {escape(name)} (95 %)"] = [with_interval(*row) for row in rows]
    for arm, one in compared.items():
        lines.append(f"- {escape(str(arm))}: {text.explanation(one, SCORES[PRIMARY], name)}")
    same = not any(key.startswith(("model.name", "optim.epochs", "data.")) for key in keys)
    markdown = document(
        f"# {escape(f'Experiment {experiment} by {kind}{title(runs)}')}",
        f"{escape(data(runs) if same else basis(runs)['dataset.label'].iloc[0])}. Accuracy in percent after the last "
        "epoch, mean ± sample standard deviation (n - 1) over n seeds.",
        _markdown(shown.set_index("loss"), "loss"),
        "\n".join([f"{SCORES[PRIMARY]}, compared with {escape(name)}:", "", *lines] if lines else []),
        text.made_from(runs),
    )
    ends = ("mean", "std", *(INTERVAL[:3] if name else ()))
    columns = ["n", "failed", *(f"{key}_{end}" for key in SCORES for end in ends)]
    file = "precision" if precision else "settings"
    return {f"{file}.md": markdown, f"{file}.csv": _csv(arms.replace("absent", None).join(table[columns]))}


def _value(value: Any) -> str:
    """A setting as a table has it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _sortable(value: str) -> tuple[float, tuple[int, str]]:
    """Numbers by size, then texts: the paper's losses in its order, others by name."""
    found = pd.to_numeric(value, errors="coerce")
    return (math.inf if pd.isna(found) else float(found), frame.order(value))


def by_run(runs: pd.DataFrame) -> str:
    """Return every run that has ended with the settings in which runs differ, its scores, times, device and commit."""
    runs = runs.sort_values(["provenance.started", "seed"], kind="stable")
    runs = runs.sort_values("loss", key=lambda losses: losses.map(frame.order), kind="stable")
    shown, flat = runs[["loss"]].map(escape), runs["settings"].map(flatten)
    for key in frame.swept(runs):
        shown[key] = [escape(json.dumps(own[key])) if key in own else "" for own in flat]
    shown["seed"] = runs["seed"].map(str)
    for key, name in SCORES.items():
        shown[name] = frame.measured(runs, [key])[key].map(lambda score: number(score, dash="failed"))
    for key, name in (("started", "began"), ("finished", "ended")):
        shown[name] = runs[f"provenance.{key}"].map(lambda time: escape(time.replace("+00:00", "Z")))
    shown["took"] = runs["provenance.duration_seconds"].map(text.duration)
    shown["device"] = runs["provenance.device"].map(escape)
    versions = zip(runs["provenance.commit"], runs["provenance.dirty"], strict=True)
    shown["commit"] = [short_commit(*version) for version in versions]
    first = runs.iloc[0]
    return document(
        f"# Every run of experiment {first['experiment']}",
        f"{first['dataset.label']}, {first['dataset.training_images']:,.0f} training images; accuracies in percent on "
        f"the {_evaluated(runs)} after the last epoch.",
        _markdown(shown.set_index("loss"), "loss"),
        text.made_from(runs),
    )


def by_epoch(runs: pd.DataFrame) -> str:
    """Return every epoch of every run that has ended. Raises UserError if two differ in more than loss and seed."""
    frame.require_one_protocol(runs)
    history, first = frame.histories_of(runs), runs.iloc[0]
    named = {"train_loss": "training loss", "train_top1": "training Top-1", "test_loss": "loss", **SCORES}
    shown = pd.DataFrame({"epoch": history["epoch"].map(str)})
    shown["learning rate"] = history["learning_rate"].map("{:.4g}".format)
    for key in history.columns.intersection(list(named), sort=False):
        shown[named[key]] = history[key].map(lambda value: number(value, dash=""))
    failed = runs[runs["state"] == "failed"].to_dict("records")
    return document(
        f"# Every epoch of experiment {first['experiment']}",
        f"**{escape(' - '.join([first['dataset.label'], *paper.stamps(runs)]))}**",
        f"{first['dataset.training_images']:,.0f} training images. Accuracies in percent: those of training on "
        f"augmented images while training, the others on the {_evaluated(runs)} after the epoch; the losses are a "
        "sample's mean, on the same images.",
        _markdown(shown.set_axis(history["loss"] + " seed " + history["seed"].map(str)), "run"),
        *(escape(f"failed: {run['loss']} seed {run['seed']}: {text.failure(run)}") for run in failed),
        text.made_from(runs),
    )
