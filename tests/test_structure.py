"""The house of docs/architecture.md: its floors, no circles, rooms and bodies of a size that one can read."""

import ast
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("supernet", "evaluators", "zoo", "search", "gantailor")  # each imports only what stands below it
MOST_FILES, MOST_METHODS, MOST_LINES = 14, 15, 40


def _modules():
    found = {}
    for floor in FLOORS:
        for file in sorted((ROOT / floor).rglob("*.py")):
            if not any(folder.is_symlink() for folder in file.parents):
                parts = [*file.relative_to(ROOT).with_suffix("").parts]
                parts = parts if floor == "gantailor" else ["gantailor", *parts]
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules()
TREES = {name: ast.parse(file.read_text()) for name, file in MODULES.items()}


def _imports(tree):
    """Our modules that a file imports when it runs, late ones too; what only types need does not count."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        for alias in tree.names:
            inner = f"{tree.module}.{alias.name}"
            yield inner if inner in MODULES else tree.module
    for child in ast.iter_child_nodes(tree):
        yield from _imports(child)


GRAPH = networkx.DiGraph(
    (name, used) for name, tree in TREES.items() for used in _imports(tree) if used in MODULES and used != "gantailor"
)


def _floor(module):
    room = module.split(".")[1] if "." in module else ""
    return FLOORS.index(room) if room in FLOORS else len(FLOORS) - 1


def test_nothing_imports_what_stands_above_it():
    assert [edge for edge in GRAPH.edges if _floor(edge[1]) > _floor(edge[0])] == []


def test_no_circles():
    assert [sorted(c) for c in networkx.strongly_connected_components(GRAPH) if len(c) > 1] == []


def test_only_the_package_is_imported_by_its_name():
    """``import supernet`` would load a second copy from the checkout, and fail in a wheel."""
    files = [f for d in ("tests", "benchmarks", "examples", *FLOORS) for f in (ROOT / d).rglob("*.py")]
    used = {(file, name.split(".")[0]) for file in files for name in _imports(ast.parse(file.read_text()))}
    assert [(file, name) for file, name in used if name in FLOORS[:-1]] == []


@pytest.mark.parametrize("floor", FLOORS)
def test_rooms_have_about_a_dozen_files(floor):
    folders = {file.parent for name, file in MODULES.items() if file.relative_to(ROOT).parts[0] == floor}
    counts = {str(f.relative_to(ROOT)): len([*f.glob("*.py")]) for f in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_classes_and_bodies_can_be_read():
    large = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
                large += [f"{name}.{node.name}: {len(methods)} methods"] if len(methods) > MOST_METHODS else []
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - first[0].lineno + 1 if first else 0
                large += [f"{name}.{node.name}: {lines} lines"] if lines > MOST_LINES else []
    assert large == []


DEVICES = ("cpu", "cuda", "mps")
NAMES_DEVICES = "gantailor.supernet.device"


@pytest.mark.parametrize("name", [name for name in MODULES if name != NAMES_DEVICES])
def test_one_place_names_devices(name):
    """All else follows the generator, or is told; Ray's resources are no devices of PyTorch."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Dict):  # {"cpu": 1.0}
            node.keys = [key for key in node.keys if not isinstance(key, ast.Constant)]
    found = [
        ast.unparse(node)
        for node in ast.walk(TREES[name])
        if (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition(":")[0] in DEVICES)
        or (isinstance(node, ast.Attribute) and node.attr in ("cuda", "is_cuda", "mps"))
    ]
    assert not found, f"{found}: gantailor.supernet.device decides where is computed"
