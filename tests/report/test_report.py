"""The report as a file: made by the command from records alone, whole, honest, the same every time."""

from __future__ import annotations

import cProfile
import dataclasses
import itertools
import os
import pstats
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from anchorloss.errors import UserError
from anchorloss.report.calibration import FEWEST_IMAGES, pool, reliability
from anchorloss.report.data import ExperimentData, read_experiment
from anchorloss.report.figures_classes import reliability_diagram
from anchorloss.report.figures_training import factors
from anchorloss.report.page import build_page, write_report
from anchorloss.report.stats import summarise
from anchorloss.report.text import DASH
from anchorloss.runs.folder import read_runs
from tests.commands import call
from tests.fake_runs import FACTORS, make_runs
from tests.run_folders import finish_run, make_settings, with_provenance

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Ids, links, headings, tables (caption -> rows of cell texts) and the text of each picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.headings: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[str] = []
        self.named: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes.update(given)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        for key in ("href", "xlink:href", "src"):
            if key in given:
                (self.links if given[key].startswith("#") else self.addresses).append(given[key])
        self.links += [
            f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", " ".join(map(str, given.values())))
        ]
        self.links += [f"#{given[key]}" for key in ("aria-labelledby",) if key in given]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag == "caption":
            self._caption = ""
        if tag == "svg":
            assert given["aria-label"]
            self.pictures.append("")
            self.named.append(given["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption.strip()] = self._rows

    def handle_data(self, data):
        if any(re.fullmatch("h[1-6]", tag) for tag in self.open):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        if "svg" in self.open:
            self.pictures[-1] += data
        elif "caption" in self.open and "span" not in self.open:
            self._caption += data
        elif self.open and any(tag in self.open for tag in ("td", "th")):
            self._rows[-1][-1] += data


def unstamped(text: str, stamp: str) -> list[str]:
    """The sections without a stamp; those that show no result of these runs may be among them."""
    sections = re.findall(r'<section id="(\w+)".*?</section>', text, flags=re.DOTALL)
    bodies = re.findall(r"<section.*?</section>", text, flags=re.DOTALL)
    return [name for name, body in zip(sections, bodies, strict=True) if body.count(stamp) != 1]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    make_runs(
        folder,
        "quick",
        images=500,
        epochs=6,
        failed={("anchor_both", 3)},
        waiting={("anchor_target", 4)},
        missing={("anchor_target", 3)},
    )
    make_runs(folder, "table1", seeds=range(3), images=1000, data="cifar100", model="resnet110", epochs=200)
    return folder


@pytest.fixture(scope="module")
def data(results) -> ExperimentData:
    return read_experiment(results, "quick")


@pytest.fixture(scope="module")
def text(data) -> str:
    return build_page(data)


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_deleting_and_rebuilding_gives_the_same_bytes_in_any_process(results):
    """Strings hash otherwise in each process, and with them sets are in another order."""
    path = write_report(results, "quick")
    first = path.read_bytes()
    path.unlink()
    command = [sys.executable, ROOT / "scripts" / "report.py", "--experiment", "quick"]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [*command, "--results-dir", results],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}\n"
    assert path.read_bytes() == first


def test_the_page_needs_no_torch_and_no_data_set(results, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "class Without:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision'): raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from anchorloss.report.page import write_report; write_report(Path(sys.argv[1]), 'quick')"
    )
    shutil.copytree(results / "runs" / "quick", tmp_path / "runs" / "quick")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "quick" / "report.html").read_text(encoding="utf-8")
    assert "Left out: Figure 1" in page
    assert "(i) Modulate" not in page


