"""Neighbourhoods of a run's teacher: computed once for teacher, pictures and embedding, and kept in the cache."""

from __future__ import annotations

import io

import numpy as np
import torch

from gantailor.run import Run
from search.methods.neighbourhoods import neighbourhoods
from supernet.files import state_digest, write_bytes
from zoo.builders import build_function
from zoo.data import cache_folder

BATCH = 32


def neighbours_of(run: Run, count: int) -> np.ndarray:
    """For each training picture its own index and its ``count`` nearest by the teacher's outputs ``[N, count + 1]``."""
    return neighbourhoods(_features(run), count)


@torch.no_grad()
def _features(run: Run) -> np.ndarray:
    """Embedded teacher outputs over the training inputs ``[N, d]``."""
    data, teacher, name = run.data("train"), run.teacher(), run.config.embedding
    extractor = run.scoring().extractor() if name is None else None
    embedding = extractor.weights_hash if extractor is not None else str(name)
    file = cache_folder() / f"embedded-{state_digest(teacher, f'{data.digest()}|{embedding}')[:16]}.npy"
    if file.exists() and name is None:  # what a user's own function does may have changed
        return np.load(file)
    embed = extractor or build_function(str(name), "embedding")
    rows = []
    listener = run.report.pictures("neighbourhoods")
    for chosen in np.array_split(np.arange(len(data)), -(-len(data) // BATCH)):
        inputs, _ = data.batch(chosen)
        rows.append(embed(teacher(inputs)).float().cpu().numpy())
        listener(int(chosen[-1]) + 1, len(data))
    found = np.concatenate(rows)
    buffer = io.BytesIO()
    np.save(buffer, found)
    write_bytes(file, buffer.getvalue())
    return found
