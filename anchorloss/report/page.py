"""The page as a whole: the sections, in order, and the templates they are set in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
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

    `results` is whether it shows results of these runs, and so carries the stamp; `compares` is whether it uses
    `data.comparisons`, so that one process computes those.
    """

    name: str
    title: str
    content: Callable[[ExperimentData, dict[str, Style]], dict[str, Any] | None]
    results: bool = True
    compares: bool = False


SECTIONS = (
    Section("verdict", "Better than {reference}?", sections.verdict, compares=True),
    Section("table", "Beside the paper", sections.beside_the_paper),
    Section("training", "Learning curves", sections.training),
    Section("modulation", "The modulating factor over training", sections.modulation),
    Section("classes", "Class by class", sections.by_class),
    Section("confusion", "Confused classes", sections.confusion),
    Section("calibration", "Is a score a probability?", sections.calibration, compares=True),
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
    texts = {"report.html": build_page(data, processes=2), "statistics.md": statistics_text.to_markdown(data)}
    folder = results_dir / experiment
    write_results(folder, {name: text.encode() for name, text in texts.items()})
    return folder / "report.html"


def build_page(data: ExperimentData, processes: int = 1) -> str:
    """Return the report as one HTML document; equal data gives equal text.

    Args:
        data: What it is made from.
        processes: 2: share the drawing with a process forked from this one, which must have no other thread. Where that
            cannot be done, this one draws everything.
    """
    looks = styles(data.losses)
    contents = _contents(data, looks, processes)
    shown = [(section, contents[section.name]) for section in SECTIONS if contents[section.name] is not None]
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


def _contents(
    data: ExperimentData, looks: dict[str, Style], processes: int
) -> dict[str, dict[str, Any] | None]:
    """What each section shows, by name."""
    apart = [section for section in SECTIONS if not section.compares]
    # Threads of torch would be missing in the new process.
    if processes < 2 or sys.platform != "linux" or "torch" in sys.modules:
        return {section.name: section.content(data, looks) for section in SECTIONS}
    import matplotlib.figure  # noqa: F401  # once for both

    with ProcessPoolExecutor(
        1, get_context("fork"), _shared.update, ({"data": data, "looks": looks},)
    ) as pool:
        drawn = pool.map(_content, apart)
        here = {section.name: section.content(data, looks) for section in SECTIONS if section.compares}
        return here | dict(zip((section.name for section in apart), drawn, strict=True))


# In the process that draws the sections that compare nothing: the arguments of their `content`.
_shared: dict[str, Any] = {}


def _content(section: Section) -> dict[str, Any] | None:
    return section.content(_shared["data"], _shared["looks"])


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
