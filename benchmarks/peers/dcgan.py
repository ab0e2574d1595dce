"""Trains a DCGAN (arXiv:1511.06434) on MNIST in plain PyTorch, as the library's own example does, and keeps its digits.

Run by a Python that has torch, with the folder of MNIST's files in `RLGEN_DATA`::

    python -m benchmarks.peers.dcgan '{"steps": 1200000, "num": 10000, "out": "digits.npy"}'

Filters are as many as in the experiment `generative/gan/mnist`; batch normalisation, the initial weights, both
optimisers and the loss are the paper's.  Digits are drawn with the statistics of their own batches, as in the example.
It prints one line of JSON; speeds are images a second, and the final return is the generator's mean loss in nats over
the last tenth.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers import timing, vae

BATCH, LATENT, SIZES, RATE, DECAY, DEVIATION, SLOPE, WARM, DRAWN = 64, 64, (64, 32), 2e-4, 0.5, 0.02, 0.2, 10, 500


def generator():
    """From latents `[num, LATENT, 1, 1]` to images in [−1, 1]."""
    wide, narrow = SIZES
    return nn.Sequential(
        *(nn.ConvTranspose2d(LATENT, wide, 7, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
        *(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
        *(nn.ConvTranspose2d(narrow, 1, 4, 2, 1, bias=False), nn.Tanh()),
    )


def discriminator():
    """From images to logits `[num]`."""
    wide, narrow = SIZES
    return nn.Sequential(
        *(nn.Conv2d(1, narrow, 4, 2, 1, bias=False), nn.LeakyReLU(SLOPE)),
        *(nn.Conv2d(narrow, wide, 4, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(SLOPE)),
        *(nn.Conv2d(wide, 1, 7, bias=False), nn.Flatten(0)),
    )


def begin(module):
    """Draws a layer's weights as the paper does."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, DEVIATION)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, DEVIATION)


def step(optimiser, loss):
    """Takes a gradient step."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def train(images, num_steps):
    """Trains a new pair on images `[num, 1, 28, 28]` bytes: the generator, and its loss at every step."""
    made, judged = generator().apply(begin), discriminator().apply(begin)
    making, judging = (torch.optim.Adam(each.parameters(), RATE, betas=(DECAY, 0.999)) for each in (made, judged))
    error, real, fake = nn.BCEWithLogitsLoss(), torch.ones(BATCH), torch.zeros(BATCH)
    losses, batches = [], iter(())
    for _ in range(num_steps):
        rows = next(batches, None)
        if rows is None:
            batches = iter(torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH))
            rows = next(batches)
        drawn = made(torch.randn(BATCH, LATENT, 1, 1))
        told = error(judged(images[rows].float() / 127.5 - 1), real) + error(judged(drawn.detach()), fake)
        step(judging, told)
        believed = error(judged(drawn), real)
        step(making, believed)
        losses.append(believed.detach())
    return made, torch.stack(losses)


@torch.no_grad()
def draw(made, num):
    """Draws digits `[num, 28, 28, 1]` bytes."""
    pieces = [made(torch.randn(DRAWN, LATENT, 1, 1)) for _ in range(-(-num // DRAWN))]
    return ((torch.cat(pieces)[:num] + 1) * 127.5).round().byte().numpy().transpose(0, 2, 3, 1)


def main(options):
    """Measures, keeps the digits and prints."""
    torch.manual_seed(timing.seed())
    images = torch.tensor(vae.read()).reshape(-1, 1, 28, 28)
    num_steps = options["steps"] // BATCH
    start = time.perf_counter()
    train(images, WARM)
    middle = time.perf_counter()
    made, losses = train(images, num_steps)
    seconds = (0.0, middle - start, time.perf_counter() - middle)
    np.save(Path(options["out"]), draw(made, options["num"]))
    timing.say(seconds, num_steps * BATCH, losses[-timing.tail(num_steps) :].mean())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
