"""Figure 1: its curves are the equations, its crossings are the anchors, its files are the same every time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib.figure import Figure

from anchorloss.report import figure1
from tests.commands import call
from tests.conftest import ROOT


def expected(panel: figure1.Panel, gamma: float, q: float) -> float:
    """Eq. 1, the term of one class, with the anchors of the figure."""
    if panel.anchor == "target":
        return -((1 - q + 0.2) ** gamma) * math.log(q)
    return -((1 + q - 0.8) ** gamma) * math.log(1 - q)


@pytest.mark.parametrize("panel", figure1.PANELS, ids=lambda panel: panel.anchor)
def test_what_is_drawn_is_equation_1(panel):
    figure = Figure()
    axes = figure.subplots()
    figure1.draw_panel(axes, panel)
    drawn = {line.get_label(): line for line in axes.get_lines()}
    for gamma, label in (
        (0, "BCE"),
        (0.5, "AL, $\\gamma$ = 0.5"),
        (1, "AL, $\\gamma$ = 1"),
        (2, "AL, $\\gamma$ = 2"),
    ):
        scores, losses = drawn[label].get_data()
        assert len(scores) > 300
        assert min(scores) < 0.01
        assert max(scores) > 0.99
        for q, loss in zip(scores, losses, strict=True):
            assert float(loss) == pytest.approx(expected(panel, gamma, float(q)), rel=1e-11)


@pytest.mark.parametrize("panel", figure1.PANELS, ids=lambda panel: panel.anchor)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_anchor_is_where_the_curves_cross(panel, gamma):
    q = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], dtype=torch.float64)
    above = (figure1.curve(panel, gamma, q) - figure1.curve(panel, 0.0, q)).round(decimals=12).sign().tolist()
    assert above == ([1, 0, -1, -1, -1, -1] if panel.anchor == "target" else [-1, -1, -1, -1, 0, 1])


def test_the_script_writes_both_files_the_same_every_time(tmp_path):
    """In this process and in another one, in which strings hash otherwise."""
    outputs = [tmp_path / "new" / "figure1", tmp_path / "figure1.again"]
    finished = call("figure1.py", "--output", outputs[0])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [f"{outputs[0]}.svg", f"{outputs[0]}.png"]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "figure1.py", "--output", outputs[1]],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed},
        check=True,
    )
    svg, png = (
        [output.with_name(output.name + suffix).read_bytes() for output in outputs]
        for suffix in (".svg", ".png")
    )
    assert svg[0] == svg[1]
    assert png[0] == png[1]
    assert png[0].startswith(b"\x89PNG")
    assert ElementTree.fromstring(svg[0]).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in svg[0]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "figure1.again.png",
        "figure1.again.svg",
        "figure1.png",
        "figure1.svg",
        "new",
    ]


def test_mistakes_are_one_line(tmp_path):
    for output in (tmp_path / "figure1.svg", tmp_path):
        finished = call("figure1.py", "--output", output)
        assert finished.returncode == 2
        assert finished.stderr.startswith(f"error: --output {output}: ")
        assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
