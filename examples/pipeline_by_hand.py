"""What ``gantailor compress`` does on the embedded pictures, as a plain loop: supernet, search, fine-tuning.

Run it: ``python examples/pipeline_by_hand.py``. The same seed ends in the pipeline's weights (a test holds that).
"""

import numpy as np
import torch

import gantailor
from gantailor.evaluators.scores import spread
from gantailor.supernet.subnets.slicing import kept_channels
from gantailor.supernet.training.batches import PairBatches
from gantailor.supernet.training.losses import fake_loss, generator_loss, l1_loss, real_loss
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import FeatureMaps, capture
from gantailor.zoo import WEIGHTS
from gantailor.zoo.data.kinds.openmoji import openmoji
from gantailor.zoo.discriminators.build import make_discriminator


def train(model, teacher, data, recipe, sample=None):
    """A generator, or a supernet at sampled widths, beside its teacher and against a fresh discriminator."""
    plain, layers = getattr(model, "generator", model), teacher.feature_layers
    judge, batches = make_discriminator(recipe, input_nc=3, output_nc=3), PairBatches(data, recipe)
    with torch.no_grad(), capture(plain, layers) as seen, capture(teacher, layers) as known:
        plain(data.batch(np.arange(1))[0]), teacher(data.batch(np.arange(1))[0])
    torch.manual_seed(recipe.seed)
    maps = FeatureMaps(*({name: net[name].shape[1] for name in layers} for net in (seen, known)), init=recipe.init)
    parts = [[*model.parameters(), *maps.parameters()], [*judge.parameters()]]
    optimizers = [torch.optim.Adam(part, recipe.lr, (recipe.beta1, recipe.beta2), fused=True) for part in parts]
    for step in range(recipe.steps):
        batch, rng = batches(step), np.random.default_rng((recipe.seed, 2, step))
        config = sample(rng, step=step, recipe=recipe) if sample else None
        x, y = batch.inputs.contiguous(), batch.targets.contiguous()
        with torch.no_grad(), capture(teacher, layers) as known:
            taught = teacher(x)
        with capture(plain, layers) as seen:
            fake = model(x, config=config) if sample else model(x)
        for optimizer in optimizers:
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = recipe.lr * recipe.decay_at(step)
        right = real_loss(recipe.gan, judge(torch.cat([x, y], 1)))
        (recipe.discriminator_weight * right).backward(inputs=parts[1])
        wrong = judge(torch.cat([x, fake], 1))
        (recipe.discriminator_weight * fake_loss(recipe.gan, wrong)).backward(inputs=parts[1], retain_graph=True)
        loss = recipe.gan_weight * generator_loss(recipe.gan, wrong) + recipe.target_weight * l1_loss(fake, y)
        loss = loss + recipe.output_weight * l1_loss(fake, taught)
        kept = kept_channels(model.graph, layers, config) if sample else None
        loss = loss + recipe.feature_weight * maps(seen, known, kept)
        loss.backward(inputs=parts[0])
        for optimizer in optimizers:
            optimizer.step()
    return model.eval()


def main(kimg=0.064, trials=6, count=128):
    """The narrow generator, and its L1 on pictures of the search split as it was found."""
    recipe = Recipe(kimg=kimg, lr=1e-3, output_weight=10, feature_weight=1, precision="float32")
    teacher = gantailor.load_teacher(WEIGHTS / "openmoji_teacher.safetensors", generator="resnet_6blocks").eval()
    data, search = openmoji(split="train"), openmoji(split="search")
    x, y = search.batch(spread(len(search), count))
    supernet = gantailor.Supernet(teacher, example_inputs=(x[:1],))
    gantailor.rank_channels(supernet)  # the first channels are those with the largest weights
    space = gantailor.space("default", supernet)
    train(supernet, teacher, data, recipe, sample=space.sample)
    score = lambda narrow: (narrow(x) - y).abs().mean()  # noqa: E731
    best = gantailor.search(supernet, budget="0.3x", score=score, trials=trials).best
    return train(supernet.extract(best.config), teacher, data, recipe), best


if __name__ == "__main__":
    print("L1 {0.score:.4f} before fine-tuning: {0.config}".format(main(kimg=2)[1]))
