"""The model card beside an export: Markdown with metadata in front, as Hugging Face's hub reads ``README.md``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gantailor.search.limits import format_macs
from gantailor.supernet.errors import UnreadableError
from gantailor.supernet.files import write_bytes
from gantailor.supernet.received.documents import read_text

FILE = "README.md"
WEIGHTS = "model.safetensors"
# The hub's words for licences; others are ``other``, with what was said as their name.
LICENCES = (
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "unlicense", "mpl-2.0", "openrail"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
)
TASKS = {"latents": "unconditional-image-generation"}  # by what goes in; else image-to-image
MARK = re.compile(r"<!-- written by gantailor, sha256 ([0-9a-f]{64}); edit it, and it stays as it is -->\n\Z")


def write_card(folder: Path, manifest: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Write ``README.md`` into an export's folder; one that somebody edited stays.

    Args:
        manifest: what ``manifest.json`` of the whole export says.
        made: more of how it was made, words by what they are of: ``{"method": "supernet", "budget": "0.1x"}``.

    Returns:
        Whether it was written.
    """
    file = folder / FILE
    if file.exists() and not _is_ours(file):
        return False
    text = card(manifest, made)
    digest = hashlib.sha256(text.encode()).hexdigest()
    mark = f"<!-- written by gantailor, sha256 {digest}; edit it, and it stays as it is -->\n"
    write_bytes(file, (text + mark).encode())
    return True


def _is_ours(file: Path) -> bool:
    """Whether a card is as it was written."""
    try:
        text = read_text(file)
    except (OSError, UnreadableError):
        return False
    found = MARK.search(text)
    return found is not None and hashlib.sha256(text[: found.start()].encode()).hexdigest() == found[1]


