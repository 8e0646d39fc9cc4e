"""Every compression method passes the same tests."""

from typing import ClassVar

from gantailor.search.methods import METHODS
from gantailor.search.methods.conformance import MethodConformance


class TestSupernet(MethodConformance):
    name = "supernet"
    settings: ClassVar = {"train": {"output_weight": 10.0, "feature_weight": 1.0}}


class TestDiversity(MethodConformance):
    name = "diversity"


class TestSlimming(MethodConformance):
    name = "slimming"
    settings: ClassVar = {"train": {"output_weight": 10.0, "bits": 0}, "finetune": {"bits": 0}}


class TestHypernetwork(MethodConformance):
    name = "hypernetwork"


class TestAgents(MethodConformance):
    name = "agents"
    settings: ClassVar = {
        "train": {"ndf": 8, "method_options": {"discriminator_kimg": 0.008, "neighbours": 2}},
        "finetune": {"ndf": 8},
    }


def test_none_is_left_out():
    tested = {kind.name for kind in MethodConformance.__subclasses__()}
    assert tested >= set(METHODS)
