"""What tracing and repair decided is stored, and replayed without a proof and with one trace."""

import copy
import json

import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet import supernet
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import CheckpointError, ConfigError, SelectionError
from gantailor.supernet.proof import double


class Net(nn.Module):
    """A generator that writes numbers of its channels: one fixes a width, one makes a width inexact."""

    def __init__(self, middle="conv"):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.add_module(middle, nn.Conv2d(16, 12, 1))
        self.middle, self.head = middle, nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x):
        x = self.wide(torch.relu(self.stem(x)))
        x = x.view(len(x), 16, -1).view(len(x), 16, *x.shape[2:])
        x = self.get_submodule(self.middle)(x)
        return self.head(x / x.shape[1])


@pytest.fixture
def traces(monkeypatch):
    """The number of traces, as it grows."""
    found, real = [], supernet.trace

    def counted(*args, **options):
        found.append(1)
        return real(*args, **options)

    for module in (supernet, double):
        monkeypatch.setattr(module, "trace", counted)
    return found


def inputs(side=8):
    return (torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)),)


def repaired(side=8):
    torch.manual_seed(0)
    net = gantailor.Supernet(Net(), inputs(side))
    gantailor.verify(net, repair=True)
    return net


def test_a_repaired_graph_is_replayed_from_json(traces):
    first = repaired()
    assert "wide" in first.decisions.whole and "conv" in first.decisions.inexact
    stored = json.loads(json.dumps(first.decisions.to_json()))
    traces.clear()
    again = gantailor.Supernet(first.generator, inputs(), decisions=Decisions.from_json(stored))
    assert len(traces) == 1
    assert str(again.graph) == str(first.graph) and again.graph.widths == first.graph.widths
    assert again.decisions == first.decisions
    config = {"stem": 3, "conv": 5}
    assert again.macs(config) == first.macs(config) and again.parameter_count(config) == first.parameter_count(config)
    mine, theirs = again.extract(config), first.extract(config)
    states = mine.state_dict(), theirs.state_dict()
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert torch.equal(mine(*inputs()), theirs(*inputs()))
    gantailor.verify(again)


def test_branches_are_replayed_without_asking_again(monkeypatch):
    first = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=4), (torch.randn(1, 3, 32, 32),))
    assert first.decisions.branches is None
    expected = first.branches
    assert len(first.decisions.branches) == len(expected) == 6
    monkeypatch.setattr(supernet, "branches", lambda _: pytest.fail("asked again"))
    decisions = Decisions.from_json(first.decisions.to_json())
    assert gantailor.Supernet(first.generator, first.example_inputs, decisions=decisions).branches == expected


@pytest.mark.parametrize("side", [8, 64])
def test_a_proof_that_needs_no_repair_traces_nothing_more(traces, side):
    net = gantailor.Supernet(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)), (torch.randn(1, 3, side, side),))
    gantailor.verify(net, repair=True)
    assert len(traces) == 1


def test_larger_pictures_are_traced_once_more_for_all_proofs(traces):
    net = gantailor.Supernet(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)), (torch.randn(1, 3, 256, 256),))
    gantailor.verify(net, repair=True)
    gantailor.verify(net)
    assert net.branches == frozenset()
    assert net.small_inputs[0].shape == (1, 3, 64, 64)
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        (Decisions(whole={"wide": "fixed"}), r"decided whole: the generator has no 'wide'; .*Allowed: "),
        (Decisions(inexact={"stem": "", "convs": ""}), r"decided inexact: the generator has no 'stem', 'convs'; "),
        (Decisions(freeze=("3",)), r"freeze: the generator has no '3'; "),
        (Decisions(branches=("1",)), r"decided branch '1' is none of this generator's; "),
    ],
)
def test_decisions_of_another_generator_are_refused(decisions, message):
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3))
    with pytest.raises(SelectionError, match=message) as caught:
        gantailor.Supernet(other, inputs(), decisions=decisions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"decisions cannot be \[\]"),
        ({"whole": ["a"]}, r"decisions.whole cannot be \['a'\]"),
        ({"inexact": {"a": 1}}, "decisions.inexact cannot be"),
        ({"freeze": "stem"}, "decisions.freeze cannot be 'stem'; give a list"),
        ({"freeze": None}, "decisions.freeze cannot be None"),
        ({"branches": [1]}, "decisions.branches cannot be"),
        ({"unknown": "skip"}, "unknown cannot be 'skip'; allowed are error and freeze"),
        ({"hole": {}}, r"no entry 'hole'; did you mean 'whole'\?"),
    ],
)
def test_wrong_types_are_named(value, message):
    with pytest.raises(ConfigError, match=message):
        Decisions.from_json(value)


def test_missing_entries_have_their_defaults():
    assert Decisions.from_json({}) == Decisions()
    assert Decisions.from_json({"freeze": ["a"], "branches": None}) == Decisions(freeze=("a",))


def test_freeze_beside_decisions_is_refused():
    with pytest.raises(ConfigError, match="not both"):
        gantailor.Supernet(Net(), inputs(), freeze=["stem"], decisions=Decisions())


def test_a_failed_amendment_leaves_the_supernet_as_it_was():
    net = repaired()
    before = net.decisions, str(net.graph)
    with pytest.raises(SelectionError):
        net.amend(whole={"nothing": "fixed"}, inexact={})
    assert (net.decisions, str(net.graph)) == before


def test_other_weights_need_no_trace_and_leave_the_first_alone(traces):
    first = repaired()
    first.small_inputs = first.example_inputs
    before = {name: value.clone() for name, value in first.generator.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    traces.clear()
    other, copied = first.with_weights(state), copy.deepcopy(first)
    assert traces == []
    assert other.graph is first.graph is copied.graph and other.example_inputs is first.example_inputs
    assert other.decisions == first.decisions == copied.decisions
    assert all(torch.equal(value, before[name]) for name, value in first.generator.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in other.generator.state_dict().items())
    config = {"stem": 3, "conv": 5}
    assert torch.equal(other(*inputs(), config=config), other.extract(config)(*inputs()))
    assert not torch.equal(other(*inputs(), config=config), first(*inputs(), config=config))
    other.amend(whole={"stem": "asked"}, inexact={})
    assert "stem" in first.graph.index and "stem" not in other.graph.index
    with pytest.raises(CheckpointError, match=r"do not fit the generator Net: .*stem"):
        first.with_weights({**state, "stem.weight": torch.zeros(1)})
