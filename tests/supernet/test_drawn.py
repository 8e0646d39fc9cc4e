"""Nets drawn at random: the proof holds and independent forwards agree, or it names the cause."""

import random

import pytest

from gantailor.supernet.graph import SubnetConfig
from tests.supernet.constructs import agrees, proved_or_told
from tests.supernet.drawn import CONSTRUCTS, Drawn

pytestmark = pytest.mark.long

# Which nets of the table below keep something whole, and why that has to be.
_HAVE_TO = ("is the generator's output", "is chosen from by argmin", "is cut at a fixed place")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("number", range(len(CONSTRUCTS)), ids=list(CONSTRUCTS))
def test_each_construct_beside_another(number):
    names = [list(CONSTRUCTS)[number], random.Random(number).choice(list(CONSTRUCTS))]
    model = Drawn(number, names)
    supernet = proved_or_told(model, model.example)
    agrees(supernet, model, model.example, seed=number)
    reasons = [reason for reason in supernet.graph.frozen.values() if not reason.startswith(_HAVE_TO)]
    assert not reasons or any("shortcut" in name for name in names), (model.said, supernet.graph)
    half = SubnetConfig({width.name: max(1, width.size // 2) for width in supernet.graph.widths})
    assert supernet.macs(half) <= 0.6 * supernet.macs({}) or reasons, (model.said, supernet.graph)
