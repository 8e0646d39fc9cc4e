"""Training StyleGAN2 (Karras et al. 2020, arXiv 1912.04958): R1, path length, style mixing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.losses import fake_loss, generator_loss, real_loss
from supernet.recipe import Recipe
from zoo.data import to_float
from zoo.domains import task_options
from zoo.stylegan2 import StyleGan2Generator
from zoo.stylegan2_discriminator import StyleGan2Discriminator


@dataclass(frozen=True)
class StyleGan2Options:
    """Published regularisation: R1 of ``r1`` every ``r1_every`` steps, path length of ``path`` every ``path_every``."""

    r1: float = 10.0
    r1_every: int = 16
    path: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    mixing: float = 0.9


@dataclass(frozen=True)
class Pictures:
    """Real pictures ``[n, 3, H, W]`` in [-1, 1]."""

    images: Tensor

    def part(self, number: int, of: int) -> Pictures:
        """One of ``of`` equal parts."""
        size = len(self.images) // of
        return Pictures(self.images[number * size : (number + 1) * size])


class _State(nn.Module):
    """What the path penalty remembers."""

    mean_path: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_path", torch.zeros(()))


class StyleGan2:
    """Trains on uint8 pictures ``[N, size, size, 3]``.

    Regularisation is lazy: done every few steps with as many times the weight, and the optimisers' rates are lowered to
    match. Latents, mixing points and noise are functions of seed and step.
    """

    def __init__(self, generator: StyleGan2Generator, data: np.ndarray, recipe: Recipe, *, device: str = "cpu") -> None:
        self.recipe, self.data, self.device = recipe, data, torch.device(device)
        self.options = options = task_options(StyleGan2Options, recipe)
        torch.manual_seed(recipe.seed)
        self.generator = generator.to(device).train()
        widths = {int(side): width for side, width in _widths(generator).items()}
        self.discriminator = StyleGan2Discriminator(size=generator.size, channels=widths).to(device)
        self.state = _State().to(device)
        self.optimizers = {
            "generator": self._adam(self.generator, options.path_every if options.path else 0),
            "discriminator": self._adam(self.discriminator, options.r1_every if options.r1 else 0),
        }

    def _adam(self, model: nn.Module, every: int) -> torch.optim.Optimizer:
        share = every / (every + 1) if every else 1.0
        betas = (self.recipe.beta1**share, self.recipe.beta2**share)
        return torch.optim.Adam(model.parameters(), lr=self.recipe.lr * share, betas=betas)

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {"generator": self.generator, "discriminator": self.discriminator, "state": self.state}

    def draw(self, step: int) -> Pictures:
        """A batch of real pictures."""
        rng = np.random.default_rng((self.recipe.seed, step))
        rows = rng.integers(0, len(self.data), self.recipe.batch)
        chosen = [self.data[i][:, ::-1] if self.recipe.mirror and rng.random() < 0.5 else self.data[i] for i in rows]
        return Pictures(to_float(np.stack(chosen)))

    def _styles(self, count: int, random: torch.Generator) -> Tensor:
        """w for each layer, ``[count, n_latent, style_dim]``; two latents mixed at a random layer, mostly."""
        width = next(self.generator.style.parameters()).shape[1]
        z = torch.randn(2, count, width, generator=random).to(self.device)
        layers = self.generator.n_latent
        mixed = bool(torch.rand((), generator=random) < self.options.mixing)
        cut = int(torch.randint(1, layers, (), generator=random)) if mixed else layers
        first, second = (self.generator.mapping(one)[:, None] for one in z)
        return torch.cat([first.expand(-1, cut, -1), second.expand(-1, layers - cut, -1)], 1)

    def backward(self, step: int, batch: Pictures, share: float) -> dict[str, Tensor]:
        """Logistic losses, and the regularisation that is due in this step."""
        options, judge = self.options, self.discriminator
        random = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        real = batch.images.to(self.device)
        fake = self.generator.synthesis(self._styles(len(real), random), noise="random")
        seen = judge(fake)
        generator, judged = list(self.generator.parameters()), list(judge.parameters())
        losses = {"gan": generator_loss("nonsaturating", seen)}
        losses["discriminator"] = real_loss("nonsaturating", judge(real)) + fake_loss(
            "nonsaturating", judge(fake.detach())
        )
        (share * losses["discriminator"]).backward(inputs=judged)
        (share * losses["gan"]).backward(inputs=generator)
        if options.r1 and step % options.r1_every == 0:
            real = real.requires_grad_(True)
            (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
            losses["r1"] = options.r1 / 2 * options.r1_every * slope.square().sum((1, 2, 3)).mean()
            (share * losses["r1"]).backward(inputs=judged)
        if options.path and step % options.path_every == 0:
            losses["path"] = (
                options.path * options.path_every * self._path(max(1, len(real) // options.path_shrink), random)
            )
            (share * losses["path"]).backward(inputs=generator)
        return {name: value.detach() for name, value in losses.items()}

    def _path(self, count: int, random: torch.Generator) -> Tensor:
        """How far a step in w moves the picture should always be the same: squared distance from the running mean."""
        w = self._styles(count, random)
        image = self.generator.synthesis(w, noise="random")
        noise = torch.randn(image.shape, generator=random).to(self.device) / math.sqrt(image[0, 0].numel())
        (slope,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = self.state.mean_path + 0.01 * (lengths.detach().mean() - self.state.mean_path)
        self.state.mean_path.copy_(mean)
        return (lengths - mean).square().mean()

    def after_step(self, step: int) -> None:
        """The mean latent follows, for truncation (half-life about 70 steps)."""
        with torch.no_grad():
            random = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            width = next(self.generator.style.parameters()).shape[1]
            w = self.generator.mapping(torch.randn(64, width, generator=random).to(self.device))
            self.generator.latent_avg.lerp_(w.mean(0), 0.01)


def _widths(generator: Any) -> dict[int, int]:
    """Channels at each resolution, read off the generator's layers."""
    widths = {4: generator.conv1.conv.weight.shape[-4]}
    for level in range(len(generator.to_rgbs)):
        widths[2 ** (level + 3)] = generator.convs[2 * level].conv.weight.shape[-4]
    return widths
