"""The mistakes a user can make when asking for a score."""


class EvaluationError(ValueError):
    """A score cannot be computed; the message holds what was given, what is allowed and the way out."""
