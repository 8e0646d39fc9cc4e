"""Data: a file for each kind, with its record."""

from __future__ import annotations

SPLITS = ("train", "search", "test")

DATA_KINDS: dict[str, str] = {
    "openmoji": "gantailor.zoo.data.kinds.openmoji:OPENMOJI",
    "folder": "gantailor.zoo.data.kinds.folder:FOLDER",
    "folders": "gantailor.zoo.data.kinds.folders:FOLDERS",
    "domains": "gantailor.zoo.data.kinds.domains:DOMAINS",
    "labels": "gantailor.zoo.data.kinds.labels:LABELS",
    "list": "gantailor.zoo.data.kinds.list:LIST",
    "classes": "gantailor.zoo.data.kinds.classes:CLASSES",
    "zip": "gantailor.zoo.data.kinds.zip:ZIP",
    "super_resolution": "gantailor.zoo.data.super_resolution.kind:SUPER_RESOLUTION",
    "tensors": "gantailor.zoo.data.kinds.tensors:TENSORS",
}
