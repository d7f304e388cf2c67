"""The report in a real Chromium, opened from its file. Screenshots stay in artifacts/."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorloss.analysis.report import write_report
from tests.chromium import Tab, browser, executable
from tests.fake_runs import make_runs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(executable() is None, reason="no Chromium (apt-get install chromium)"),
]
ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"
THEMES = ("light", "dark")
WIDTHS = (1280, 390)

# WCAG's contrast of every text against the background that shows behind it.
CONTRAST = """
(() => {
  const parts = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = parts(c).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const poor = [];
  for (const e of document.querySelectorAll('p,li,td,th,caption,h1,h2,h3,a,span,figcaption,summary,svg text')) {
    const style = getComputedStyle(e), own = light(e instanceof SVGElement ? style.fill : style.color);
    const ratio = (Math.max(own, paper) + .05) / (Math.min(own, paper) + .05);
    const said = e.textContent.trim().slice(0, 40);
    if (said && !e.closest('.skip') && ratio < 4.5) poor.push(`${said} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


def unfold(tab: Tab) -> None:
    """Open everything that is folded."""
    tab.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")


# Texts of one picture that lie on each other.
OVERLAPS = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
  const boxes = texts.map(text => text.getBoundingClientRect());
  const found = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 2 && high > 4) found.push(`${texts[i].textContent} | ${texts[i + 1 + j].textContent}`);
  }));
  return found;
})
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    results = tmp_path_factory.mktemp("results")
    losses = ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")
    make_runs(results, "quick", losses=losses, failed={("anchor_both", 3)}, missing={("anchor_target", 3)})
    return write_report(results, "quick").as_uri()


@pytest.fixture(scope="module")
def tab():
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_opens_without_error_request_or_overflow(tab: Tab, report, width, theme):
    tab.open(report, width, theme)
    tab.screenshot(ARTIFACTS / f"report-{width}-{theme}.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unfold(tab)
    tab.screenshot(ARTIFACTS / f"report-{width}-{theme}-unfolded.png")
    assert [entry["entry"]["text"] for entry in tab.of("Log.entryAdded")] == []
    assert tab.of("Runtime.consoleAPICalled") == []
    assert tab.of("Runtime.exceptionThrown") == []
    assert {sent["request"]["url"] for sent in tab.of("Network.requestWillBeSent")} <= {report, "data:,"}
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('figure svg').length") > 10


def test_little_is_said_before_anything_is_unfolded(tab: Tab, report):
    tab.open(report, 1280, "light")
    assert 300 < tab.evaluate("document.body.innerText.split(/\\s+/).length") < 1500


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_of_a_picture_leaves_it_or_shrinks_beyond_reading(tab: Tab, report, width):
    tab.open(report, width, "light")
    unfold(tab)
    outside = tab.evaluate(
        """[...document.querySelectorAll('figure svg')].flatMap(svg => {
             const box = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter(text => {
               const own = text.getBoundingClientRect();
               return own.left < box.left - 3 || own.right > box.right + 3;
             }).map(text => text.textContent);
           })"""
    )
    assert outside == []
    smallest = tab.evaluate(
        """Math.min(...[...document.querySelectorAll('figure svg text')].map(text =>
             parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width
             / text.ownerSVGElement.viewBox.baseVal.width))"""
    )
    assert smallest >= 8


@pytest.mark.parametrize("width", WIDTHS)
def test_no_two_labels_of_a_picture_overlap(tab: Tab, report, width):
    tab.open(report, width, "light")
    unfold(tab)
    assert tab.evaluate(OVERLAPS) == []


@pytest.mark.parametrize("theme", THEMES)
def test_every_text_can_be_read_in_its_theme(tab: Tab, report, theme):
    tab.open(report, 1280, theme)
    unfold(tab)
    assert tab.evaluate(CONTRAST) == []


def test_the_themes_differ(tab: Tab, report):
    papers = set()
    for theme in THEMES:
        tab.open(report, 1280, theme)
        papers.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


def test_the_keyboard_reaches_every_section_and_every_wide_table(tab: Tab, report):
    tab.open(report, 390, "light")
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = []
    for _ in range(200):
        tab.press("Tab")
        place = tab.evaluate(
            "document.activeElement.getAttribute('href') || document.activeElement.getAttribute('aria-labelledby')"
            " || document.activeElement.closest('summary')?.textContent || document.activeElement.tagName"
        )
        if place == "BODY" or place in reached:
            break
        reached.append(place)
    sections = tab.evaluate("[...document.querySelectorAll('main > section')].map(s => '#' + s.id)")
    tables = tab.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(s => s.checkVisibility())"
        ".map(s => s.getAttribute('aria-labelledby'))"
    )
    assert set(sections) <= set(reached)
    assert set(tables) <= set(reached)


def test_the_skip_link_leads_to_the_verdict_and_arrows_scroll_a_table(tab: Tab, report):
    tab.open(report, 390, "light")
    tab.press("Tab")
    tab.press("Enter")
    assert tab.evaluate("location.hash") == "#verdict"
    assert tab.evaluate("document.activeElement.id") == "verdict"
    unfold(tab)
    tab.evaluate("document.querySelector('[aria-labelledby=runs-table]').focus()")
    tab.press("ArrowRight")
    moved = "new Promise(done => setTimeout(() => done(document.activeElement.scrollLeft), 500))"
    assert tab.evaluate(moved) > 0
