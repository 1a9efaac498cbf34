"""A headless Chromium for the tests of HTML pages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


WIDTHS = (390, 1280)  # of a phone and of a desk, in CSS pixels
HOSTILE = (
    """<script>document.title='x'</script><img src=x onerror="alert(1)"> & 'q' "d" $x_1$ {{a}}"""
)


class Browser:
    """One tab; ``width`` and ``height`` are the page's, not the window's."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Show a file; the console starts empty."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.console()
        self.driver.get(path.resolve().as_uri())

    def js(self, expression: str):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}")

    def console(self) -> list[str]:
        """Everything logged since the last call, refused requests and failed loads included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


def start() -> Browser:
    """Start the browser, or skip the test that asks for it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found = [shutil.which(n) for n in ("chromium", "chromium-browser", "google-chrome")]
    browser, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no chromium with chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    return Browser(webdriver.Chrome(options=options, service=service))


def visible(page: Browser) -> str:
    """The page's text as it is shown."""
    return page.js("document.body.innerText")


def rows(page: Browser, table: str) -> list[list[str]]:
    """Text of the cells in the body of the table in the section of that id."""
    return page.js(
        f"[...document.querySelectorAll('#{table} tbody tr')]"
        ".map(r => [...r.cells].map(c => c.innerText))"
    )


def pictures(page: Browser) -> list[tuple[str, str, float]]:
    """Label, text and width of each chart; they have the role of pictures."""
    found = page.js(
        "[...document.querySelectorAll('svg')].map(s => [s.getAttribute('role'),"
        " s.getAttribute('aria-label'), s.textContent, s.getBoundingClientRect().width])"
    )
    assert all(role == "img" for role, *_ in found)
    return [(label, text, width) for _, label, text, width in found]


def check_sound(page: Browser) -> None:
    """Nothing wider than the page, nothing on the console, nothing loaded, no id twice, and heads
    that say what they are the head of."""
    assert page.js("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.console() == []
    assert page.js("document.scripts.length") == 0
    assert page.js("performance.getEntriesByType('resource').map(e => e.name)"
                   ".filter(n => !n.startsWith('data:'))") == []  # fmt: skip
    ids = page.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    used = page.js("[...document.querySelectorAll('use')].map(e => e.getAttribute('xlink:href'))")
    assert {u.removeprefix("#") for u in used} <= set(ids)
    assert page.js("[...document.querySelectorAll('th')].every(h => h.scope && h.innerText)")
    assert page.js("[...document.querySelectorAll('tbody tr')].every(r => r.querySelector('th'))")
    outside = page.js(
        "[...document.querySelectorAll('svg text')].filter(t => {"
        " const a = t.getBoundingClientRect(),"
        " b = t.closest('svg').getBoundingClientRect();"
        " return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1"
        " || a.bottom > b.bottom + 1 }).map(t => t.textContent)"
    )
    assert outside == []
