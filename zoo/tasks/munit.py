"""Training MUNIT: an auto-encoder for each domain, content shared, styles random (Huang et al. 2018, 1804.04732)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.training.losses import fake_loss, generator_loss, real_loss
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import adam
from gantailor.zoo.data.domains import Both, Domains, backward_both, judges_of
from gantailor.zoo.generators.munit.generator import MunitGenerator


@dataclass(frozen=True)
class MunitOptions:
    """Weights of the losses, as published; ``cycle`` is off there except for some tasks."""

    image: float = 10.0
    style: float = 1.0
    content: float = 1.0
    cycle: float = 0.0


class Munit:
    """``generator`` is domain A's auto-encoder, ``other`` domain B's."""

    def __init__(self, generator: MunitGenerator, data: Domains, recipe: Recipe, *, device: str = "cpu") -> None:
        self.recipe, self.data, self.device = recipe, data, torch.device(device)
        self.options = recipe.options_of(MunitOptions)
        torch.manual_seed(recipe.seed)
        self.generator = _kaiming(generator).to(device).train()
        self.other = _kaiming(copy.deepcopy(generator)).to(device).train()
        self.judges = nn.ModuleList(judges_of(recipe, device))
        self._trained = [*self.generator.parameters(), *self.other.parameters()]
        self.optimizers = {
            "generator": adam(self._trained, recipe),
            "discriminator": adam(self.judges.parameters(), recipe, recipe.lr_discriminator),
        }

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {"generator": self.generator, "other": self.other, "judges": self.judges}

    def draw(self, step: int) -> Both:
        """A batch of each domain."""
        return self.data.draw(self.recipe, step)

    def backward(self, step: int, batch: Both, share: float) -> dict[str, Tensor]:
        """Reconstruction of pictures, contents and styles, and the adversarial losses, of both domains."""
        random = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        real = [batch.a.to(self.device), batch.b.to(self.device)]
        nets: list[MunitGenerator] = [self.generator, self.other]  # type: ignore[list-item]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            codes = [net.encode(x) for net, x in zip(nets, real, strict=True)]
            styles = [torch.randn(codes[0][1].shape, generator=random).to(self.device) for _ in nets]
            losses: dict[str, Tensor] = {}
            judged = []
            for k, (net, name) in enumerate(zip(nets, "ab", strict=True)):
                content = codes[1 - k][0]
                fake = net.decode(content, styles[k])
                seen_content, seen_style = net.encode(fake)
                losses[f"image_{name}"] = self.options.image * F.l1_loss(net.decode(*codes[k]).float(), real[k])
                losses[f"style_{name}"] = self.options.style * F.l1_loss(seen_style.float(), styles[k])
                losses[f"content_{name}"] = self.options.content * F.l1_loss(seen_content.float(), content.float())
                if self.options.cycle:
                    again = nets[1 - k].decode(seen_content, codes[1 - k][1]).float()
                    losses[f"cycle_{name}"] = self.options.cycle * F.l1_loss(again, real[1 - k])
                judge = self.judges[k]
                seen = judge(fake)
                losses[f"gan_{name}"] = self.recipe.gan_weight * generator_loss(self.recipe.gan, seen)
                judged.append(
                    real_loss(self.recipe.gan, judge(real[k])) + fake_loss(self.recipe.gan, judge(fake.detach()))
                )
        return backward_both(losses, judged, share, trained=self._trained, judges=self.judges)

    def after_step(self, step: int) -> None:
        """Nothing."""


def _kaiming(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
