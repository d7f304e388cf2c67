"""The report in a real Chromium, opened from its file. Screenshots stay in artifacts/."""

from __future__ import annotations

import pytest

from anchorloss.analysis.figures import THEME, THEMES
from anchorloss.analysis.report import write_report
from tests.chromium import Tab, browser, executable
from tests.conftest import ROOT
from tests.run_folders import make_runs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(executable() is None, reason="no Chromium (apt-get install chromium)"),
]
UNFOLD = "document.querySelectorAll('details').forEach(folded => folded.open = true)"

# Texts without WCAG's contrast against the page; and in figures those that leave it, are small, or lie on a text or line.
FAULTS = """
(() => {
  const parts = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = parts(c).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const found = [];
  for (const e of document.querySelectorAll('p,li,td,th,caption,h1,h2,h3,a,span,figcaption,summary,svg text')) {
    const style = getComputedStyle(e), own = light(e instanceof SVGElement ? style.fill : style.color);
    const ratio = (Math.max(own, paper) + .05) / (Math.min(own, paper) + .05);
    const said = e.textContent.trim().slice(0, 40);
    if (said && !e.closest('.skip') && ratio < 4.5) found.push(`pale: ${said} ${ratio.toFixed(2)}`);
  }
  for (const svg of document.querySelectorAll('figure svg')) {
    const whole = svg.getBoundingClientRect(), axes = svg.querySelector('[id$=patch_2]').getBoundingClientRect();
    const box = e => {
      const own = e.getBoundingClientRect();
      return e.hasAttribute('clip-path') ? {...own.toJSON(), top: Math.max(own.top, axes.top)} : own;
    };
    const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
    const lines = [...svg.querySelectorAll('path')].filter(path => getComputedStyle(path).stroke !== 'none');
    texts.forEach((text, i) => {
      const a = box(text), said = text.textContent;
      if (a.left < whole.left - 3 || a.right > whole.right + 3) found.push(`outside: ${said}`);
      const size = parseFloat(getComputedStyle(text).fontSize) * whole.width / svg.viewBox.baseVal.width;
      if (size < 8) found.push(`small: ${said}`);
      for (const other of [...texts.slice(i + 1), ...lines]) {
        const b = box(other);
        const wide = Math.min(a.right - 2, b.right) - Math.max(a.left + 2, b.left);
        const high = Math.min(a.bottom - 4, b.bottom) - Math.max(a.top + 4, b.top);
        if (wide >= 0 && high >= 0) found.push(`on each other: ${said} | ${other.textContent || 'line'}`);
      }
    });
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    results = tmp_path_factory.mktemp("results")
    losses = ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")
    absent = {"failed": {("anchor_both", 3)}, "missing": {("anchor_target", 3)}}
    make_runs(results, "table1_small", losses=losses, **absent)
    return write_report(results, "table1_small").as_uri()


@pytest.fixture(scope="module")
def tab():
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_whole_in_every_width_and_theme(tab: Tab, report, width, theme):
    tab.open(report, width, theme)
    tab.screenshot(ROOT / "artifacts" / f"report-{width}-{theme}.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert 300 < tab.evaluate("document.body.innerText.split(/\\s+/).length") < 1500
    tab.evaluate(UNFOLD)
    tab.screenshot(ROOT / "artifacts" / f"report-{width}-{theme}-unfolded.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('figure svg').length") > 10
    assert tab.evaluate(FAULTS) == []
    paper = bytes.fromhex(THEME["paper"][THEMES[theme]][1:])
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb{tuple(paper)}"
    for method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert tab.of(method) == []
    assert {sent["request"]["url"] for sent in tab.of("Network.requestWillBeSent")} <= {report, "data:,"}


def test_the_keyboard_reaches_every_section_and_every_wide_table(tab: Tab, report):
    tab.open(report, 390, "light")
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    tab.press("Enter")
    assert tab.evaluate("location.hash + document.activeElement.id") == "#verdictverdict"
    tab.open(report, 390, "light")
    tab.evaluate(UNFOLD)
    reached = set()
    for _ in range(100):
        tab.press("Tab")
        focused = "[document.activeElement.getAttribute('{}')]".format
        reached |= set(tab.evaluate(f"{focused('href')}.concat({focused('aria-labelledby')})"))
    wanted = "[...document.querySelectorAll('main > section')].map(one => '#' + one.id)"
    wanted += (
        ".concat([...document.querySelectorAll('.scroll')].map(one => one.getAttribute('aria-labelledby')))"
    )
    assert set(tab.evaluate(wanted)) <= reached
    tab.evaluate("document.querySelector('[aria-labelledby=runs-table]').focus()")
    tab.press("ArrowRight")
    moved = "new Promise(done => setTimeout(() => done(document.activeElement.scrollLeft), 500))"
    assert tab.evaluate(moved) > 0