def card(manifest: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The card's text; what a manifest does not say is left out."""
    front = yaml.safe_dump(metadata(manifest), sort_keys=False, allow_unicode=True, width=10**6)
    parts = [
        f"---\n{front}---",
        f"# {_plain(_title(manifest))}",
        _summary(manifest),
        *_section("Costs", _costs(manifest)),
        *_section("Scores", _scores(manifest)),
        *_section("Use", _use(manifest)),
        *_section("Files", _files(manifest)),
        *_section("Provenance", _provenance(manifest, made)),
    ]
    return "\n\n".join(parts) + "\n\n"


def metadata(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML in front: library, licence, task, tags, metrics, and scores as the hub lists them."""
    task = TASKS.get(_takes(manifest), "image-to-image")
    devices = manifest.get("devices", {})
    onnx = any(str(found.get("file", "")).endswith(".onnx") for found in devices.values())
    tags = ["gan", task, "generator-compression", *(["onnx"] if onnx else [])]
    if "generator" in manifest:
        tags += ["pruning", "knowledge-distillation", _line(manifest["generator"])]
    found: dict[str, Any] = {"library_name": "gantailor", **_licence(manifest.get("licence"))}
    found |= {"pipeline_tag": task, "tags": tags}
    rows = manifest.get("scores", {}).get("subnet", {})
    if not rows:
        return found
    found["metrics"] = list(dict.fromkeys(name.partition("[")[0] for name in rows))
    data = manifest["provenance"].get("data", {})
    scored = {
        "task": {"type": task},
        "dataset": {
            "type": str(data.get("kind")),
            "name": "test split",
            "revision": data.get("digests", {}).get("test"),
        },
        "metrics": [{"type": n.partition("[")[0], "name": n, "value": row["value"]} for n, row in rows.items()],
    }
    return {**found, "model-index": [{"name": _title(manifest), "results": [scored]}]}


def _licence(said: str | None) -> dict[str, str]:
    """As the hub writes licences; nothing where nothing was said."""
    if not said:
        return {}
    name = re.sub(r"[\s_]+", "-", said.strip().lower())
    return {"license": name} if name in LICENCES else {"license": "other", "license_name": _line(said)}


def _takes(manifest: Mapping[str, Any]) -> str:
    inputs = manifest.get("inputs") or [{}]
    return str(inputs[0].get("kind", "pictures"))


def _ratio(manifest: Mapping[str, Any]) -> float | None:
    whole, narrow = (manifest.get(name, {}).get("true") for name in ("teacher_macs", "macs"))
    return whole / narrow if whole and narrow else None


def _title(manifest: Mapping[str, Any]) -> str:
    ratio, name = _ratio(manifest), _line(manifest.get("generator", "generator"))
    return f"Narrow {name}" + (f", {ratio:.3g}x fewer MACs" if ratio else "")


def _summary(manifest: Mapping[str, Any]) -> str:
    teacher = manifest["provenance"].get("teacher")
    text = "A GAN generator"
    if "generator" in manifest:
        text += f" ({_code(manifest['generator'])})"
    if ratio := _ratio(manifest):
        text += f" that was cut to {1 / ratio:.1%} of the multiply-accumulates of "
        text += f"its teacher {_code(teacher['file'])}" if teacher else "the whole one"
    shapes = " and ".join(f"{one['kind']} {' x '.join(map(str, one['shape']))}" for one in manifest.get("inputs", ()))
    made = " and ".join(f"{' x '.join(map(str, one['shape']))}" for one in manifest.get("outputs", ()))
    licence = _plain(manifest.get("licence") or "not said; ask who made it")
    text += f". It takes {shapes} and makes pictures {made}. What it was trained on is all it knows."
    return f"{text}\n\nLicence: {licence}."


def _section(title: str, lines: Iterator[str]) -> list[str]:
    text = "\n".join(lines)
    return [f"## {title}", text] if text else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield f"|{'---|' * len(head)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)


def _costs(manifest: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, key in (("MACs", "true"), ("MACs as published tables count", "published")):
        whole, narrow = (manifest.get(part, {}).get(key) for part in ("teacher_macs", "macs"))
        if whole and narrow:
            rows.append((name, format_macs(whole), format_macs(narrow), f"{whole / narrow:.3g}x"))
    whole, narrow = manifest.get("teacher_parameters"), manifest.get("parameters")
    if narrow:
        ratio = f"{whole / narrow:.3g}x" if whole else ""
        rows.append(("parameters", format_macs(whole) if whole else "", format_macs(narrow), ratio))
    for name, found in manifest.get("devices", {}).items():
        if ms := found.get("latency_ms"):
            ratio = f"{ms['teacher'] / ms['subnet']:.3g}x"
            rows.append((f"ms, {_plain(name)}", f"{ms['teacher']:.3g}", f"{ms['subnet']:.3g}", ratio))
    yield from _table(("", "before", "after", "ratio"), rows)


def _scores(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Of the result beside the teacher's and those of the untouched input."""
    scores = manifest.get("scores", {})
    rows = scores.get("subnet", {})
    others = [name for name in scores if name != "subnet"]
    cells = []
    for key, row in rows.items():
        beside = [f"{scores[name][key]['value']:.4g}" if key in scores[name] else "" for name in others]
        arrow = "↓" if row["lower_is_better"] else "↑"
        cells.append((f"{_plain(key)} {arrow}", f"{row['value']:.4g}", *beside, _plain(row["unit"])))
    yield from _table(("score", "this", *map(_plain, others), "unit"), cells)
    if cells:
        yield "\n↓ lower is better, ↑ higher is better; on the test split. `scores.json` says how each was measured."


def _use(manifest: Mapping[str, Any]) -> Iterator[str]:
    if "config" in manifest:
        inputs = manifest["inputs"]
        names = ["x"] if len(inputs) == 1 else [re.sub(r"\W", "_", str(one["name"])) for one in inputs]
        yield "```python\nimport gantailor, torch\n"
        yield f'generator = gantailor.load("{WEIGHTS}")  # pip install gantailor'
        for name, one in zip(names, inputs, strict=True):
            between = f"values in {one['range']}" if one.get("range") else "any values"
            yield f"{name} = torch.zeros({tuple(one['shape'])})  # {one['kind']}, {one['layout']}, {between}"
        yield "with torch.no_grad():"
        yield f"    made = generator({', '.join(names)})  # values in {manifest['outputs'][0]['range']}"
        yield "```\n"
    for name, found in manifest.get("devices", {}).items():
        runtime, precision = _plain(found.get("runtime", "")), _plain(found.get("precision", ""))
        yield f"- {_code(name)}: {runtime}, {precision}; `manifest.json` in it says how it is fed and read"


def _files(manifest: Mapping[str, Any]) -> Iterator[str]:
    found = dict(manifest.get("sha256", {}))
    for device, said in manifest.get("devices", {}).items():
        found |= {f"{device}/{name}": digest for name, digest in said.get("sha256", {}).items()}
    yield from _table(("file", "sha256"), [(_code(name), _code(digest)) for name, digest in found.items()])


def _provenance(manifest: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    """From what it was made, each by its hash."""
    known = manifest["provenance"]
    for name, value in made.items():
        yield f"- {name}: {_code(value)}"
    if teacher := known.get("teacher"):
        yield f"- teacher: {_code(teacher['file'])}, a {_code(teacher['generator'])}, sha256 {_code(teacher['sha256'])}"
    if data := known.get("data"):
        digests = ", ".join(f"{split} {_code(digest)}" for split, digest in data.get("digests", {}).items())
        licence = f", licence {_plain(data['licence'])}" if data.get("licence") else ""
        yield f"- data: {_code(data['kind'])}{licence}; digests {digests}"
    if known.get("subnet"):
        yield f"- widths and weights: sha256 {_code(known['subnet'])}"
    versions = [f"{name} {known[name]}" for name in ("gantailor", "torch") if name in known]
    yield f"- made by {_plain(', '.join(versions))}"


def _plain(text: object) -> str:
    """Anybody's words in a line of Markdown, taken for nothing else."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", _line(text))


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _code(text: object) -> str:
    """Anybody's words as code; they end neither it nor a cell."""
    return "`" + _line(text).replace("`", "'").replace("|", "/") + "`"
