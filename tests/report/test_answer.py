"""The sentence and the figure that open the README say what the records say."""

from __future__ import annotations

import json
import re
import statistics
from xml.etree import ElementTree

import pytest
from scipy import stats

from anchorloss.report.answer import read_answers, to_markdown
from anchorloss.report.answer_figure import draw
from anchorloss.report.published import PAPER_LOSSES, read_published
from tests.conftest import ROOT
from tests.run_folders import finish_run, make_settings

SVG = "{http://www.w3.org/2000/svg}"


def train(results, experiment, scores, **settings):
    """Runs of an experiment with these Top-1 values: loss -> one a seed."""
    for loss, values in scores.items():
        for seed, top1 in enumerate(values):
            finish_run(results, make_settings(loss, seed, experiment=experiment, **settings), top1=top1)


def top1_by_seed(experiment, loss):
    found = {}
    for path in (ROOT / "results" / "runs" / experiment).glob(f"{loss}-*/record.json"):
        record = json.loads(path.read_text())
        found[record["seed"]] = record["top1"]
    return found


def test_the_committed_answer_is_that_of_the_records():
    """Recomputed from record.json by the textbook's paired t interval."""
    text = (ROOT / "results" / "answer" / "answer.md").read_text().replace("\u2212", "-")
    leading = next(answer for answer in read_answers(ROOT / "results") if answer.decides)
    base = top1_by_seed(leading.experiment, "bce")
    for loss in ("anchor_target", "anchor_bg", "anchor_both"):
        own = top1_by_seed(leading.experiment, loss)
        differences = [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]
        mean = statistics.fmean(differences)
        n = len(differences)
        half = stats.t.ppf(0.975, n - 1) * statistics.stdev(differences) / n**0.5
        label = read_published()[loss].label
        said = re.search(
            rf"([+-]\d+\.\d\d)(?: points)? for {re.escape(label)} \((?:95 % interval )?(\S+) to (\S+)\)", text
        )
        assert said is not None, (label, text)
        assert [float(value) for value in said.groups()] == pytest.approx(
            [mean, mean - half, mean + half], abs=0.0051
        )


def test_the_first_screen_has_the_answer_the_interval_and_the_figure():
    first_screen = (ROOT / "README.md").read_text().split("\n## ")[0]
    answer = (ROOT / "results" / "answer" / "answer.md").read_text().rstrip()
    assert answer in first_screen
    assert "95 % interval" in answer
    assert re.search(r"\((final|interim, \d+ of \d+ seeds complete)\)", answer)
    pictures = re.findall(r'src(?:set)?="([^"]+)"', first_screen)
    assert len(pictures) == 2
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_figure_is_drawn_to_scale():
    answers = read_answers(ROOT / "results")
    places = {}
    for theme in ("light", "dark"):
        content = (ROOT / "results" / "answer" / f"differences-{theme}.svg").read_bytes()
        assert content == draw(answers, dark=theme == "dark")
        root = ElementTree.fromstring(content)
        ticks = {
            float(text.text.replace("\u2212", "-")): float(text.get("x"))
            for text in root.iter(f"{SVG}text")
            if text.get("text-anchor") == "middle" and re.fullmatch(r"[+\u2212]?[\d.]+", text.text)
        }
        low, high = min(ticks), max(ticks)
        scale = (ticks[high] - ticks[low]) / (high - low)
        dots = [float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")][1:]  # the first is the legend's
        places[theme] = [low + (x - ticks[low]) / scale for x in dots]
    shown = [
        found.difference.estimate
        for answer in answers
        for found in answer.comparisons.values()
        if found.difference is not None
    ]
    for theme in places:
        assert places[theme] == pytest.approx(shown, abs=0.01)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ((0.0, 1.0, 0.0), "Yes, (ii)."),
        ((1.0, 1.0, 0.0), "Yes, (i) and (ii)."),
        ((-1.0, 1.0, -1.0), "Yes, (ii); (i) and (iii) are worse."),
        ((0.0, -1.0, 0.0), "Not resolved; (ii) is worse."),
        ((-1.0, -1.0, -1.0), "No."),
    ],
)
def test_the_verdict_follows_the_rule(tmp_path, gain, verdict):
    base = [73.0, 73.4, 73.9, 73.2, 74.0]
    wobble = [0.05, -0.04, 0.02, -0.05, 0.02]
    scores = {"bce": base}
    for loss, points in zip(PAPER_LOSSES[1:], gain, strict=True):
        scores[loss] = [value + points + noise for value, noise in zip(base, wobble, strict=True)]
    train(tmp_path, "table1", scores)
    text = to_markdown(read_answers(tmp_path))
    assert f"CIFAR-100? {verdict}** With ResNet-110, 200 epochs and 5 seeds (final)" in text
    assert "has not been run" not in text


def test_an_interim_answer_says_so_far(tmp_path):
    scores = {loss: [73.0, 73.4, 73.9] for loss in PAPER_LOSSES}
    for loss in PAPER_LOSSES[1:]:
        scores[loss] = [
            value - 1 + noise for value, noise in zip(scores["bce"], (0.05, -0.04, 0.02), strict=True)
        ]
    train(tmp_path, "table1", scores)
    assert "CIFAR-100? Not so far.** With" in to_markdown(read_answers(tmp_path))


def test_a_size_with_planned_seeds_missing_is_interim_and_too_few_seeds_lead_nothing(tmp_path):
    one = {loss: [60.0 + place] for place, loss in enumerate(PAPER_LOSSES)}
    train(tmp_path, "table1_resnet20", one, model="resnet20", epochs=40)
    text = to_markdown(read_answers(tmp_path))
    assert "Not known yet" in text
    assert "ResNet-20, 40 epochs: interim, 1 of 10 seeds complete." in text
    three = {loss: [46.0 + place, 46.5, 47.1 - place] for place, loss in enumerate(PAPER_LOSSES)}
    train(tmp_path, "table1_small", three, model="resnet8", epochs=10)
    text = to_markdown(read_answers(tmp_path))
    assert "Not resolved so far.** With ResNet-8, 10 epochs and 3 seeds (interim, " in text
    assert "ResNet-20, 40 epochs: interim, 1 of 10 seeds complete." in text
    assert b"one seed" in draw(read_answers(tmp_path), dark=False)
    assert to_markdown([]).count("not been run") == 1
