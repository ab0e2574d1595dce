"""Measures the variance of policy gradient estimates at equal batches, and draws it.

One policy on CartPole, half trained by A2C, gathers independent batches, each after one before it so that episodes are
under way.  From the same batches every method forms its gradient of the actor; what is kept is the trace of their
covariance, relative to that of REINFORCE without a baseline.  Weights `γᵗ` and `λ < 1` estimate other gradients than
the rest do: the first counts late steps less, the second trusts the critic.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures, measure
from rlgen import train
from rlgen.core import Key, Transition, Tree
from rlgen.envs import adapter
from rlgen.lab import plots
from rlgen.parts import actor_critic
from rlgen.policy import a2c, reinforce
from rlgen.sources import rollout

FIGURE, TITLE = "policy-gradient-variance", "Variance of policy gradients"
NUM_ENVS, LENGTH = 16, 128  # of a batch
TRAINING, NUM_BATCHES, NUM_GROUPS = 500, 1_024, 16
METHODS: dict[str, tuple[ModuleType, dict[str, Any], dict[str, float]]] = {
    "REINFORCE": (reinforce, {"baseline": "none"}, {}),
    "REINFORCE, steps weighted by γᵗ": (reinforce, {"baseline": "none", "discount_states": True}, {}),
    "REINFORCE, value baseline": (reinforce, {}, {}),
    "A2C, λ = 1": (a2c, {}, {"gae_lambda": 1.0}),
    "A2C, λ = 0.95": (a2c, {}, {"gae_lambda": 0.95}),
    "A2C, λ = 0": (a2c, {}, {"gae_lambda": 0.0}),
}


def run() -> None:
    """Trains the policy, takes the gradients and keeps their variances."""
    env = adapter.make("CartPole-v1")
    params, batches = jax.jit(functools.partial(_experience, env=env))(jax.random.key(0))
    points, scale = [], None
    for label, (algorithm, switches, numbers) in METHODS.items():
        config = algorithm.Config(num_envs=NUM_ENVS, rollout_length=LENGTH, **switches)
        of_batch = _gradient(algorithm, actor_critic.make(env.spec, config), numbers)
        vectors = jax.jit(lambda batches, of_batch=of_batch: jax.lax.map(lambda pair: of_batch(params, *pair), batches))
        groups = np.asarray(vectors(batches), np.float64).reshape(NUM_GROUPS, NUM_BATCHES // NUM_GROUPS, -1)
        variances = groups.var(axis=1, ddof=1).sum(-1)
        scale = variances.mean() if scale is None else scale
        points.append({"label": label, "per_group": (variances / scale).tolist()})
        print(f"{label}: {variances.mean() / scale:.4f}", flush=True)
    work = f"CartPole-v1, {NUM_BATCHES:,} batches of {NUM_ENVS} × {LENGTH} steps"
    print(measure.save("variance", "policy_gradients", {"work": work, "points": points, "machine": measure.machine()}))


def _experience(key: Key, *, env: adapter.Environment) -> tuple[Tree, tuple[Transition, Transition]]:
    """Trains a policy and lets it gather pairs of batches that follow each other, leaves `[NUM_BATCHES, T, B, ...]`."""
    config, hypers = a2c.Config(num_envs=NUM_ENVS), a2c.Hypers(learning_rate=3e-3)
    network = actor_critic.make(env.spec, config)
    learner = train.make(
        a2c.build(env.spec, config), rollout.build(env, num_envs=NUM_ENVS, length=config.rollout_length)
    )
    train_key, batch_key = jax.random.split(key)
    arguments = jnp.int32(0), jnp.int32(TRAINING), learner.init(train_key, hypers), hypers
    state = train.window(learner)(train_key, *arguments)[0].algorithm
    policy = actor_critic.policy(jnp.int32(TRAINING), state, hypers, explore=True, network=network)
    source = rollout.build(env, num_envs=NUM_ENVS, length=LENGTH)

    def pair(key: Key) -> tuple[Transition, Transition]:
        keys = jax.random.split(key, 3)
        position, before, _ = source.next(keys[0], jnp.int32(0), source.init(keys[1], policy), policy)
        return before, source.next(keys[2], jnp.int32(1), position, policy)[1]

    return state.learner.params, jax.lax.map(pair, jax.random.split(batch_key, NUM_BATCHES))


def _gradient(
    algorithm: ModuleType, network: actor_critic.ActorCritic, numbers: dict[str, float]
) -> Callable[[Tree, Transition, Transition], jax.Array]:
    """The method's gradient of the actor's parameters as one vector, `(params, batch before, batch) -> [P]`."""

    def of_batch(params: Tree, before: Transition, batch: Transition) -> jax.Array:
        if algorithm is reinforce:
            hypers = reinforce.Hypers()
            pending = reinforce.init(jax.random.key(0), hypers, network=network).pending
            # Without a baseline there is no critic to carry traces for.
            own = {"params": {name: params["params"][name] for name in pending.trace["params"]}}
            _, pending = reinforce.estimate(own, pending, before, hypers, network=network)
            minibatch, _ = reinforce.estimate(own, pending, batch, hypers, network=network)
            grads, _ = jax.grad(reinforce.loss, has_aux=True)(own, minibatch, network=network)
        else:
            hypers = a2c.Hypers(entropy_coefficient=0.0, value_coefficient=0.0, **numbers)
            examples = actor_critic.estimate(params, batch, hypers, network=network)
            grads, _ = jax.grad(a2c.loss, has_aux=True)(params, examples, hypers, network=network)
        actor = {name: leaf for name, leaf in grads["params"].items() if name.startswith("actor")}
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(actor)])

    return of_batch


def draw() -> Path:
    """Draws the variances, a row a method, and says where."""
    result = json.loads((measure.RESULTS / "variance" / "policy_gradients.json").read_text())
    path = figures.FIGURES / f"{FIGURE}.png"
    panels = {result["work"]: {point["label"]: np.array(point["per_group"]) for point in result["points"]}}
    xlabel = "variance relative to REINFORCE"
    plots.variants(path, panels, xlabel=xlabel, title=TITLE, higher_is_better=False)
    return path
