"""The search's errors."""

from gantailor.supernet.errors import GantailorError


class SearchError(GantailorError):
    """The search cannot go on; the message says why."""
