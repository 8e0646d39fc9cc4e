"""What several test files here use."""

import shutil
from contextlib import contextmanager

import pytest


@pytest.fixture
def browser():
    """Opens a page in headless Chromium; at the end its scripts must not have failed, nor asked the network."""

    @contextmanager
    def opened(page, **options):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("no Chromium on this machine")
        from playwright.sync_api import sync_playwright

        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=program, args=[*quiet, "--disable-component-update"])
            view = chromium.new_page(**options)
            errors = []
            view.on("pageerror", lambda error: errors.append(str(error)))
            view.on("request", lambda request: request.url[:5] in ("file:", "data:") or errors.append(request.url))
            view.goto(page.as_uri())
            yield view
            assert errors == []
            chromium.close()

    return opened
