"""Criteria of importance: which channels of a width matter most. See ``importance/ranking.py`` for what one is."""

CRITERIA: dict[str, str] = {
    "l1": "gantailor.supernet.importance.ranking:L1",
    "l1-producers": "gantailor.supernet.importance.ranking:L1_PRODUCERS",
    "taylor": "gantailor.supernet.importance.ranking:TAYLOR",
    "random": "gantailor.supernet.importance.ranking:RANDOM",
    "none": "gantailor.supernet.importance.ranking:NONE",
    "diversity": "gantailor.supernet.importance.ranking:DIVERSITY",
    "diversity-magnitude": "gantailor.supernet.importance.ranking:DIVERSITY_MAGNITUDE",
    "diversity-any-direction": "gantailor.supernet.importance.ranking:DIVERSITY_ANY_DIRECTION",
    "content": "gantailor.supernet.importance.ranking:CONTENT",
    "activation": "gantailor.supernet.importance.ranking:ACTIVATION",
}
