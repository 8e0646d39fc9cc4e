"""The import directions of docs/architecture.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"supernet", "evaluators", "zoo", "search", "gantailor"}
ALLOWED = {
    "supernet": set(),
    "evaluators": set(),
    "zoo": {"supernet"},
    "search": {"supernet", "evaluators"},
    "gantailor": OURS,
}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_import_directions(package):
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            used = {name.split(".")[0] for name in names} & OURS - {package}
            assert used <= ALLOWED[package], f"{file} imports {used}"
