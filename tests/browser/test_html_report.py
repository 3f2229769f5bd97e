# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML report as a browser shows it: on screens wide and narrow, light and dark, on paper, without scripts."""

from __future__ import annotations

import base64
import itertools
import json
import re
from typing import Any

import pytest
from results import RESULTS, SCRIPT
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By

NAMES = list(RESULTS)
WIDE, NARROW = 1200, 360
VERDICTS = {
    "pass": "Pass",
    "fail": "Fail",
    "inconclusive": "Inconclusive",
    "exact": "Pass",
    "eight": "Pass",
    "errors": "Fail",
    "not probed": "Not probed",
    "nothing": "No verdict",
    "hostile": "Inconclusive",
}
# Every element with text of its own that is seen, with the colour of its letters.
TEXTS = """
return [...document.body.querySelectorAll('*:not(title, desc)')].filter(element =>
  [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  && getComputedStyle(element).visibility === 'visible'
).map(element => {
  const style = getComputedStyle(element);
  return [element.textContent, element instanceof SVGElement ? style.fill : style.color];
});
"""


def show(browser: Chrome, address: str, width: int = WIDE, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == NARROW},
    )
    browser.get(address)


def rectangles(browser: Chrome, selector: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(element => element.getBoundingClientRect().toJSON())",
        selector,
    )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_nothing_and_complains_of_nothing(name: str, browser: Chrome, reports: dict[str, str]) -> None:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    show(browser, reports[name])
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    assert requested == [reports[name]]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_verdict_is_seen_at_once(name: str, width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports[name], width)
    verdict = browser.find_element(By.CLASS_NAME, "verdict")
    assert verdict.is_displayed()
    assert verdict.text == VERDICTS[name]
    assert verdict.rect["y"] + verdict.rect["height"] < 800
    assert float(verdict.value_of_css_property("font-size")[:-2]) >= 36
    assert browser.title.startswith(f"{VERDICTS[name]}: ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [WIDE, 760, 620, NARROW])
def test_nothing_is_wider_than_the_screen(name: str, width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports[name], width)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    # Where the rows are stacked, the head of a table is for screen readers only.
    heads = ", thead *" if width == NARROW else ""
    for box in rectangles(browser, f"body *:not(svg *{heads})"):
        assert box["left"] >= 0
        assert box["right"] <= width
    spilt = browser.execute_script(
        "return [...document.querySelectorAll('th, td, dd, p, h1')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.textContent)"
    )
    assert spilt == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_lost_sessions_are_seen(width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports["fail"], width)
    table = browser.find_element(By.XPATH, "//h2[.='Held sessions']/following-sibling::table[1]")
    lost, alive = (table.find_elements(By.CSS_SELECTOR, f"td.{mood}") for mood in ("fail", "pass"))
    assert [cell.text.split("\n")[-1] for cell in lost] == ["closed", "garbled"]
    assert [cell.text.split("\n")[-1] for cell in alive] == ["alive"]
    assert all(cell.is_displayed() for cell in (*lost, *alive))
    assert lost[0].value_of_css_property("color") != alive[0].value_of_css_property("color")


@pytest.mark.parametrize("name", [name for name in NAMES if "trajectory" in RESULTS[name]])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_plots_are_whole_and_legible(name: str, width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports[name], width)
    assert len(rectangles(browser, "svg")) == len(RESULTS[name]["expect"])
    outside = browser.execute_script(
        """
        const slack = 0.5, found = [];
        for (const svg of document.querySelectorAll('svg')) {
          const view = svg.viewBox.baseVal, frame = svg.getBoundingClientRect();
          for (const element of svg.querySelectorAll('polyline, polygon, text, circle, .band')) {
            const box = element.getBBox(), seen = element.getBoundingClientRect();
            if (box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height
                || seen.left < frame.left - slack || seen.right > frame.right + slack || seen.top < frame.top - slack
                || seen.bottom > frame.bottom + slack) found.push(element.outerHTML);
          }
          if (!svg.querySelector('polyline.share')) found.push('no line');
        }
        return found;
        """
    )
    assert outside == []
    for plot in browser.find_elements(By.TAG_NAME, "svg"):
        ticks = [tick.rect for tick in plot.find_elements(By.CSS_SELECTOR, "text.tick, text.value")]
        for one, other in itertools.combinations(ticks, 2):
            apart = (
                one["x"] + one["width"] <= other["x"]
                or other["x"] + other["width"] <= one["x"]
                or one["y"] + one["height"] <= other["y"] + 3  # the air around letters
                or other["y"] + other["height"] <= one["y"] + 3
            )
            assert apart, (one, other)
        sizes = [tick["height"] for tick in ticks]
        assert min(sizes) >= 11


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_pointing_at_a_plot_tells_the_share(width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports["pass"], width)
    assert not [told for told in browser.find_elements(By.CSS_SELECTOR, ".readout text") if told.is_displayed()]
    ActionChains(browser).move_to_element(browser.find_element(By.CSS_SELECTOR, "svg .band")).perform()
    told = [told.text for told in browser.find_elements(By.CSS_SELECTOR, ".readout text") if told.is_displayed()]
    assert len(told) == 1
    assert re.fullmatch(r"[\d.]+ % after \d+", told[0])


def luminance(colour: str) -> float:
    """Relative luminance of an opaque colour, as WCAG 2 defines it."""
    match = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert match, colour
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(number) / 255 for number in match.groups())
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(name: str, scheme: str, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports[name], scheme=scheme)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) is (scheme == "light")
    texts = browser.execute_script(TEXTS)
    assert len(texts) > 2
    for text, colour in texts:
        assert contrast(colour, paper) >= 4.5, text
    strokes = browser.execute_script(
        "return [...document.querySelectorAll('.share, .span, .axis, .wanted')].map(e => getComputedStyle(e).stroke)"
    )
    for stroke in set(strokes):
        assert contrast(stroke, paper) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_on_few_sheets_of_a4(name: str, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports[name], scheme="dark")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False})
    pdf = base64.b64decode(printed["data"])
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= (5 if name == "hostile" else 3)
    sizes = {
        tuple(round(float(number)) for number in box.split()) for box in re.findall(rb"/MediaBox\s*\[([^]]+)\]", pdf)
    }
    assert sizes == {(0, 0, 595, 842)}


