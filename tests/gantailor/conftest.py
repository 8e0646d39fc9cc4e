"""What several test files here use."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory):
    """The key that marks runs as one's own is not put into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """A checkpoint of ``resnet_6blocks`` with ngf 8 and random weights."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("teacher") / "latest_net_G.pth"
    torch.save(gantailor.build("resnet_6blocks", ngf=8).state_dict(), weights)
    return weights


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of a few aligned pairs at 32 px."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir()
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / split / f"{number}.png")
    return folder


def stopped(request, asked):
    """What a page's content security policy stops is never sent."""
    if request.failure == "csp" and request.url in asked:
        asked.remove(request.url)


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
            view.on("requestfailed", lambda request: stopped(request, errors))
            view.goto(page.as_uri())
            yield view
            assert errors == []
            chromium.close()

    return opened
