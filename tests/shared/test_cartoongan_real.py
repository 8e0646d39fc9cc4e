"""The published CartoonGAN weights give the pictures that were published with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gantailor.zoo.generators.cartoongan.checkpoint import read_cartoongan
from gantailor.zoo.generators.cartoongan.generator import CartoonGenerator

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "cartoongan"
NAMES = ("15--324", "4--24", "in1")
pytestmark = [pytest.mark.long, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not here")]


@pytest.fixture(scope="module")
def hayao() -> CartoonGenerator:
    state = torch.load(FOLDER / "Hayao_net_G_float.pth", weights_only=True)
    net = CartoonGenerator().eval()
    assert ["rgb", *state] == list(net.state_dict())
    net.load_state_dict(read_cartoongan(state))
    return net


def one(folder: str, stem: str) -> Image.Image:
    (path,) = [path for path in (FOLDER / folder).iterdir() if path.stem == stem]
    return Image.open(path).convert("RGB")


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs(hayao: CartoonGenerator, name: str) -> None:
    picture = one("golden_input", name)
    width, height = picture.size
    ratio = width / height
    size = (450, int(450 / ratio)) if ratio > 1 else (int(450 * ratio), 450)
    pixels = np.array(picture.resize(size, Image.Resampling.BICUBIC))
    rgb = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1
    with torch.no_grad():
        y = hayao(rgb)[0].permute(1, 2, 0)
    rendered = ((y + 1) * 127.5).round().clamp(0, 255).double().numpy()
    golden = np.asarray(one("golden_output", f"{name}_Hayao"), dtype=np.float64)
    assert rendered.shape == golden.shape
    psnr = 10 * np.log10(255**2 / np.mean((rendered - golden) ** 2))
    assert psnr >= 30, f"{name}: {psnr:.2f} dB"
