"""Data: a file for each kind, with its record."""

from __future__ import annotations

SPLITS = ("train", "search", "test")

DATA_KINDS: dict[str, str] = {
    "openmoji": "gantailor.zoo.data.openmoji:OPENMOJI",
    "folder": "gantailor.zoo.data.folder:FOLDER",
    "domains": "gantailor.zoo.data.unpaired:DOMAINS",
    "labels": "gantailor.zoo.data.labels:LABELS",
}
