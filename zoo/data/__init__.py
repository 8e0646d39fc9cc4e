"""Data: a file for each kind, with its record."""

from __future__ import annotations

SPLITS = ("train", "search", "test")

DATA_KINDS: dict[str, str] = {
    "openmoji": "gantailor.zoo.data.kinds.openmoji:OPENMOJI",
    "folder": "gantailor.zoo.data.kinds.folder:FOLDER",
    "domains": "gantailor.zoo.data.kinds.domains:DOMAINS",
    "labels": "gantailor.zoo.data.kinds.labels:LABELS",
}