def test_paper_is_white_and_rows_stay_whole(browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports["pass"])
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert browser.execute_script(style, "body", "backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("tr", "figure", "dl div", "p"):
        assert browser.execute_script(style, selector, "breakInside") == "avoid"
    assert browser.execute_script(style, "h2", "breakAfter") == "avoid"
    assert browser.execute_script(style, "thead", "display") == "table-header-group"
    assert browser.execute_script(style, ".readout", "display") == "none"
    for text, colour in browser.execute_script(TEXTS):
        assert contrast(colour, "rgb(255, 255, 255)") >= 4.5, text


def test_a_script_in_a_reply_is_text(browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports["hostile"])
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.CSS_SELECTOR, "script, img") == []
    assert SCRIPT in browser.find_element(By.TAG_NAME, "table").text


def test_without_scripts_it_is_the_same_page(browser: Chrome, reports: dict[str, str]) -> None:
    seen = []
    for disabled in (False, True):
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": disabled})
        try:
            show(browser, reports["pass"])
            root = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
            markup = browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": root})["outerHTML"]
            picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
        finally:
            browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        seen.append((markup, picture))
    assert "the split is as expected" in seen[0][0]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_who_does_not_see_it_is_told_the_same(width: int, browser: Chrome, reports: dict[str, str]) -> None:
    show(browser, reports["pass"], width)
    assert browser.execute_script("return document.documentElement.lang") == "en"
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nodes = [node for node in tree if not node["ignored"]]

    def named(role: str) -> list[Any]:
        return [node.get("name", {}).get("value") for node in nodes if node["role"]["value"] == role]

    assert named("image") == ["Share of one by number of probes", "Share of two by number of probes"]
    told = [node["description"]["value"] for node in nodes if node["role"]["value"] == "image"]
    assert all("expected was" in text for text in told)
    assert len(named("table")) == 4
    assert {"Destination", "Expected", "Observed", "Interval", "Verdict"} <= set(named("columnheader"))
    assert {"one", "two"} <= set(named("rowheader"))