def test_the_page_is_whole_and_asks_nothing_of_anyone(page, text):
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.addresses == ["data:,"]
    assert not page.tags & {"script", "img", "iframe", "object", "image"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/1999/xlink"}


def test_headings_form_an_outline(page):
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_colour_of_a_picture_comes_from_the_theme(text):
    for picture in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b|(fill|stroke): (black|white)", picture)


def test_every_figure_of_training_has_its_title_and_axis(text):
    over_epochs = [
        picture for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if ">epoch" in picture
    ]
    titles = [re.search(r"font-weight: 700[^>]*>([^<]+)<", picture) for picture in over_epochs]
    named = {title[1] for title in titles if title is not None}
    wanted = {"Top-1, evaluation", "Top-1 minus BCE, same seed", "Top-1, training"}
    assert named >= wanted | {"Factor on the target term", "Factor on the background term"}


def test_the_table_is_the_records_mean_and_std(page, results):
    rows = {row[0]: row for row in page.tables["Table 1"]}
    for loss, label in (("bce", "BCE"), ("anchor_bg", "(ii) background"), ("anchor_target", "(i) target")):
        records = [run.record for run in read_runs(results, "quick") if run.loss == loss and run.record]
        for column, score in ((2, "top1"), (3, "top5")):
            found = summarise({record.seed: getattr(record, score) for record in records})
            assert rows[label][column] == f"{found.mean:.2f} ± {found.std:.2f}"
    assert [rows[label][1] for label in ("BCE", "(i) target", "(iii) both")] == [
        "5",
        "3 of 5",
        "4 of 5 (1 failed)",
    ]
    assert rows["(ii) background"][5:7] == ["74.25 ± 0.34", "92.62 ± 0.50"]


def test_the_papers_figures_are_judged_under_assumed_runs(page):
    rows = {row[0]: row for row in page.tables["The paper's Top-1 against its BCE"]}
    best = rows["(ii) background"]
    assert [best[2], best[5], best[8]] == ["1.6", "2.0", "2.9"]
    assert [best[4], best[7], best[10]] == ["not resolved", "not resolved", "supported"]
    assert best[11] == "11"


def test_synthetic_results_say_so_in_the_headline_and_once_in_every_section(page, text):
    assert "SYNTHETIC" in page.headings[0][1]
    assert len(page.pictures) > 10
    # The first section is right below the headline.
    assert unstamped(text, "SYNTHETIC data") == ["verdict", "published", "loss", "protocol"]


def test_a_reduced_protocol_says_so_in_the_headline_and_in_every_section(tmp_path):
    make_runs(tmp_path, "small", seeds=range(2), images=300, epochs=4, data="cifar100")
    text = build_page(read_experiment(tmp_path, "small"))
    small = Page(text)
    assert "NOT THE FULL PROTOCOL (resnet20, 4 epochs)" in small.headings[0][1]
    assert unstamped(text, "NOT THE FULL PROTOCOL") == ["verdict", "published", "loss", "protocol"]
    assert "Top-1, paper, not comparable" in small.tables["Table 1"][0]
    assert "Top-1 minus paper" not in small.tables["Table 1"][0]


def test_the_full_protocol_carries_no_stamp_and_is_held_against_the_paper(results):
    text = build_page(read_experiment(results, "table1"))
    full = Page(text)
    assert "PROTOCOL" not in text
    assert "Top-1 minus paper" in full.tables["Table 1"][0]


def test_missing_failed_and_waiting_runs_are_shown(text, page, results):
    assert "anchor_target seed 3" in text
    assert "non-finite loss in epoch 3, step 17" in text
    states = {row[-1]: row[2] for row in page.tables["Every run"][1:]}
    assert states == {run.name: run.state for run in read_runs(results, "quick")}
    assert sorted(set(states.values())) == ["failed", "finished", "waiting"]


def test_each_run_names_its_commit_and_device_and_the_page_its_data(page, results):
    rows = page.tables["Every run"][1:]
    assert (
        sum("0123456789 with local changes" in row for row in rows) == 3
    )  # seed 4 of three losses; the fourth waits
    assert all(row[7] == "CPU (2 threads)" for row in rows if row[2] == "finished")
    settings = dict(page.tables["Shared by all runs"][1:])
    assert settings["data checksum"] == "SYNTHETIC:1"
    assert settings["optim.batch_size"] == "128"


def test_one_seed_shows_no_spread_and_no_interval(tmp_path):
    make_runs(tmp_path, "one", seeds=[0], images=300, epochs=4)
    one = Page(build_page(read_experiment(tmp_path, "one")))
    assert re.fullmatch(rf"\d\d\.\d\d ± {DASH}", one.tables["Table 1"][1][2])
    for row in one.tables["Top-1 minus BCE, points"][1:]:
        assert row[3:9] == [DASH] * 6
        assert row[9] == "not resolved"


@pytest.mark.parametrize(
    "arguments",
    [
        {"losses": ["softmax"], "seeds": [0]},
        {"losses": ["bce", "anchor_bg"], "failed": {("bce", 0), ("anchor_bg", 0)}, "seeds": [0]},
        {"losses": ["bce", "anchor_bg"], "waiting": {("bce", 0), ("bce", 1)}, "seeds": [0, 1]},
        {"losses": ["bce", "anchor_bg"], "seeds": [0, 1], "classes": 2, "images": 40},
    ],
    ids=["no BCE", "all failed", "no BCE finished", "two classes"],
)
def test_a_page_is_made_of_whatever_has_ended(tmp_path, arguments, recwarn):
    make_runs(tmp_path, "odd", epochs=4, **{"images": 300, **arguments})
    Page(build_page(read_experiment(tmp_path, "odd")))
    assert [str(warning.message) for warning in recwarn] == []


def test_an_arm_beside_the_papers_losses_does_not_change_their_correction(tmp_path):
    make_runs(tmp_path, "with", losses=["bce", "anchor_target", "anchor_bg", "softmax"], images=300, epochs=4)
    make_runs(tmp_path, "without", losses=["bce", "anchor_target", "anchor_bg"], images=300, epochs=4)
    found = [Page(build_page(read_experiment(tmp_path, name))) for name in ("with", "without")]
    tables = [page.tables["Top-1 minus BCE, points"] for page in found]
    assert tables[0][:3] == tables[1]
    assert tables[0][3][0] == "softmax"


def test_text_from_records_cannot_become_markup(tmp_path):
    make_runs(tmp_path, "hostile", losses=["bce", "anchor_bg"], seeds=[0], images=300, epochs=4)
    attack = "<script>alert(1)</script>\"'><b onclick=x>{{ 7 * 7 }}"
    for run in read_runs(tmp_path, "hostile"):
        (run.folder / "record.json").unlink()
        (run.folder / "record.json").write_text(with_provenance(run.record, device=attack).to_json())
    data = read_experiment(tmp_path, "hostile")
    table = dataclasses.replace(
        data.table,
        stamps=(attack,),
        protocol=attack,
        notes=(attack,),
        rows=tuple(dataclasses.replace(row, label=attack) for row in data.table.rows),
    )
    text = build_page(dataclasses.replace(data, experiment=attack, table=table))
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert "{{ 7 * 7 }}" in text
    page = Page(text)
    assert "script" not in page.tags
    assert "onclick" not in page.attributes
    assert page.addresses == ["data:,"]


def test_runs_that_differ_in_a_setting_are_refused_in_one_line(tmp_path):
    make_runs(tmp_path, "mixed", losses=["bce"], seeds=[0], images=300, epochs=4)
    make_runs(tmp_path, "mixed", losses=["anchor_bg"], seeds=[0], images=300, epochs=4, lr=0.05)
    done = call("report.py", "--experiment=mixed", "--results-dir", tmp_path)
    assert done.returncode == 2
    assert "optim.lr" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "mixed").exists()


