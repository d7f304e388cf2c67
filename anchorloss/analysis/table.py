"""The tables of an experiment as Markdown, LaTeX and CSV: by loss (Table 1), by settings, precision, run and epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from anchorloss.analysis import frame, paper, stats, text
from anchorloss.analysis.frame import PRIMARY, SCORES
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
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "—": "---",
}


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
    if by == "run":
        return {"runs.md": by_run(runs)}
    if by == "epoch":
        return {"curves.md": by_epoch(runs)}
    question = paper.EXPERIMENTS.get(experiment)
    if beside := beside or (question.beside if question else None):
        others = frame.runs(beside, results_dir)
        same = others["loss"].isin(runs["loss"]) & others["seed"].isin(runs["seed"])
        runs = pd.concat([runs, ended(others[same])])
    return by_settings(runs, by == "precision", reference, beside)


def ended(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a record.

    Raises:
        UserError: There is none.
    """
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
    first = basis(runs).iloc[0]
    images = f"{first['dataset.evaluation_images']:,.0f} {first['evaluated_on']} images"
    return (
        f"{data(runs)}. Accuracy in percent on the {images} after the last epoch, mean ± sample standard deviation "
        "(n - 1) over n seeds. A difference is over the seeds that a loss shares with the reference, and need not be "
        "that of the two means; its 95 % interval is not corrected for several comparisons."
    )


def scores(runs: pd.DataFrame, arms: pd.Index, column: str, within: list[str]) -> pd.DataFrame:
    """Summarise and compare the arms.

    Args:
        runs: A row a run; `base` says which are of the reference.
        arms: The arms, values of `column`.
        column: The column that tells the arms apart.
        within: Columns; arms are compared with the one arm of the reference that shares their values of them.

    Returns:
        A row for each arm: `n`, `failed`, and for each score `{score}_mean`, `_std`, `_difference`, `_low`, `_high`, `_n`
        (of `stats.compare`), and the columns of `stats.corrected` for the primary measure.
    """
    done = frame.measured(runs[runs["state"] == "finished"], SCORES)
    failed = runs.loc[runs["state"] == "failed", column].value_counts()
    table = pd.DataFrame({"n": done[column].value_counts().reindex(arms, fill_value=0)}, index=arms)
    table["failed"] = failed.reindex(arms, fill_value=0)
    for key in SCORES:
        grouped, parts = done.groupby(column)[key], []
        table[f"{key}_mean"], table[f"{key}_std"] = grouped.mean(), grouped.std()
        for _, group in done.groupby(within) if within else [((), done)]:
            base = group.loc[group["base"], column].unique()
            parts += [stats.corrected(stats.compare(group, key, base[0], column))] if len(base) == 1 else []
        found = pd.concat(parts) if parts else pd.DataFrame(columns=list(stats.COLUMNS))
        found = found.reindex(arms)
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
        means = table[f"paper_{key}_mean"]
        table[f"{key}_minus_paper"] = table[f"{key}_mean"] - means if comparable else math.nan
        table[f"paper_{key}_difference"] = (means - means.get(reference, math.nan)).where(losses != reference)
        table[f"{key}_best"] = losses == _winner(runs, key, table[f"{key}_mean"].dropna())
    return table


def _winner(runs: pd.DataFrame, score: str, means: pd.Series) -> str | None:
    """The loss with the highest mean if every other's difference from it is resolved, after Holm's correction."""
    if len(means) < 2:
        return None
    best = str(means.idxmax())
    found = stats.corrected(stats.compare(runs, score, best, names=means.index))
    return best if (found["verdict"] == stats.CONTRADICTED).all() else None


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

    shown["n"] = [_counted(row) for row in table.to_dict("records")]
    for key, name in SCORES.items():
        add(name, mean_std, f"{key}_mean", f"{key}_std")
        shown[name] = shown[name].where(~table[f"{key}_best"], shown[name].map(bold.format))
        shown[name] = shown[name].where(table["n"] + table["failed"] > 0, "not run")
    for key, name in list(SCORES.items())[: 1 if comparable else None]:
        add(
            f"{name} - {base} (95 %)",
            with_interval,
            *(f"{key}_{end}" for end in INTERVAL),
        )
    for key, name in SCORES.items():
        if comparable:
            add(f"paper {name}", mean_std, f"paper_{key}_mean", f"paper_{key}_std")
        elif table[f"paper_{key}_difference"].notna().any():
            add(f"paper {name} - {base}", number, f"paper_{key}_difference", form="+.2f")
    for key, name in SCORES.items() if comparable else ():
        add(f"{name} - paper", number, f"{key}_minus_paper", form="+.2f")
    return shown


