"""Which files of a folder are pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from gantailor.supernet.errors import DataError, GantailorError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class PictureFile(Protocol):
    """A path, or what lies in an archive; its text names it in messages."""

    @property
    def name(self) -> str:
        """Without the folder."""
        ...

    def read_bytes(self) -> bytes:
        """The whole content."""
        ...


def list_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, by name; none where it is no folder.

    Left out are hidden names (the ``._x.png`` in archives of a Mac) and what is no file: folders, sockets, devices, and
    FIFOs, which would wait for a writer.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # which knows what is a file without asking for each
        names = sorted(entry.name for entry in entries if is_picture_name(entry.name) and entry.is_file())
    return [folder / name for name in names]


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def picture_files(
    folder: Path, *, what: str = "data folder", error: type[GantailorError] = DataError, fix: str = ""
) -> list[Path]:
    """The picture files of a folder, by name; there is at least one.

    Args:
        what: the folder is called in messages.
        fix: what to give where there is no such folder.

    Raises:
        GantailorError: of the type ``error``, where the folder is missing, cannot be listed or holds none.
    """
    if not folder.is_dir():
        raise error(f"{what} {str(folder)!r} does not exist; {fix or 'give a folder with pictures'}")
    try:
        files = list_pictures(folder)
    except OSError as failure:
        raise error(f"{what} {str(folder)!r} cannot be listed ({failure.strerror}); mend its permissions") from None
    if not files:
        allowed = f"allowed are files ending in {', '.join(SUFFIXES)}, without a dot in front"
        raise error(f"{what} {str(folder)!r} holds no pictures; {allowed}")
    return files