def test_predictions_that_are_not_the_records_are_refused(tmp_path):
    parent = make_runs(tmp_path, "changed", losses=["bce"], seeds=[0, 1], images=300, epochs=4)
    first, second = sorted(parent.iterdir())
    shutil.copy(second / "predictions.npz", first / "predictions.npz")
    with pytest.raises(UserError, match=re.escape(str(first / "predictions.npz"))):
        write_report(tmp_path, "changed")


def test_an_experiment_without_runs_is_one_line(tmp_path):
    done = call("report.py", "--experiment=nothing", "--results-dir", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: experiment=nothing: there are no runs")
    assert done.stderr.count("\n") == 1


def test_a_side_that_a_loss_leaves_alone_is_not_drawn(data):
    """Training writes a factor of exactly 1 where a loss does not modulate."""
    drawn = factors(data, "background", "f")
    assert drawn is not None
    assert "(i) " not in drawn
    histories = {
        loss: {seed: h.assign(**dict.fromkeys(FACTORS, 1.0)) for seed, h in by_seed.items()}
        for loss, by_seed in data.histories.items()
    }
    still = dataclasses.replace(
        data, histories={**data.histories, "anchor_target": histories["anchor_target"]}
    )
    assert factors(still, "background", "f") == drawn
    assert factors(dataclasses.replace(data, histories=histories), "background", "f") is None


def test_the_page_opens_with_one_sentence_and_the_differences(text, page):
    body = text[text.index("<main>") :]
    sentence = re.search(r'<p class="answer">(.*?)</p>', body, flags=re.DOTALL)
    assert sentence is not None
    assert re.match(
        r"(Better than BCE|Worse than BCE|No resolved difference from BCE) in Top-1: ", sentence[1]
    )
    assert body.index("Top-1 minus BCE in points") < body.index("<details")
    # The tests, checks and power are folded below it.
    assert body.index("<details") < body.index('id="tests-top1"') < body.index('id="checks-ece"')


def test_calibration_is_tested_and_called_secondary(page, text):
    assert "primary measure" in text[text.index('id="tests-top1"') :][:300]
    for measure in ("top5", "ece"):
        assert "secondary measure" in text[text.index(f'id="tests-{measure}"') :][:300]
    rows = page.tables["Expected calibration error minus BCE, points"]
    assert [row[0] for row in rows[1:]] == ["(i) target", "(ii) background", "(iii) both"]


def test_few_images_make_no_point_in_a_reliability_diagram(data):
    found = reliability(pool(data.predictions["bce"].values()))
    assert (found.images[found.images > 0] < FEWEST_IMAGES).any()
    everything = dataclasses.replace(
        found, images=np.where(found.images > 0, found.images, 0) + FEWEST_IMAGES
    )
    drawn = [reliability_diagram(data, "bce", one, "1 %", "r").count("<use") for one in (found, everything)]
    assert drawn[1] - drawn[0] == ((found.images > 0) & (found.images < FEWEST_IMAGES)).sum()


def test_more_seeds_than_can_be_told_apart_are_left_out_in_words(tmp_path):
    """The figure is thinned, the means are not."""
    make_runs(tmp_path, "many", losses=["bce", "anchor_bg"], seeds=range(60), images=50, epochs=2, classes=10)
    data = read_experiment(tmp_path, "many")
    text = build_page(data)
    assert "Seeds drawn: 30 of 60 of BCE, 30 of 60 of (ii) background; all are in the means." in text
    rows = {row[0]: row for row in Page(text).tables["Table 1"]}
    mean = summarise(data.values["top1"]["bce"]).mean
    assert rows["BCE"][1:3] == ["60", f"{mean:.2f} ± {summarise(data.values['top1']['bce']).std:.2f}"]


def calls(build) -> int:
    """Function calls, Python's and C's, that `build` makes: a measure of cost that no load disturbs."""
    profile = cProfile.Profile()
    profile.runcall(build)
    return pstats.Stats(profile).total_calls


def test_the_cost_of_a_page_grows_with_the_runs_and_no_faster(tmp_path):
    """Counted, not timed: function calls, and the characters and drawn elements of the page."""
    costs, sizes, drawn = [], [], []
    for name, seeds in (("few", 20), ("more", 40), ("most", 80)):
        make_runs(
            tmp_path, name, losses=["bce", "anchor_bg"], seeds=range(seeds), images=50, epochs=2, classes=10
        )
        found: list[str] = []
        costs.append(
            calls(lambda name=name, found=found: found.append(build_page(read_experiment(tmp_path, name))))
        )
        sizes.append(len(found[0]))
        drawn.append(found[0].count("<use"))
    assert costs[2] - costs[1] <= 2.5 * max(costs[1] - costs[0], 0.02 * costs[0])
    # 1,000 runs at this rate stay far below 5 MB.
    assert (sizes[2] - sizes[1]) / 80 < 2000
    assert drawn[2] < drawn[0] + 2 * 2 * 50


def test_the_paper_stands_beside_its_own_data_set_alone(tmp_path):
    for data in ("cifar100", "cifar10"):
        for loss in ("bce", "anchor_bg"):
            finish_run(tmp_path, make_settings(loss, experiment=data, data=data, epochs=10))
    beside, alone = (write_report(tmp_path, data).read_text() for data in ("cifar100", "cifar10"))
    for words in ("Beside the paper", "Top-1, paper", "Compare differences with the paper's"):
        assert words in beside
        assert words not in alone
    assert "The table" in alone