def _counted(row: dict[Hashable, Any]) -> str:
    """The number of finished runs, of how many if some are missing, and how many failed."""
    planned = row.get("planned", row["n"])
    count = str(row["n"]) if row["n"] == planned else f"{row['n']} of {planned}"
    return f"{count} ({row['failed']} failed)" if row["failed"] else count


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
    # Delimiters that LaTeX does not use.
    environment = jinja2.Environment(
        *("<%", "%>", "<<", ">>", "<#", "#>"), trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["latex"] = lambda said: "".join(
        LATEX.get(letter, letter) for letter in text.one_line(said)
    )
    marked = cells(table, reference, "--", "\\textbf{{{}}}")
    signs = marked.map(
        lambda cell: (
            f"${cell.replace('[--]', '[$--$]')}$"
            if cell[0] in "+-" and cell != "--"
            else cell.replace("±", "$\\pm$")
        )
    )
    tex = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        caption=f"{heading}. {protocol(runs)}",
        header=list(marked),
        rows=list(zip(table["label"], signs.to_numpy().tolist(), strict=True)),
        notes=remarks,
        provenance=made,
    )
    minus = {
        "difference": f"minus_{reference}",
        "low": f"minus_{reference}_low",
        "high": f"minus_{reference}_high",
    }
    table = table.rename(
        columns={f"{key}_{end}": f"{key}_{name}" for key in SCORES for end, name in minus.items()}
    )
    table = table.rename(
        columns={f"paper_{key}_difference": f"paper_{key}_minus_{reference}" for key in SCORES}
    )
    keys = {
        "experiment": experiment,
        "data": first["dataset.label"].iloc[0],
        "evaluated_on": first["evaluated_on"].iloc[0],
    }
    counts = ["comparable_with_paper", "loss", "label", "n", "planned", "failed"]
    columns = [name.format(key, reference) for names in CSV for key in SCORES for name in names.split()]
    table = table.replace({"comparable_with_paper": {True: "true", False: "false"}})
    csv = _csv(table.reset_index().assign(**keys)[[*keys, *counts, *columns]])
    return {"table1.md": markdown, "table1.tex": tex, "table1.csv": csv}


def _markdown(shown: pd.DataFrame, name: str) -> str:
    return markdown_table([name, *shown], ([index, *row] for index, *row in shown.itertuples()))


def _csv(content: pd.DataFrame) -> str:
    """CSV with as many digits as mean something; a cell without a value is empty."""
    return content.round(DIGITS).to_csv(index=False, lineterminator="\n")


def statistics(runs: pd.DataFrame, reference: str = paper.REFERENCE) -> str:
    """Return `statistics.md` of the runs of an experiment.

    Raises:
        UserError: As `numbers`, and if a predictions.npz is damaged.
    """
    experiment, label = runs["experiment"].iloc[0], basis(runs)["dataset.label"].iloc[0]
    plan, question = paper.planned(experiment), paper.EXPERIMENTS.get(experiment)
    frame.require_one_protocol(runs[runs["state"] == "finished"])
    runs, losses = frame.measured(runs), sorted({*runs["loss"], *plan.losses}, key=frame.order)
    whole = question is not None and question.amended and not paper.interim(runs, plan)
    return text.statistics(
        runs,
        stats.verdicts(runs, reference, losses),
        f"Statistics of experiment {escape(experiment + title(runs, plan))}",
        reference,
        compare_published=label == "CIFAR-100" and question is not None,
        final=whole and reference == paper.REFERENCE,
    )


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
    kind, keys = ("precision", ["precision"]) if precision else ("setting", frame.swept(runs))
    flat = runs["settings"].map(flatten)
    columns = {key: [json.dumps(own[key]) if key in own else "absent" for own in flat] for key in keys}
    runs = runs.assign(**columns)
    frame.require_one_protocol(runs, keys)
    within, base, name = ["loss"], runs["experiment"] == beside, beside or ""
    if precision:
        base, name = runs["precision"] == '"fp32"', "fp32"
    elif reference is not None:
        frame.require_reference(reference, runs["loss"])
        base, name = runs["loss"] == reference, paper.label(reference)
        within = [key for key in keys if not key.startswith("loss.")]
    runs = runs.assign(base=base, arm=runs[["loss", *keys]].agg(", ".join, axis=1))
    arms = runs.drop_duplicates("arm").set_index("arm")[["loss", *keys]]
    places = {
        arm: (frame.order(loss), [_sortable(value) for value in row]) for arm, loss, *row in arms.itertuples()
    }
    arms = arms.loc[sorted(arms.index, key=lambda arm: places[arm])]
    table = scores(runs, arms.index, "arm", within)
    if precision and not table[f"{PRIMARY}_difference"].notna().any():
        raise UserError(
            f"experiment={runs['experiment'].iloc[0]}: no loss has finished runs in fp32 and another precision; name an "
            "experiment that has the others with --beside"
        )
    shown = arms.map(lambda value: escape(value.strip('"'))).assign(
        n=[_counted(row) for row in table.to_dict("records")]
    )
    for key, score in SCORES.items():
        shown[score] = [
            mean_std(*row) for row in table[[f"{key}_mean", f"{key}_std"]].itertuples(index=False)
        ]
    for key, score in SCORES.items() if name else ():
        rows = table[[f"{key}_{end}" for end in INTERVAL]].itertuples(index=False)
        shown[f"{score} - {escape(name)} (95 %)"] = [with_interval(*row) for row in rows]
    described = {
        arm: ", ".join(
            [loss, *(f"{key} {value.strip(chr(34))}" for key, value in zip(keys, row, strict=True))]
        )
        for arm, loss, *row in arms.itertuples()
    }
    said = [
        f"- {escape(described[arm])}: {text.explanation(one, SCORES[PRIMARY], name)}"
        for arm, one in table.dropna(subset="difference").to_dict("index").items()
    ]
    experiments = " and ".join(dict.fromkeys(runs["experiment"]))
    same = not any(key.startswith(("model.name", "optim.epochs", "data.")) for key in keys)
    markdown = document(
        f"# {escape(f'Experiment {experiments} by {kind}{title(runs)}')}",
        f"{escape(data(runs) if same else basis(runs)['dataset.label'].iloc[0])}. Accuracy in percent after the last "
        "epoch, mean ± sample standard deviation (n - 1) over n seeds.",
        _markdown(shown.set_index("loss"), "loss"),
        "\n".join([f"{SCORES[PRIMARY]}, compared with {escape(name)}:", "", *said] if said else []),
        text.made_from(runs),
    )
    wanted = [f"{key}_{end}" for key in SCORES for end in ("mean", "std", *(INTERVAL[:3] if name else ()))]
    content = pd.concat([arms.map(_plain), table[["n", "failed", *wanted]]], axis=1)
    name = "precision" if precision else "settings"
    return {f"{name}.md": markdown, f"{name}.csv": _csv(content)}


