"""Feature distillation: the student's intermediate features, mapped by 1x1 convolutions, match the teacher's.

Paper: Li et al. 2020, GAN Compression (arXiv 2003.08936), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.errors import ConfigError, nearest


@contextmanager
def capture(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, a forward of ``model`` leaves the outputs of the named modules in the yielded mapping."""
    modules = dict(model.named_modules())
    features: dict[str, Tensor] = {}
    handles = []
    for name in layers:
        if name not in modules:
            raise ConfigError(f"feature layer {name!r} is not in the generator: {nearest(name, modules)}")

        def hook(_module: nn.Module, _inputs: object, output: Tensor, *, key: str = name) -> None:
            features[key] = output

        handles.append(modules[name].register_forward_hook(hook))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


class FeatureMaps(nn.Module):
    """One 1x1 convolution for each layer, from the student's widest channels to the teacher's.

    A subnet's features have fewer channels; ``kept`` names which (the leading ones if it is ``None``), and the map's
    input columns are sliced to match.
    """

    def __init__(self, student: dict[str, int], teacher: dict[str, int]) -> None:
        super().__init__()
        self.layers = tuple(student)
        self.maps = nn.ParameterList(
            nn.init.kaiming_uniform_(torch.empty(teacher[name], student[name], 1, 1), a=5**0.5) for name in self.layers
        )

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], kept: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Sum over layers of the mean squared difference, a scalar."""
        total = torch.zeros(())
        for name, weight in zip(self.layers, self.maps, strict=True):
            feature = student[name].float()
            used = weight[:, : feature.shape[1]] if kept is None else weight[:, kept[name]]
            total = total.to(feature.device) + F.mse_loss(F.conv2d(feature, used), teacher[name].float())
        return total
