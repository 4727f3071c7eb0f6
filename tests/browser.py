"""A real browser for tests of pages: the system's Chromium, driven by Playwright; without them, tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser without a network."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("There is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, dark: bool = False) -> Iterator[tuple[Any, list[str]]]:
    """A page from disk in a window of this width, and a list that takes what goes wrong: errors, and requests."""
    context = browser.new_context(
        viewport={"width": width, "height": 812}, color_scheme="dark" if dark else "light", offline=True
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: None if request.url[:5] in ("data:", "blob:") else wrong.append(request.url))
    page.goto(path.as_uri())
    wrong.remove(path.as_uri())
    yield page, wrong
    context.close()
