"""Batch norm statistics of a subnet: made anew in the copy, never in the supernet."""

import pytest
import torch

import gantailor
from gantailor.supernet.calibration import has_running_statistics, recalibrate
from gantailor.supernet.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("unet_128", {"ngf": 4, "dropout": True}, (3, 128, 128)),
        ("resnet_6blocks", {"ngf": 4, "norm": "batch"}, (3, 32, 32)),
        ("spade", {"ngf": 4, "label_channels": 5, "size": (64, 128)}, (5, 64, 128)),
    ],
)
def test_statistics_are_those_of_the_pictures(name, options, shape):
    torch.manual_seed(0)
    x = torch.randn(4, *shape)
    supernet = gantailor.Supernet(gantailor.build(name, **options), (x,)).eval()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    config = {width.name: max(1, width.size // 2) for width in supernet.graph.widths}
    narrow = recalibrate(supernet.extract(config), [x])
    assert not narrow.training
    means = {n: b for n, b in narrow.named_buffers() if n.endswith("running_mean")}
    seen = {}

    def look(path):
        return lambda _module, inputs, _out: seen.update({path: inputs[0].mean((0, 2, 3))})

    literal = supernet.extract(config).eval()
    for path, module in literal.named_modules():
        if f"{path}.running_mean" in means:
            module.train()
            module.register_forward_hook(look(path))
    with torch.no_grad():
        literal(x)
    for path, mean in seen.items():
        torch.testing.assert_close(means[f"{path}.running_mean"], mean)
    assert len(seen) == len(means) > 3
    after = supernet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_supernet_is_refused():
    """Its widths share the statistics; those of its average's full width are the trainer's own."""
    x = torch.randn(2, 3, 8, 8)
    supernet = gantailor.Supernet(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), x)
    with pytest.raises(ConfigError, match=r"was given a Supernet, .*; give supernet\.extract\(config\)"):
        recalibrate(supernet, [x])
    assert not supernet.generator[1].running_mean.any()


def test_nothing_to_do_without_statistics():
    model = gantailor.build("resnet_6blocks", ngf=4)
    assert not has_running_statistics(model)
    assert not recalibrate(model, iter(())).training


def test_what_cannot_be_used_leaves_the_statistics():
    """No batch at all, as of an iterator that was used before, or one of another shape."""
    model, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), torch.randn(4, 3, 8, 8)
    batches = iter(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=2))
    recalibrate(model, batches)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match="was given no batch"):
        recalibrate(model, batches)
    with pytest.raises(RuntimeError, match="channels"):
        recalibrate(model, [x, x[:, :2]])
    assert before["1.running_mean"].abs().max() > 0 and before["1.num_batches_tracked"] == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