def _plain(value: str) -> Any:
    """A setting as CSV has it: text without JSON's quotes, nothing where the loss does not have the setting."""
    return None if value == "absent" else value.strip('"')


def _sortable(value: str) -> tuple[int, float, str]:
    """Numbers by size, then texts."""
    try:
        return (0, float(value), "")
    except ValueError:
        return (1, 0.0, value)


def by_run(runs: pd.DataFrame) -> str:
    """Return every run that has ended with the settings in which runs differ, its scores, times, device and commit."""
    keys, first = frame.swept(runs), runs.iloc[0]
    runs = runs.sort_values(["provenance.started", "seed"], kind="stable")
    runs = runs.sort_values("loss", key=lambda losses: losses.map(frame.order), kind="stable")
    shown = runs[["loss"]].map(escape)
    flat = runs["settings"].map(flatten)
    for key in keys:
        shown[key] = [escape(json.dumps(own[key])) if key in own else "" for own in flat]
    shown["seed"] = runs["seed"].map(str)
    for key, name in (("top1", "Top-1"), ("top5", "Top-5")):
        shown[name] = runs[key].map(lambda score: number(score, dash="failed"))
    for key, name in (("started", "began"), ("finished", "ended")):
        shown[name] = runs[f"provenance.{key}"].map(lambda time: escape(time.replace("+00:00", "Z")))
    shown["took"] = runs["provenance.duration_seconds"].map(text.duration)
    shown["device"] = runs["provenance.device"].map(escape)
    shown["commit"] = [
        short_commit(*one) for one in runs[["provenance.commit", "provenance.dirty"]].to_numpy()
    ]
    sets = f"{first['dataset.evaluation_images']:,.0f} {', '.join(sorted(set(runs['evaluated_on'])))} images"
    return document(
        f"# Every run of experiment {first['experiment']}",
        f"{first['dataset.label']}, {first['dataset.training_images']:,.0f} training images; accuracies in percent on "
        f"the {sets} after the last epoch.",
        _markdown(shown.set_index("loss"), "loss"),
        text.made_from(runs),
    )


def by_epoch(runs: pd.DataFrame) -> str:
    """Return every epoch of every run that has ended.

    Raises:
        UserError: Two runs differ in more than loss and seed, or a history is damaged.
    """
    frame.require_one_protocol(runs)
    history, first = frame.histories_of(runs), runs.iloc[0]
    named = {"train_loss": "training loss", "train_top1": "training Top-1", "test_loss": "loss", **SCORES}
    shown = pd.DataFrame({"epoch": history["epoch"].map(str)})
    shown["learning rate"] = history["learning_rate"].map("{:.4g}".format)
    for key in history.columns.intersection(list(named), sort=False):
        shown[named[key]] = history[key].map(lambda value: number(value, dash=""))
    failed = [
        f"failed: {run['loss']} seed {run['seed']}: {why}"
        for run in runs.to_dict("records")
        if (why := text.failure(run))
    ]
    return document(
        f"# Every epoch of experiment {first['experiment']}",
        f"**{escape(' - '.join([first['dataset.label'], *paper.stamps(runs)]))}**",
        f"{first['dataset.training_images']:,.0f} training images. Accuracies in percent: those of training on augmented "
        f"images while training, the others on the {first['dataset.evaluation_images']:,.0f} {first['evaluated_on']} "
        "images after the epoch; the losses are a sample's mean, on the same images.",
        _markdown(shown.set_axis(history["loss"] + " seed " + history["seed"].map(str)), "run"),
        *map(escape, failed),
        text.made_from(runs),
    )
