"""Tables as CSV, as ``pandas.read_csv`` gives them back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def words_of(frame: pd.DataFrame, name: str) -> list[str]:
    """A column of words as they were before ``csv_bytes``, from the table that ``pandas.read_csv`` gives."""
    return [str(value).removeprefix(f"{name} ") for value in frame[name]]


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """The table as CSV; words that a reader takes for numbers, truth values or gaps have their column's name in front.

    A method called ``1``, a budget of ``800000000``, a run in the folder ``2024``: ``method 1``, ``budget 800000000``,
    ``run 2024``.
    """
    import pandas as pd

    if not len(frame.columns):
        return b""
    back = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    for name in frame.columns:
        words = [value for value in frame[name] if isinstance(value, str)]
        if words and words != [value for value in back[name] if isinstance(value, str)]:
            frame = frame.assign(**{name: [f"{name} {v}" if isinstance(v, str) else v for v in frame[name]]})
    written: bytes = frame.to_csv(index=False).encode()
    return written
