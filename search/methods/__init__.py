"""The compression systems: a folder for each, whose ``method.py`` holds its record, a ``Method``."""

METHODS: dict[str, str] = {
    "supernet": "gantailor.search.methods.supernet.method:SUPERNET",
    "diversity": "gantailor.search.methods.diversity.method:DIVERSITY",
    "slimming": "gantailor.search.methods.slimming.method:SLIMMING",
    "hypernetwork": "gantailor.search.methods.hypernetwork.method:HYPERNETWORK",
    "agents": "gantailor.search.methods.agents.method:AGENTS",
}
