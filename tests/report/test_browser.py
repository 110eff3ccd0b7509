"""Reports as a real browser shows them: nothing fails, nothing overflows, all text can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, find_browser

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (or Chrome) to look at pages with")

MIN_CONTRAST = 4.5  # Web Content Accessibility Guidelines 2.2, level AA, of text

# What of the page reaches beyond it (what scrolls inside its own box does not), and what of a chart is cut off.
BEYOND = """(() => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const wide = document.documentElement.clientWidth;
  const found = [...document.querySelectorAll("body *")]
    .filter(one => !one.closest(".scrolls > *") && one.getClientRects().length)
    .filter(one => one.getBoundingClientRect().right > wide + 0.5 || one.getBoundingClientRect().left < -0.5)
    .map(one => one.tagName + " " + one.textContent.trim().slice(0, 40));
  const inside = (one, other) => one.left > other.left - 0.5 && one.right < other.right + 0.5;
  const clipped = [...document.querySelectorAll("figure svg text")].filter(one => one.getClientRects().length)
    .filter(one => !inside(one.getBoundingClientRect(), one.closest("svg").getBoundingClientRect()));
  found.push(...clipped.map(one => "clipped: " + one.textContent));
  return document.documentElement.scrollWidth > wide ? ["the page itself", ...found] : found;
})()"""

# Each text that is seen with too little contrast to what is painted behind it: of a chart's text the last cell drawn
# under its middle (else the page), of others the nearest background.
TOO_FAINT = """(least => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).slice(0, 3).map(one => one / 255)
      .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const cell = text => {
    const at = text.getBoundingClientRect(), x = at.x + at.width / 2, y = at.y + at.height / 2;
    const under = [...text.closest("svg").querySelectorAll("rect.cell, rect.nothing")].filter(one => {
      const box = one.getBoundingClientRect();
      return box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
    });
    return under.length ? getComputedStyle(under.at(-1)).fill : behind(text);
  };
  const seen = [...document.querySelectorAll("body *")].filter(one => one.getClientRects().length);
  const texts = seen.filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const found = texts.map(one => {
    const isDrawn = one.tagName === "text", style = getComputedStyle(one);
    const ratio = isDrawn ? contrast(style.fill, cell(one)) : contrast(style.color, behind(one));
    return [one.textContent.trim().slice(0, 40), ratio];
  });
  return {num: found.length, faint: found.filter(([, ratio]) => !(ratio >= least))};
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as one:
        yield one


@pytest.fixture(params=["simulated", "ran"])
def report(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_a_report_is_readable(browser: Browser, report: Path, width: int, is_dark: bool):
    """On a telephone and on a screen, in both themes: no complaint of the browser, no script runs, no request to
    anybody, nothing beyond the page (all tables open), and contrast enough for every text."""
    page = browser.open(report, width, is_dark)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != is_dark
    assert page.evaluate(BEYOND) == []
    contrast = page.evaluate(f"{TOO_FAINT}({MIN_CONTRAST})")
    assert contrast["num"] > 100
    assert contrast["faint"] == []
    is_wide = "getComputedStyle(document.querySelector('.on-wide')).display"
    assert page.evaluate(is_wide) == ("none" if width == 360 else "block")
    assert browser.complaints == []


def test_complaints_are_heard(browser: Browser, tmp_path: Path):
    """The check itself: a page that fails, calls somebody, overflows and whispers is found out."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body style='background: #fff'><p style='width: 2000px; color: #bbb'>faint</p>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('bad')</script>"
    )
    page = browser.open(bad, 360)
    assert "the page itself" in page.evaluate(BEYOND)
    assert [text for text, _ in page.evaluate(f"{TOO_FAINT}({MIN_CONTRAST})")["faint"]] == ["faint"]
    assert any("bad" in one for one in browser.complaints)
    assert "http://127.0.0.1:9/x.png" in browser.complaints
