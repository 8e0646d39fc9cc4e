"""What goes wrong between a generator and its exported file."""

from __future__ import annotations

from gantailor.supernet.errors import GantailorError


class ExportError(GantailorError):
    """A model cannot be written for a device, or the written one differs from what it was made from."""
