"""The traced groups agree with Torch-Pruning's dependency graph, an independent tool that walks the autograd graph."""

import pytest
import torch

import gantailor

tp = pytest.importorskip("torch_pruning", reason="a test-only dependency")

CASES = {
    "resnet_9blocks": ({"ngf": 8}, (3, 64, 64)),  # CycleGAN's
    "unet_128": ({"ngf": 8}, (3, 128, 128)),
    "spade": ({"ngf": 4, "label_channels": 5, "size": (64, 128)}, (5, 64, 128)),
}


def their_groups(model, example):
    """For each prunable output channel axis: the (layer, in or out) axes that lose channels with it."""
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {module: name for name, module in model.named_modules()}
    layers = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
    found = set()
    for module in model.modules():
        if not isinstance(module, layers):
            continue
        group = graph.get_pruning_group(module, _out(module), idxs=[0])
        if any(dep.target.module is _last(model) and dep.handler == _out(_last(model)) for dep, _ in group):
            continue  # the picture's own channels
        axes = set()
        for dependency, _ in group:
            target = dependency.target.module
            if isinstance(target, layers):
                side = "out" if dependency.handler == _out(target) else "in"
                axes.add((names[target], side))
        found.add(frozenset(axes))
    return found


def _out(module):
    return tp.prune_linear_out_channels if isinstance(module, torch.nn.Linear) else (tp.prune_conv_out_channels)


def _last(model):
    return [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))][-1]


def our_groups(supernet):
    found = [set() for _ in supernet.graph.widths]
    for name, axes in supernet.graph.axes.items():
        layer, _, leaf = name.rpartition(".")
        module = supernet.generator.get_submodule(layer)
        if leaf != "weight" or not hasattr(module, "weight") or module.weight.dim() < 2:
            continue
        swapped = isinstance(module, torch.nn.ConvTranspose2d)
        for dimension, axis in axes.items():
            for width in axis.counts:
                found[width].add((layer, "out" if (dimension == 0) != swapped else "in"))
    return {frozenset(axes) for axes in found}


@pytest.mark.parametrize("name", CASES)
def test_groups_agree(name):
    options, shape = CASES[name]
    torch.manual_seed(0)
    model, example = gantailor.build(name, **options).eval(), torch.randn(1, *shape)
    supernet = gantailor.Supernet(model, (example,))
    ours, theirs = our_groups(supernet), their_groups(model, example)
    assert len(ours) == len(supernet.graph.widths)
    assert ours == theirs
