"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OURS = "supernet|evaluators|zoo|search|gantailor|tests|benchmarks|examples|docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    targets = {page.parent / link for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)}
    targets |= {ROOT / path for path in re.findall(rf"`((?:{OURS})/[\w./]*(?:\.\w+|/))(?=[`:])", text)}
    assert [
        str(target) for target in targets if not target.exists() and not re.search("NAME|FAMILY", target.name)
    ] == []
