"""A real browser without a window, to see pages as people see them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Browser:
    """Opens files and says what is drawn; `driver` is selenium's."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, page: Path) -> None:
        self.driver.set_window_size(1200, 1600)
        self.driver.get(page.as_uri())

    def all(self, selector: str) -> list[Any]:
        """The elements that a CSS selector means."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def natural_widths(self, selector: str) -> list[int]:
        """Of images; 0 where one could not be decoded."""
        return [int(image.get_property("naturalWidth")) for image in self.all(selector)]

    def messages(self) -> list[str]:
        """What the browser complained about since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


def start_browser() -> Iterator[Browser]:
    """Starts headless Chromium; skips where there is none, but never in CI."""
    chromium, chromedriver = (shutil.which(x) for x in ("chromium", "chromedriver"))
    if not (chromium and chromedriver) and "CI" not in os.environ:
        pytest.skip("needs chromium and chromedriver on PATH")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium or "chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(chromedriver or "chromedriver")
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
