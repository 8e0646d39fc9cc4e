"""The site: ``make site`` makes pages of this folder and of the public docstrings; warnings are errors."""

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

project, html_title, html_theme = "gantailor", "gantailor", "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors, myst_enable_extensions = 4, ["attrs_inline"]
autodoc_typehints, autodoc_member_order = "none", "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring, napoleon_use_ivar = True, True
exclude_patterns = ["conf.py"]
suppress_warnings = ["myst.header"]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def _stay_inside(app: Any, docname: str, source: list[str]) -> None:
    """Links to files of the checkout that are no pages become their names."""
    here = (DOCS / f"{docname}.md").parent

    def kept(found: re.Match[str]) -> str:
        return found[0] if (here / found[2]).resolve().is_relative_to(DOCS) else found[1]

    source[0] = LINK.sub(kept, source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _stay_inside)
