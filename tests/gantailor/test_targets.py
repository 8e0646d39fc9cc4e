"""Every export target, ours and one from a file outside the packages; precisions that are written or refused."""

import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import gantailor
from gantailor.export.conformance import TargetConformance
from gantailor.export.devices import device
from gantailor.export.errors import ExportError
from gantailor.export.export import export_model, load_runner, local_runtime
from gantailor.export.target import Target, check_device, find_target, timed_here
from gantailor.export.targets import TARGETS
from gantailor.export.weights import read_weights, write_weights
from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.supernet.files import save_tensors

pytestmark = pytest.mark.long


class TestOnnxruntime(TargetConformance):
    runtime = "onnxruntime"


class TestOpenvino(TargetConformance):
    runtime = "openvino"


class TestExecutorch(TargetConformance):
    runtime = "executorch"


class TestTorchExport(TargetConformance):
    runtime = "torch-export"


class TestTorchscript(TargetConformance):
    runtime = "torchscript"


class TestCoreml(TargetConformance):
    runtime = "coreml"


OWN = '''
"""Points: 1 x 1 convolutions as matrices in an .npz file, run by numpy."""

import numpy as np

from gantailor.export.target import Target


def write(model, example, path, device):
    kind = np.dtype(device.precision)
    np.savez(path, weight=model.weight.detach().numpy()[..., 0, 0].astype(kind), bias=model.bias.detach().numpy().astype(kind))
    return "all in numpy"


def load_points(path, device):
    import numpy as np

    stored = np.load(path)
    weight, bias = stored["weight"].astype(np.float32), stored["bias"].astype(np.float32)
    return lambda x: np.einsum("oi,nihw->nohw", weight, x) + bias[:, None, None]


def held(path):
    arrays = np.load(path)
    return {str(arrays["weight"].dtype): arrays["weight"].size + arrays["bias"].size}


TARGET = Target(
    name="points",
    file="points.npz",
    write=write,
    load=load_points,
    packages=("numpy",),
    precisions=("float32", "float16"),
    dynamic=True,
    weights=held,
)
NO_TARGET = 7
'''  # noqa: E501


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with a module of somebody's own and device profiles that name its target."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "points_target.py").write_text(OWN)
    profiles = [
        f"{name}: {{runtime: 'points_target:TARGET', precision: {precision}, batch: dynamic}}\n"
        for name, precision in (("points", "float32"), ("points-half", "float16"), ("points-int8", "int8"))
    ]
    (folder / "own.yaml").write_text("".join(profiles) + "seven: {runtime: 'points_target:NO_TARGET'}\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("points_target", None)


@pytest.mark.usefixtures("outside")
class TestOwn(TargetConformance):
    runtime = "points_target:TARGET"

    def generator(self):
        torch.manual_seed(0)
        return nn.Conv2d(3, 500, 1).eval()


def test_a_target_of_ones_own_by_a_device_profile(outside, tmp_path):
    torch.manual_seed(0)
    model, x = nn.Conv2d(3, 4, 1), torch.randn(2, 3, 5, 5)
    for name in ("points", "points-half"):
        profile = device(f"{outside}/own.yaml:{name}")
        check_device(profile)
        found = export_model(tmp_path / name, model, x[:1], profile)
        assert found["runtime"] == "points_target:TARGET" and found["delegated"] == "all in numpy"
        assert found["weights"] == {profile.precision: 16}
        again = load_runner(tmp_path / name / "points.npz", profile)(x.numpy())
        assert np.abs(again - model(x).detach().numpy()).max() <= (1e-6 if name == "points" else 5e-3)
    assert timed_here(profile)
    with pytest.raises(ExportError, match=r"points has no int8 here; allowed: float32, float16$"):
        check_device(device(f"{outside}/own.yaml:points-int8"))
    with pytest.raises(ConfigError, match="'points_target:NO_TARGET' is a int; it must be a Target"):
        check_device(device(f"{outside}/own.yaml:seven"))
    assert callable(local_runtime(f"{outside}/own.yaml:points")(model, x[:1]))


def test_built_ins_have_their_names():
    for name in TARGETS:
        assert find_target(name).name == name


def test_profiles_name_what_there_is(tmp_path):
    (tmp_path / "own.yaml").write_text("phone: {runtime: onnxruntim}\n")
    with pytest.raises(ConfigError, match=r"^device '.*': runtime: runtime 'onnxruntim' is unknown; did you mean"):
        device(f"{tmp_path}/own.yaml")
    (tmp_path / "own.yaml").write_text("phone: {runtime: 'nowhere:TARGET'}\n")
    with pytest.raises(ConfigError, match="runtime 'nowhere:TARGET' cannot be imported"):
        check_device(device(f"{tmp_path}/own.yaml"))


@pytest.mark.parametrize("wrong", [{"precisions": ("int4",)}, {"precisions": ("int8",)}, {"precisions": ()}])
def test_records_are_whole(wrong):
    with pytest.raises(ConfigError, match="target 'mine'"):
        Target(name="mine", file="x", write=lambda *_: "", load=lambda *_: None, **wrong)


def test_a_loader_whose_source_is_hidden_is_told_at_once(monkeypatch):
    import gantailor.export.targets.torch_export as module

    hidden = Target(name="mine", file="x", write=lambda *_: "", load=lambda *_: None)
    monkeypatch.setattr(module, "TARGET", hidden)
    with pytest.raises(ConfigError, match=r"the source of load cannot be read for bench.py"):
        check_device(device("torch-export"))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return gantailor.build("resnet_6blocks", ngf=24).eval(), torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch-export", "torchscript", "openvino"])
def test_float16_is_in_the_file(runtime, resnet, tmp_path):
    """Not only in the manifest: weights are float16, the file half as large, and float32 goes in and comes out."""
    model, x = resnet
    profile = device("torch-export").model_copy(update={"runtime": runtime, "precision": "float16", "batch": "dynamic"})
    half = export_model(tmp_path / "half", model, x[:1], profile)
    whole = export_model(tmp_path / "whole", model, x[:1], profile.model_copy(update={"precision": "float32"}))
    assert half["bytes"] < 0.58 * whole["bytes"] and half["psnr_to_pytorch"] >= 50
    numbers = sum(p.numel() for p in model.parameters())
    assert half["weights"].get("float32", 0) < 0.01 * numbers <= 0.99 * numbers < half["weights"]["float16"]
    assert half["precision"] == "float16" and whole["weights"].get("float16", 0) == 0
    runner = load_runner(tmp_path / "half" / half["file"], profile)
    assert runner(x.numpy()).dtype == np.float32
    if runtime == "onnxruntime":
        graph = onnx.load(tmp_path / "half" / "model.onnx").graph
        kinds = Counter(t.data_type for t in graph.initializer if numpy_helper.to_array(t).ndim == 4)
        assert set(kinds) == {TensorProto.FLOAT16}
        assert graph.input[0].type.tensor_type.elem_type == graph.output[0].type.tensor_type.elem_type == 1
    if runtime == "torch-export":
        state = torch.export.load(str(tmp_path / "half" / "model.pt2")).state_dict
        assert {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.parametrize("name", ["spade", "munit", "stylegan2", "mobile_resnet_9blocks"])
def test_generators_with_other_layers_have_float16(name, tmp_path):
    """Layer, spectral and adaptive norms, modulated convolutions, upsampling."""
    options, shape = {
        "spade": ({"ngf": 4, "label_channels": 8, "size": (64, 128)}, (8, 64, 128)),
        "munit": ({"ngf": 4, "mlp_dim": 8}, (3, 32, 32)),
        "stylegan2": ({"size": 16, "style_dim": 16, "n_mlp": 2, "channels": {4: 16, 8: 8, 16: 8}}, (16,)),
        "mobile_resnet_9blocks": ({"ngf": 8, "norm": "batch"}, (3, 32, 32)),
    }[name]
    torch.manual_seed(0)
    model, x = gantailor.build(name, **options).eval(), torch.randn(1, *shape)
    profile = device("onnxruntime-cpu").model_copy(update={"precision": "float16"})
    found = export_model(tmp_path, model, x, profile)
    assert found["psnr_to_pytorch"] >= 50 and found["weights"].get("float32", 0) <= 16


def test_executorch_refuses_what_it_would_store_in_float32():
    profile = device("executorch-xnnpack").model_copy(update={"precision": "float16"})
    with pytest.raises(ExportError, match=r"executorch has no float16 here; allowed: float32, int8$"):
        check_device(profile)


def test_timings_of_eight_bits_are_of_eight_bits(resnet):
    """A profile in 8 bits is timed as what it says."""
    model, x = resnet
    with torch.no_grad():
        made, expected = local_runtime("onnxruntime-cpu-int8")(model, x[:1])(), model(x[:1]).numpy()
    assert 1e-4 < np.abs(made - expected).max() < 0.5


@pytest.mark.parametrize("name", ["resnet_6blocks", "stylegan2"])
def test_weights_say_how_to_build_their_generator(name, tmp_path):
    options, shape = {
        "resnet_6blocks": ({"ngf": 8}, (2, 3, 32, 32)),
        "stylegan2": ({"size": 16, "style_dim": 16, "n_mlp": 2, "channels": {4: 16, 8: 8, 16: 8}}, (2, 16)),
    }[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    supernet = gantailor.Supernet(gantailor.build(name, **options).eval(), (x,))
    config = {width.name: width.size // 2 for width in supernet.graph.widths}
    narrow = supernet.extract(config)
    origin = {
        "generator": name,
        "options": options,
        "config": config,
        "input_shapes": [tuple(x.shape)],
        "decisions": {},
    }
    file = write_weights(tmp_path, narrow, origin)
    assert file == tmp_path / "model.safetensors"
    tensors, said = read_weights(file)
    assert said == {**origin, "input_shapes": [list(x.shape)]}
    torch.manual_seed(1)
    inputs = tuple(torch.randn(shape) for shape in said["input_shapes"])
    fresh = gantailor.Supernet(gantailor.build(said["generator"], **said["options"]).eval(), inputs)
    again = fresh.extract(said["config"])
    again.load_state_dict(tensors)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), narrow.eval()(x))


def test_weights_without_an_origin_are_refused(tmp_path):
    origin = {"generator": "x", "options": {}, "config": {}, "input_shapes": [], "decisions": {}}
    with pytest.raises(ExportError, match="options"):
        write_weights(tmp_path, nn.Conv2d(1, 1, 1), {k: v for k, v in origin.items() if k != "options"})
    with pytest.raises(ExportError, match=r"decisions .* cannot be stored"):
        write_weights(tmp_path, nn.Conv2d(1, 1, 1), {**origin, "decisions": {"mask": torch.ones(1)}})
    with pytest.raises(ExportError, match=r"config .* cannot be stored"):
        write_weights(tmp_path, nn.Conv2d(1, 1, 1), {**origin, "config": {1: 2}})
    save_tensors(tmp_path / "old.safetensors", {"x": torch.ones(1)}, {"config": {}})
    with pytest.raises(CheckpointError, match="does not say its generator, options"):
        read_weights(tmp_path / "old.safetensors")
