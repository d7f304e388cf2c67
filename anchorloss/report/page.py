"""The page as a whole: which sections there are, in which order, and the frame around them."""

from __future__ import annotations

from pathlib import Path

from anchorloss.analysis.comparison import REFERENCE
from anchorloss.report import sections_answers, sections_runs, sections_scores, statistics_text
from anchorloss.report.colours import styles
from anchorloss.report.data import ExperimentData, read_experiment
from anchorloss.report.figure1 import figure1
from anchorloss.report.markup import escape
from anchorloss.report.style import stylesheet
from anchorloss.runs.atomic import write_results

# Nothing may be fetched, not even by mistake: the browser refuses every request.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_SECTIONS = (
    (
        "verdict",
        "Better than {reference}?",
        sections_scores.verdicts,
        "The claim for each loss: its Top-1 is higher than that of {reference}. Supported or contradicted only where p, "
        "corrected by Holm's method over the paper's losses, is at most 0.05; else not resolved.",
    ),
    ("table", "Beside the paper", sections_scores.beside_the_paper, ""),
    (
        "statistics",
        "The tests, and what they can see",
        sections_scores.statistics,
        "Runs of one seed share initial weights and data order, so losses are compared seed by seed where the seeds "
        "match, by Welch's test otherwise. The permutation test assumes no normal distribution, but few seeds cannot "
        "give it a small p. P(better): the chance that a run of the loss beats a run of {reference}; its bootstrap "
        "interval is too narrow for a handful of seeds.",
    ),
    (
        "published",
        "The paper's own figures",
        sections_scores.published,
        "The supplement prints mean ± std without saying over how many runs. What its differences amount to, if n "
        "runs of each loss were made and the std is the sample's:",
    ),
    (
        "training",
        "Learning curves",
        sections_runs.training,
        "Mean over seeds; band from the lowest seed to the highest.",
    ),
    (
        "modulation",
        "The modulating factor over training",
        sections_runs.modulation,
        "Quantiles over the evaluation set of the factor that multiplies each term, mean over seeds. Above 1 the loss "
        "pushes harder than BCE, below 1 more gently.",
    ),
    (
        "classes",
        "Class by class",
        sections_answers.by_class,
        "Accuracy by class minus that of {reference}, mean over seeds.",
    ),
    (
        "confusion",
        "Classes taken for each other",
        sections_answers.confusion,
        "What the loss is for: background classes that score near the target.",
    ),
    (
        "calibration",
        "Is a score a probability?",
        sections_answers.calibration,
        "Score of the predicted class (sigmoid; softmax for softmax cross entropy) against the share that is "
        "right, in 15 bins over all seeds; bars: how many images have that score. Expected calibration error: "
        "mean ± std over seeds.",
    ),
    (
        "figure1",
        "The loss itself",
        figure1,
        "Figure 1 of the supplement, drawn by the loss code. Shaded: where anchor loss exceeds BCE.",
    ),
    (
        "runs",
        "Where every number comes from",
        sections_runs.provenance,
        "The history and predictions of every finished run were checked against the SHA-256 in its record.",
    ),
    ("protocol", "Protocol", sections_runs.protocol, ""),
)


def write_report(results_dir: Path, experiment: str, reference: str = REFERENCE) -> Path:
    """Read the records of an experiment and write `<results_dir>/<experiment>/report.html`, `statistics.md` beside it.

    Every other loss is compared with `reference`.

    Raises: UserError if there is nothing to report or the runs cannot stand in one table; RunError if the
    page cannot be written.
    """
    data = read_experiment(results_dir, experiment, reference)
    texts = {"report.html": build_page(data), "statistics.md": statistics_text.to_markdown(data)}
    folder = results_dir / experiment
    write_results(folder, {name: text.encode() for name, text in texts.items()})
    return folder / "report.html"


def build_page(data: ExperimentData) -> str:
    """The report as one HTML document; equal data gives equal text."""
    looks = styles(data.losses)
    links, bodies = [], []
    for name, title, build, lead in _SECTIONS:
        body = build(data, looks)
        if body is None:
            continue
        title, lead = (text.format(reference=data.reference_label) for text in (title, lead))
        links.append(f'<li><a href="#{name}">{escape(title)}</a></li>')
        said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
        bodies.append(
            f'<section id="{name}" aria-labelledby="{name}-title" tabindex="-1">'
            f'<h2 id="{name}-title">{escape(title)}</h2>{said}{body}</section>'
        )
    table = data.table
    title = f"Anchor Loss, experiment {data.experiment}"
    stamp = " · ".join(table.labels)
    warning = ""
    if stamp:
        warning = (
            f'<span class="stamp"><b>{escape(stamp)}</b> <span>Experiment {escape(data.experiment)}. '
            f"{_reading(data)}</span></span>"
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(f"{stamp}: {title}" if stamp else title)}</title>
<link rel="icon" href="data:,">
<style>{stylesheet()}</style>
</head>
<body>
<a class="skip" href="#verdict">Skip to the verdict</a>
<header>
<h1>{escape(title)} {warning}</h1>
<p class="lead">{escape(table.protocol)} {escape(table.provenance)}</p>
<nav aria-label="Sections"><ul>
{chr(10).join(links)}
</ul></nav>
</header>
<main>
{chr(10).join(bodies)}
</main>
<footer><p>Made from run records by scripts/report.py. docs/statistics.md says how to read the
tests.</p></footer> </body> </html>
"""


def _reading(data: ExperimentData) -> str:
    if data.table.data_label == "SYNTHETIC":
        return (
            "Generated images: these numbers show that the pipeline works and say nothing about the losses."
        )
    return "Read the order of the losses and their differences, not the absolute numbers against the paper's."
