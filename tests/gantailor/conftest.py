"""What several test files here use."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.run.config import Config


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


def barriers(view):
    """What keeps people from using the page as it is shown now, by axe: serious findings and worse."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(view).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


CUT = """() => {
  const found = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
  for (const box of document.querySelectorAll(".wide:not(.scrolls), .plot, .below, .chart"))
    if (box.scrollWidth > box.clientWidth + 1) found.push(box.textContent.trim().slice(0, 80));
  for (const text of document.querySelectorAll("svg text")) {
    const at = text.getScreenCTM(), size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(at.a, at.b);
    if (text.getBoundingClientRect().width && size < 5.5) found.push(`${text.textContent}: ${size.toFixed(1)} px`);
  }
  return found;
}"""  # names of many widths, on their sides below bars, are the smallest


@pytest.fixture
def browser():
    """Opens a page in headless Chromium; at the end its scripts must not have failed, nor asked the network.

    Neither may anything lie beyond the edge of the page or of its own box, nor the text of plots be too small to read.

    ``served``: how addresses begin that it may ask all the same; ``usable``: axe must find nothing serious.
    """

    @contextmanager
    def opened(page, *, served="file:", usable=True, **options):
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
            view.on("request", lambda request: request.url.startswith((served, "data:")) or errors.append(request.url))
            view.on("requestfailed", lambda request: stopped(request, errors))
            view.goto(page if isinstance(page, str) else page.as_uri())
            yield view
            assert errors == []
            assert view.evaluate(CUT) == []
            assert not usable or barriers(view) == []
            chromium.close()

    return opened


class MadeRuns:
    """Run folders as runs leave them, written in a moment: what lies there is as much as a look at them reads."""

    macs = {"true": 1000, "published": 1100}

    def write(self, folder, name, value):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))

    def lines(self, *rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    def begun(self, folder, **settings):
        """A run that was checked and trains."""
        self.write(folder, "config.json", Config(**settings).model_dump(mode="json"))
        self.write(folder, "trace.json", {"macs_full": self.macs, "budget_macs": 500, "convention": "true"})
        rows = [{"step": n, "kimg": 0.6 * n, "images_per_second": 20.0, "target": 1 / n} for n in (1, 2, 4)]
        self.write(folder, "supernet.ckpt.jsonl", self.lines(*rows))
        return folder

    def finished(self, folder, **settings):
        """A run through every stage."""
        self.begun(folder, **settings)
        for name in ("supernet.safetensors", "subnet.safetensors", "report.html"):
            self.write(folder, name, "any")
        self.write(folder, "subnet.json", {"body.1": 4, "body.2": 8})
        self.write(folder, "front.csv", "trial,macs_true,body.1,body.2\n0,900,8,8\n1,470,4,8\n")
        scores = {"subnet": {"l1": {"value": 0.125}, "fid": {"value": 31.0}, "psnr": {"value": 20.0}}}
        self.write(folder, "scores.json", scores)
        self.write(folder, "export/manifest.json", {"macs": {"true": 480}, "teacher_macs": self.macs})
        return folder


@pytest.fixture(scope="session")
def made():
    """Makes run folders."""
    return MadeRuns()
