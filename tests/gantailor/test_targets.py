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

    @pytest.mark.slow  # minutes
    def test_dynamic_size(self):
        super().test_dynamic_size()


class TestTorchExport(TargetConformance):
    runtime = "torch-export"


class TestTorchscript(TargetConformance):
    runtime = "torchscript"


class TestNcnn(TargetConformance):
    runtime = "ncnn"


class TestLitert(TargetConformance):  # where the extra is installed: see docs/devices.md
    runtime = "litert"


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


@pytest.mark.parametrize("name", ["resnet_6blocks", "unet_128", "mobile_munit"])
@pytest.mark.parametrize(
    "target", ["onnxruntime-cpu", "torch-export", "torchscript", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_one_file_for_every_height_and_width(target, name, tmp_path):
    """The whole bottom of a U-Net is one pixel at the size that it is traced for; MUNIT pools over its pixels."""
    options, side, multiple = {
        "resnet_6blocks": ({"ngf": 4}, 16, 4),
        "unet_128": ({"ngf": 4}, 128, 128),
        "mobile_munit": ({"ngf": 4, "mlp_dim": 8, "n_res": 1}, 32, 4),
    }[name]
    torch.manual_seed(0)
    model = gantailor.build(name, **options).eval()
    profile = device(target).model_copy(update={"size": "dynamic", "batch": "dynamic"})
    found = export_model(tmp_path, model, torch.randn(1, 3, side, side), profile)
    assert found["shapes"] == [["batch", 3, "height", "width"]] and found["size_multiple"] == multiple
    assert len(found["proved"]) == 2 and [side, side] not in found["proved"]
    runner = load_runner(tmp_path / found["file"], profile)
    for sides in ((side, side), (side + 3 * multiple, side), (side + multiple, side + 4 * multiple)):
        x = torch.randn(2, 3, *sides)
        with torch.no_grad():
            assert np.abs(runner(x.numpy()) - model(x).numpy()).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_6blocks", "unet_128"])
def test_executorch_has_a_largest_side(name, tmp_path):
    torch.manual_seed(0)
    model, side = gantailor.build(name, ngf=4).eval(), {"resnet_6blocks": 16, "unet_128": 128}[name]
    profile = device("executorch-xnnpack").model_copy(update={"size": "dynamic"})
    found = export_model(tmp_path, model, torch.randn(1, 3, side, side), profile)
    assert found["largest_side"] == 4 * side and len(found["proved"]) == 2


def test_eight_bits_have_free_sizes(tmp_path):
    torch.manual_seed(0)
    model, pictures = gantailor.build("resnet_6blocks", ngf=4).eval(), torch.randn(4, 3, 16, 16)
    profile = device("onnxruntime-cpu-int8").model_copy(update={"size": "dynamic"})
    found = export_model(tmp_path, model, pictures[:1], profile, pictures=pictures)
    assert found["proved"] == [[20, 24], [8, 16]] and found["psnr_to_pytorch"] >= 20


class Flat(nn.Module):
    def forward(self, x):
        return x.view(len(x), 3, 1024).view(len(x), 3, 32, 32)


class Square(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, size=(32, 32))


class Counted(nn.Module):
    """Reads its width as a Python number, which a trace takes for a constant."""

    def forward(self, x):
        return x * (int(x.shape[-1]) / 32)


class Forked(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[-2] > 20 else x * 3


@pytest.mark.parametrize(
    ("model", "target", "said"),
    [
        (Flat(), "onnxruntime-cpu", r"has the size 32 x 32 built in \(view at 33 x 34: .*; use size: fixed"),
        (Square(), "torch-export", r"makes 32 x 32 pixels of 32 x 32 and of 33 x 34: its size is fixed; use size"),
        (Counted(), "torchscript", r"wrote a model that has the size 32 x 32 built in: at 33 x 34 .*or use size"),
        (Forked(), "torch-export", r"cannot take this generator at any size: Not all values of height .*use size"),
        (nn.Conv2d(3, 3, 1), "coreml", r"coreml has no dynamic size here; use size: fixed"),
    ],
)
def test_a_size_that_is_built_in_is_told(model, target, said, tmp_path):
    profile = device(target).model_copy(update={"size": "dynamic"})
    with pytest.raises(ExportError, match=said) as error:
        export_model(tmp_path, model.eval(), torch.randn(1, 3, 32, 32), profile)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("model.*"))


def test_latents_have_no_sides(tmp_path):
    model = gantailor.build("stylegan2", size=16, style_dim=16, n_mlp=2, channels={4: 16, 8: 8, 16: 8}).eval()
    profile = device("torch-export").model_copy(update={"size": "dynamic"})
    with pytest.raises(ExportError, match=r"the input \[1, 16\] has no height and width; use size: fixed$"):
        export_model(tmp_path, model, torch.randn(1, 16), profile)
    profile = profile.model_copy(update={"largest_side": 32, "size_multiple": 32})
    with pytest.raises(ExportError, match=r"built in, largest_side 32 leaves no other"):
        export_model(tmp_path, nn.Conv2d(3, 3, 1), torch.randn(1, 3, 32, 32), profile)


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
