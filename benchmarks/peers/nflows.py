"""Times an affine coupling flow of nflows (github.com/bayesiains/nflows), by maximum likelihood.

Run by a Python that has nflows::

    python -m benchmarks.peers.nflows '{"task": "moons", "steps": 1000000}'

Four times, an ActNorm goes before two couplings, one for either number: the library's scales are below 1, so couplings
alone could not spread points out.  It prints one line of JSON; speeds are points a second, and the final return is the
mean loss in nats of the trained flow at points that it has not seen.
"""

import json
import math
import sys
import time

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.transforms import ActNorm, AffineCouplingTransform, CompositeTransform
from torch import nn

from benchmarks.peers import timing

LAYERS, WIDTH, BATCH, RATE, NOISE, WARM, HELD_OUT = 4, 50, 100, 1e-3, 0.05, 10, 10_000


def on_circle(angle):
    """Points of the unit circle, `[num, 2]`."""
    return torch.stack([torch.cos(angle), torch.sin(angle)], -1)


def moons(num):
    """Two half circles that reach into each other, `[num, 2]`."""
    outer = on_circle(math.pi * torch.rand(num))
    points = torch.where(torch.rand(num, 1) < 0.5, torch.tensor([1.0, 0.5]) - outer, outer)
    return points + NOISE * torch.randn(num, 2)


def circles(num):
    """A circle and one of half its radius, `[num, 2]`."""
    points = torch.where(torch.rand(num, 1) < 0.5, 0.5, 1.0) * on_circle(2 * math.pi * torch.rand(num))
    return points + NOISE * torch.randn(num, 2)


class Network(nn.Sequential):
    """One hidden layer; couplings also hand over a context, which there is none of."""

    def __init__(self, num_inputs, num_outputs):
        super().__init__(nn.Linear(num_inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, num_outputs))

    def forward(self, inputs, context=None):
        """Maps `[num, num_inputs]` to `[num, num_outputs]`."""
        return super().forward(inputs)


def build():
    """Makes the flow."""
    halves = ([0, 1], [1, 0])
    layers = [[ActNorm(2), *(AffineCouplingTransform(half, Network) for half in halves)] for _ in range(LAYERS)]
    return Flow(CompositeTransform([module for layer in layers for module in layer]), StandardNormal([2]))


def train(draw, num_steps):
    """Trains a new flow on points that are drawn anew, and gives it."""
    flow = build()
    optimiser = torch.optim.Adam(flow.parameters(), RATE)
    for _ in range(num_steps):
        loss = -flow.log_prob(draw(BATCH)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow


def main(options):
    """Measures and prints."""
    draw, num_steps = {"moons": moons, "circles": circles}[options["task"]], options["steps"] // BATCH
    torch.manual_seed(timing.seed())
    start = time.perf_counter()
    train(draw, WARM)
    middle = time.perf_counter()
    flow = train(draw, num_steps)
    seconds = (0.0, middle - start, time.perf_counter() - middle)
    with torch.no_grad():
        loss = -flow.eval().log_prob(draw(HELD_OUT)).mean()
    timing.say(seconds, num_steps * BATCH, loss)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
