"""Pages that ask no network for anything, and run no script but their template's."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

BASE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
HEAD = '<meta charset="utf-8">'


def policy(scripts: Sequence[str] = (), *, itself: bool = False) -> str:
    """A content security policy: nothing but what is in the page, of scripts these alone.

    Args:
        itself: it may ask who served it again.
    """
    allowed = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    asked = "; connect-src 'self'" if itself else ""
    return BASE + "".join(f"; script-src 'sha256-{value}'" for value in allowed) + asked


def with_policy(page: str) -> bytes:
    """A page with its content security policy, which allows the last script: what a name might bring in comes before.

    Args:
        page: HTML that says its letters' encoding by ``HEAD``; its own script, if it has one, is its last.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page[page.rfind("<script>") :], re.DOTALL)
    said = policy(scripts)
    return page.replace(HEAD, f'{HEAD}<meta http-equiv="Content-Security-Policy" content="{said}">', 1).encode()
