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
