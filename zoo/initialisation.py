"""Fresh weights as the papers draw them."""

from __future__ import annotations

from typing import Literal

from torch import nn


def init_weights(model: nn.Module, kind: Literal["normal", "xavier"] = "normal") -> nn.Module:
    """Convolutions drawn from N(0, 0.02) as in pix2pix, or by Xavier with gain 0.02 as in SPADE; biases 0; in place.

    Scales of batch norms are drawn from N(1, 0.02), as in both.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if kind == "xavier":
                nn.init.xavier_normal_(module.weight, 0.02)
            else:
                nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1, 0.02)
            nn.init.zeros_(module.bias)
    return model
