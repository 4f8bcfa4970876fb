"""A real Chromium without a window, and the page's server as people start it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "results"
LARGEST = 150_000
"""Bytes of a picture: it lies in the repository."""


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """A browser; its own downloads of browsers and drivers are not used."""
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.fail("no chromium and chromedriver: make test-browser installs Debian's")
    options = Options()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(service))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


class Page:
    """What a person has before them.

    Args:
        driver: The browser.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str, width: int = 1400, dark: bool = False) -> None:
        """Show an address in a window so wide, to someone who prefers dark or light."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )
        self.resize(width, 900)
        self.driver.get(address)

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, a phone's width included."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def text(self, selector: str) -> str:
        """Return what is read at a place."""
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )

    def run(self, script: str) -> object:
        """Return what a line of script finds."""
        return self.driver.execute_script(f"return {script}")

    def wait(self, holds: Callable[[], object], seconds: float = 60) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (
                f"not within {seconds} s; the page says: {self.text('body')[:800]}"
            )
            time.sleep(0.1)

    def wait_for_rows(self, rows: int, seconds: float = 60) -> None:
        """Wait until the page has so many updates."""
        self.wait(lambda: self.run("document.body.dataset.rows") == str(rows), seconds)

    def errors(self) -> list[str]:
        """Return what the browser complains of: errors of scripts, and what the page may not load."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def too_wide(self) -> list[str]:
        """Return what sticks out of the window to the side."""
        return self.driver.execute_script(
            """
            const inside = (e) => e.closest('.scroll') && !e.classList.contains('scroll');
            return [...document.querySelectorAll('body *')]
              .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
              .filter((e) => !inside(e) && !e.closest('.uplot'))
              .map((e) => `${e.tagName}.${e.className}#${e.id}`);
            """
        )

    def picture(self, name: str, height: int | None = None, of: str = "watch") -> Path:
        """Write a picture of the whole page, of few colours and small, into a folder of the docs' results."""
        full = self.run("document.documentElement.scrollHeight")
        width = self.run("innerWidth")
        assert isinstance(full, int)
        assert isinstance(width, int)
        self.resize(width, height or full)
        time.sleep(0.3)  # charts follow the window
        image = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        path = PICTURES / of / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _of_few_colours(image).save(path, optimize=True)
        assert path.stat().st_size <= LARGEST, f"{path} has {path.stat().st_size} bytes"
        return path


def _of_few_colours(image: Image.Image, most: int = 56, apart: int = 12) -> Image.Image:
    """Return the picture in the colours that it has most of, no two of which are nearly the same."""
    counted = image.getcolors(1 << 24) or []
    chosen: list[tuple[int, ...]] = []
    for _, colour in sorted(counted, reverse=True):
        assert isinstance(colour, tuple)
        if all(max(abs(a - b) for a, b in zip(colour, other)) >= apart for other in chosen):
            chosen.append(colour)
        if len(chosen) == most:
            break
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in chosen for value in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


@pytest.fixture
def page(driver: webdriver.Chrome) -> Page:
    """A fresh page."""
    driver.get("about:blank")
    driver.get_log("browser")
    return Page(driver)


@contextmanager
def watched(folder: Path) -> Iterator[str]:
    """Start ``pirl-watch`` on a run; its address."""
    command = [sys.executable, "-m", "bridge.watch", str(folder.relative_to(folder.parents[1])), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder.parents[1]) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+/", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.kill()
