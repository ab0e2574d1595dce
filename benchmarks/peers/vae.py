"""Times a variational autoencoder on MNIST in plain PyTorch, or in flax with all its steps in one scan.

Run by a Python that has torch and flax, with the folder of MNIST's files in `RLGEN_DATA`::

    python -m benchmarks.peers.vae '{"library": "flax", "steps": 300000}'

`library` is `"torch"` or `"flax"`.  The model is that of either library's own example, with 500 hidden units: dense
layers 784-500-20-500-784 with ReLUs, a Bernoulli for each pixel, Adam at 1e-3, batches of 128 in epochs shuffled anew.
Pixels are coins, drawn anew each time.  It prints one line of JSON; speeds are images a second, and the final return is
the mean loss in nats over the last tenth.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.peers import timing

BATCH, WIDTH, LATENT, RATE, WARM = 128, 500, 20, 1e-3, 10


def read():
    """Reads the training images, `[60000, 784]` bytes."""
    name, home = "train-images-idx3-ubyte.gz", Path(os.environ["RLGEN_DATA"])
    path = next(folder / name for folder in (home, home / "mnist") if (folder / name).exists())
    with gzip.open(path) as stream:
        return np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 784)


def train(images, num_steps):
    """Trains a new model of PyTorch and gives the loss of every step."""
    import torch
    from torch import nn
    from torch.nn import functional

    num_pixels = images.shape[1]
    encoder = nn.Sequential(nn.Linear(num_pixels, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, num_pixels))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE)
    losses, batches = [], iter(())
    for _ in range(num_steps):
        rows = next(batches, None)
        if rows is None:
            batches = iter(torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH))
            rows = next(batches)
        pixels = torch.bernoulli(images[rows] / 255)
        mean, log_variance = encoder(pixels).chunk(2, -1)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        error = functional.binary_cross_entropy_with_logits(decoder(latent), pixels, reduction="sum")
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        loss = (error + divergence) / BATCH
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def in_torch(images, num_steps):
    """Trains with PyTorch: seconds of lowering, warming up and running, and the loss of every step."""
    import torch

    torch.manual_seed(timing.seed())
    images = torch.tensor(images)
    start = time.perf_counter()
    train(images, WARM)
    middle = time.perf_counter()
    losses = train(images, num_steps)
    return (0.0, middle - start, time.perf_counter() - middle), losses


def model():
    """Makes the model of flax, `(key, pixels) -> (logits, mean, log_variance)`."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class VAE(nn.Module):
        """Encoder and decoder."""

        @nn.compact
        def __call__(self, key, pixels):
            hidden = nn.relu(nn.Dense(WIDTH)(pixels))
            mean, log_variance = nn.Dense(LATENT)(hidden), nn.Dense(LATENT)(hidden)
            latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
            logits = nn.Dense(pixels.shape[-1])(nn.relu(nn.Dense(WIDTH)(latent)))
            return logits, mean, log_variance

    return VAE()


def in_flax(images, num_steps):
    """Trains with flax: seconds of lowering, compiling and running, and the loss of every step."""
    import jax
    import jax.numpy as jnp
    import optax

    vae, optimiser = model(), optax.adam(RATE)
    batches_per_epoch = len(images) // BATCH

    def nats(params, key, pixels):
        logits, mean, log_variance = vae.apply(params, key, pixels)
        error = optax.sigmoid_binary_cross_entropy(logits, pixels).sum(-1)
        return (error + 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)).mean()

    def run(images, key):
        params_key, order_key, steps_key = jax.random.split(key, 3)
        params = vae.init(params_key, params_key, jnp.zeros((1, images.shape[1])))

        def body(carry, inputs):
            params, state = carry
            key, rows = inputs
            pixel_key, latent_key = jax.random.split(key)
            pixels = jax.random.bernoulli(pixel_key, images[rows] / 255).astype(jnp.float32)
            loss, grads = jax.value_and_grad(nats)(params, latent_key, pixels)
            updates, state = optimiser.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        epochs = jax.random.split(order_key, -(-num_steps // batches_per_epoch))
        order = jax.lax.map(lambda key: jax.random.permutation(key, len(images))[: batches_per_epoch * BATCH], epochs)
        steps = jax.random.split(steps_key, num_steps), order.reshape(-1, BATCH)[:num_steps]
        return jax.lax.scan(body, (params, optimiser.init(params)), steps)[1]

    return timing.phases(run, images, jax.random.key(timing.seed()))


def main(options):
    """Measures and prints."""
    num_steps, library = options["steps"] // BATCH, options["library"]
    seconds, losses = {"torch": in_torch, "flax": in_flax}[library](read(), num_steps)
    timing.say(seconds, num_steps * BATCH, losses[-timing.tail(num_steps) :].mean())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
