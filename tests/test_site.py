"""The docs as a site: built without a warning, every public name in it, no request to another host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gantailor

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text()
    named = {name.rpartition(".")[2] for name in re.findall(r"\.\. auto\w+:: (\S+)", text)}
    assert named == set(gantailor.__all__)


@pytest.mark.long
def test_it_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        tmp_path / "trees",
        "docs",
        tmp_path / "site",
    ]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference.html").read_text()
    assert reference.count('class="sig sig-object py"') >= len(gantailor.__all__)
    for page in (tmp_path / "site").rglob("*.html"):
        assert re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page.read_text()) == [], page
    guides = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in guides if not (tmp_path / "site" / page).exists()] == []
