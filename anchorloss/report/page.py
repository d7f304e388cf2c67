"""The page as a whole: the sections, in order, and the templates they are set in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anchorloss.analysis.comparison import NOT_RESOLVED, REFERENCE
from anchorloss.analysis.palette import Style, styles, theme
from anchorloss.report import sections, statistics_text
from anchorloss.report.data import ExperimentData, read_experiment
from anchorloss.report.figures_loss import loss_itself
from anchorloss.runs.atomic import write_results


@dataclass(frozen=True)
class Section:
    """A section: `content` computes what `templates/<name>.html` shows, or None to leave the section out.

    `results` is whether it shows results of these runs, and so carries the stamp.
    """

    name: str
    title: str
    content: Callable[[ExperimentData, dict[str, Style]], dict[str, Any] | None]
    results: bool = True


SECTIONS = (
    Section("verdict", "Better than {reference}?", sections.verdict),
    Section("table", "Beside the paper", sections.beside_the_paper),
    Section("training", "Learning curves", sections.training),
    Section("modulation", "The modulating factor over training", sections.modulation),
    Section("classes", "Class by class", sections.by_class),
    Section("confusion", "Confused classes", sections.confusion),
    Section("calibration", "Is a score a probability?", sections.calibration),
    Section("published", "The paper's own figures", sections.published, results=False),
    Section("loss", "The loss itself", loss_itself, results=False),
    Section("runs", "Every run", sections.runs),
    Section("protocol", "Protocol", sections.protocol, results=False),
)


def write_report(results_dir: Path, experiment: str, reference: str = REFERENCE) -> Path:
    """Read the records of an experiment and write `report.html` and `statistics.md` into `<results_dir>/<experiment>`.

    Every other loss is compared with `reference`.

    Returns:
        The path of the page.

    Raises:
        UserError: There is nothing to report, or the runs cannot stand in one table.
        RunError: A file cannot be written.
    """
    data = read_experiment(results_dir, experiment, reference)
    texts = {"report.html": build_page(data), "statistics.md": statistics_text.to_markdown(data)}
    folder = results_dir / experiment
    write_results(folder, {name: text.encode() for name, text in texts.items()})
    return folder / "report.html"


def build_page(data: ExperimentData) -> str:
    """Return the report as one HTML document; equal data gives equal text."""
    looks = styles(data.losses)
    shown = [
        (section, content) for section in SECTIONS if (content := section.content(data, looks)) is not None
    ]
    environment = _environment()
    css = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    return environment.get_template("page.html").render(
        data=data,
        looks=looks,
        sections=shown,
        styles=Markup(
            f":root{{color-scheme:light dark;{theme(1)}}}\n"
            f"@media (prefers-color-scheme:dark){{:root{{{theme(2)}}}}}\n{css}"
        ),
    )


@cache
def _environment() -> Environment:
    """Everything that is not a template or a figure is escaped."""
    made = Environment(
        loader=PackageLoader("anchorloss.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["NOT_RESOLVED"] = NOT_RESOLVED
    return made
