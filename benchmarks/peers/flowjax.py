"""Times a coupling flow of flowjax (github.com/danielward27/flowjax) at its own defaults, by maximum likelihood.

Run by a Python that has flowjax::

    python -m benchmarks.peers.flowjax '{"task": "moons", "loop": "scan", "steps": 1000000}'

`loop` is `"scan"` for gradient steps in one compiled scan over points that are drawn anew, or `"fit"` for the library's
own `fit_to_data` on as many points as it sees in the scan.  It prints one line of JSON; speeds are points a second, and
the final return is the mean loss in nats of the trained flow at points that it has not seen.
"""

import json
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import paramax
from flowjax.distributions import StandardNormal
from flowjax.flows import coupling_flow
from flowjax.train import fit_to_data

from benchmarks.peers import timing

BATCH, RATE, NOISE, MOST, HELD_OUT = 100, 5e-4, 0.05, 20_000, 10_000


def moons(key, num):
    """Two half circles that reach into each other, `[num, 2]`."""
    angle_key, half_key, noise_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, (num,), maxval=jnp.pi)
    outer = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    points = jnp.where(jax.random.bernoulli(half_key, shape=(num, 1)), jnp.array([1.0, 0.5]) - outer, outer)
    return points + NOISE * jax.random.normal(noise_key, (num, 2))


def circles(key, num):
    """A circle and one of half its radius, `[num, 2]`."""
    angle_key, inner_key, noise_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, (num,), maxval=2 * jnp.pi)
    points = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    points = jnp.where(jax.random.bernoulli(inner_key, shape=(num, 1)), 0.5, 1.0) * points
    return points + NOISE * jax.random.normal(noise_key, (num, 2))


def scanned(key, flow, draw, num_steps):
    """Compiles and runs the scan: seconds of lowering, compiling and running, and the trained flow."""
    params, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=lambda x: isinstance(x, paramax.NonTrainable))
    optimiser = optax.adam(RATE)

    def loss(params, points):
        return -paramax.unwrap(eqx.combine(params, static)).log_prob(points).mean()

    def body(carry, key):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, draw(key, BATCH))
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    def run(params, key):
        (params, _), losses = jax.lax.scan(body, (params, optimiser.init(params)), jax.random.split(key, num_steps))
        return params, losses

    seconds, (params, _) = timing.phases(run, params, key)
    return seconds, eqx.combine(params, static)


def fitted(key, flow, draw, num_steps):
    """Runs the library's own loop, which compiles as it begins; its first epoch does not count."""
    points_key, fit_key = jax.random.split(key)
    points = draw(points_key, min(MOST, num_steps * BATCH))
    settings = {"learning_rate": RATE, "batch_size": BATCH, "val_prop": 0.1, "show_progress": False}
    start = time.perf_counter()
    fit_to_data(fit_key, flow, data=points, max_epochs=1, max_patience=10_000, **settings)
    compiled = time.perf_counter() - start
    epochs = max(num_steps * BATCH // int(0.9 * len(points)), 1)
    start = time.perf_counter()
    trained, _ = fit_to_data(fit_key, flow, data=points, max_epochs=epochs, max_patience=10_000, **settings)
    return (0.0, compiled, time.perf_counter() - start), trained


def main(options):
    """Measures and prints."""
    draw = {"moons": moons, "circles": circles}[options["task"]]
    num_steps = options["steps"] // BATCH
    flow_key, key, held_out_key = jax.random.split(jax.random.key(timing.seed()), 3)
    flow = coupling_flow(flow_key, base_dist=StandardNormal((2,)))
    measure = {"scan": scanned, "fit": fitted}[options["loop"]]
    seconds, trained = measure(key, flow, draw, num_steps)
    loss = -eqx.filter_jit(paramax.unwrap(trained).log_prob)(draw(held_out_key, HELD_OUT)).mean()
    timing.say(seconds, num_steps * BATCH, loss)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
