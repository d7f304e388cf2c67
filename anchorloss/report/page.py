"""The page as a whole: the sections, in order, and the templates they are set in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from anchorloss.report import class_sections, sections, statistics_text
from anchorloss.report.comparison import REFERENCE
from anchorloss.report.data import ExperimentData, read_experiment
from anchorloss.report.figures_loss import loss_itself
from anchorloss.report.palette import theme
from anchorloss.report.rendering import environment
from anchorloss.report.text import Content
from anchorloss.report.verdict import verdict
from anchorloss.runs.files import write_results


@dataclass(frozen=True)
class Section:
    """A section: `content` computes what `templates/<name>.html` shows, or None to leave the section out.

    `results` is whether it shows results of these runs, and so carries the stamp; `compares` is whether it uses
    `data.comparisons`, so that one process computes those.
    """

    name: str
    title: str
    content: Callable[[ExperimentData], Content | None]
    results: bool = True
    compares: bool = False


SECTIONS = (
    Section("verdict", "Better than {reference}?", verdict, compares=True),
    Section("table", "{beside}", sections.beside_the_paper),
    Section("training", "Learning curves", sections.training),
    Section("modulation", "The modulating factor over training", sections.modulation),
    Section("classes", "Class by class", class_sections.by_class),
    Section("confusion", "Confused classes", class_sections.confusion),
    Section("calibration", "Is a score a probability?", class_sections.calibration, compares=True),
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
    contents = _contents(data, processes)
    shown = [(section, contents[section.name]) for section in SECTIONS if contents[section.name] is not None]
    return environment().get_template("page.html").render(data=data, sections=shown, theme=theme())


def _contents(data: ExperimentData, processes: int) -> dict[str, Content | None]:
    """What each section shows, by name."""
    apart = [section for section in SECTIONS if not section.compares]
    # Threads of torch would be missing in the new process.
    if processes < 2 or sys.platform != "linux" or "torch" in sys.modules:
        return {section.name: section.content(data) for section in SECTIONS}
    import matplotlib.figure  # noqa: F401  # once for both

    with ProcessPoolExecutor(1, get_context("fork"), _shared.append, (data,)) as pool:
        drawn = pool.map(_content, apart)
        here = {section.name: section.content(data) for section in SECTIONS if section.compares}
        return here | dict(zip((section.name for section in apart), drawn, strict=True))


# In the process that draws the sections that compare nothing: their argument.
_shared: list[ExperimentData] = []


def _content(section: Section) -> Content | None:
    return section.content(_shared[0])
