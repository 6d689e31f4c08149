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

    def open(self, page: Path | str, width: int = 1200, *, dark: bool = False) -> None:
        """Shows a file, or what an address gives, on a screen of so many pixels.

        Below 600 the screen is that of a phone.
        """
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": 844 if width < 600 else 1000,
                "deviceScaleFactor": 1,
                "mobile": width < 600,
            },
        )
        scheme = "dark" if dark else "light"
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        # What was complained about on the page before is forgotten with it.
        self.driver.get("about:blank")
        self.messages()
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def beyond_the_edge(self) -> list[str]:
        """What is wider than the screen and cannot be scrolled to by itself.

        Phones show a page that is wider than they are in letters too small to read.
        """
        return self.driver.execute_script(
            """
            const width = document.documentElement.clientWidth;
            const scrolls = (e) => e && e !== document.body && (
              ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)
              || scrolls(e.parentElement));
            return [...document.querySelectorAll("body *")]
              .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e))
              .map(e => e.tagName + " " + e.className + " " + e.textContent.slice(0, 40));
            """
        )

    def smallest_text(self) -> float:
        """Height in pixels of the smallest letters that are shown."""
        return self.driver.execute_script(
            """
            const shown = [...document.querySelectorAll("body *")].filter(e =>
              [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
            return Math.min(...shown.map(e => {
              const size = parseFloat(getComputedStyle(e).fontSize);
              const matrix = e.getScreenCTM ? e.getScreenCTM().a : 1;
              return size * matrix;
            }));
            """
        )

    def least_contrast(self) -> tuple[float, str]:
        """Of text and what is behind it, as WCAG 2 counts it, and the text."""
        return tuple(
            self.driver.execute_script(
                """
                const light = (colour) => {
                  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => {
                    v /= 255;
                    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                  });
                  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const ground = (e) => {
                  for (; e; e = e.parentElement) {
                    const colour = getComputedStyle(e).backgroundColor;
                    if (!/, 0\\)$/.test(colour)) return colour;
                  }
                  return "rgb(255, 255, 255)";
                };
                const shown = [...document.querySelectorAll("body *")].filter(e =>
                  [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
                const found = shown.map(e => {
                  const style = getComputedStyle(e);
                  const ink = e.ownerSVGElement ? style.fill : style.color;
                  const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
                  return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
                });
                return found.sort((x, y) => x[0] - y[0])[0];
                """
            )
        )

    def all(self, selector: str) -> list[Any]:
        """The elements that a CSS selector means."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def natural_widths(self, selector: str) -> list[int]:
        """Of images; 0 where one could not be decoded."""
        return [int(image.get_property("naturalWidth")) for image in self.all(selector)]

    def messages(self) -> list[str]:
        """What the browser complained about since the page was opened, or last asked."""
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


def assert_readable(browser: Browser, page: Path | str) -> None:
    """On a phone and on a desk, on a light ground and on a dark one."""
    for width in (390, 1400):
        for dark in (False, True):
            browser.open(page, width, dark=dark)
            assert browser.beyond_the_edge() == []
            assert browser.smallest_text() > 10
            # What WCAG 2 asks for text of any size.
            contrast, text = browser.least_contrast()
            assert contrast >= 4.5, text
            ground = browser.driver.execute_script(
                "return getComputedStyle(document.body).backgroundColor"
            )
            assert (ground != "rgb(255, 255, 255)") == dark
            assert browser.messages() == []
