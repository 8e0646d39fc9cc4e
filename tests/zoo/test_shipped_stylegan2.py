"""The shipped StyleGAN2 and its discriminator: they fit together, and draw something."""

import numpy as np
import torch

from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.zoo.checkpoints import load_state, load_teacher, read_state
from gantailor.zoo.discriminators.stylegan2 import StyleGan2Discriminator
from gantailor.zoo.generators.stylegan2.generator import generator_widths
from gantailor.zoo.generators.stylegan2.record import STYLEGAN2


@torch.no_grad()
def test_pictures_and_their_judge():
    net = load_teacher(STYLEGAN2.shipped_teacher, generator="stylegan2")
    assert net.size == 64 and STYLEGAN2.shipped_teacher.stat().st_size < 4 * 2**20
    z = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    pictures = net(z)
    corners = pictures[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.mean()) > 0.6, "emojis lie on white"
    assert float(pictures.std(0).mean()) > 0.1, "and differ"
    judge = StyleGan2Discriminator(size=64, channels=generator_widths(net))
    load_state(judge, read_state(STYLEGAN2.shipped_discriminator), str(STYLEGAN2.shipped_discriminator))
    noise = torch.rand(16, 3, 64, 64) * 2 - 1
    assert float(judge(pictures).mean()) > float(judge(noise).mean())


def test_it_is_the_default(tmp_path):
    config = load_config(None, {"generator": "stylegan2", "method": "diversity", "ranking": "l1", "budget": "0.1x"})
    assert config.discriminator == str(STYLEGAN2.shipped_discriminator)
    run = Run(tmp_path, config)
    narrow = run.setup.supernet.extract(run.setup.space.to_config(run.setup.budget.sample(np.random.default_rng(0))))
    assert narrow(torch.randn(2, 128)).shape == (2, 3, 64, 64)
    assert load_config(None, {"generator": "stylegan2", "teacher": "mine.pt"}).discriminator is None
