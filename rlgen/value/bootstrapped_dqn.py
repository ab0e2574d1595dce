"""Bootstrapped DQN, arXiv:1602.04621, with randomised prior functions, arXiv:1806.03335.

Each of `K` heads is a DQN of its own: it has its own target network and learns from the transitions that its mask lets
through, which is drawn once for every transition and kept with it.  Each episode is acted out greedily by one head,
drawn at its start, so that a guess is followed for long enough to be put to the test.  What a head predicts is the sum
of its network and of a prior network that is never trained, times `prior_scale`; at 0 there is no prior.  The policy
that is evaluated asks all heads: they vote, or their values are averaged.

Departures from the papers: heads share no layers, as in the second paper, where the first one shares what reads the
image, and so each has an optimiser and a clip of its own, in place of an average of the heads' gradients in the shared
layers; Adam; Bernoulli masks; several environments at a time, each with a head; a target network that may move by a
share `tau` where the papers copy it.  An episode cut by its time limit bootstraps from its true last observation.

Shape legend: `T` steps between updates, `B` environments, `R` rows of the replay ring, `M` examples in a minibatch, `A`
actions, `K` heads, `N` any batch shape.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlgen.core import Algorithm, Array, Key, Policy, Spec, Transition, Tree
from rlgen.parts import checks, experience, exploration, networks, optim, q_networks, replay
from rlgen.parts.q_networks import ValueNetwork
from rlgen.parts.replay import Steps
from rlgen.value.dqn import ERRORS

EVALUATIONS = ("vote", "mean")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program.

    Attributes:
        num_envs: `B`.
        rollout_length: `T`, steps of each environment between updates.
        num_steps: gradient steps an update.
        num_heads: `K`.
        batch_size: `M`; all heads look at the same examples.
        capacity: transitions kept, `R * B`; a multiple of `T * B`.
        warm_up: transitions gathered before learning begins.
        target_period: updates between two moves of the target networks.
        n_step: rewards that are added up before a value is trusted.
        double: whether the online network chooses the action that the target network values.
        evaluation: `"vote"` to evaluate what most heads would do, `"mean"` what is best by their average.
        error: `"huber"` or `"squared"`.
        network: `"mlp"` or `"cnn"`.
        hidden_sizes: width of each dense layer of a head, and of its prior.
        activation: name in `networks.ACTIVATIONS`.
    """

    num_envs: int = 1
    rollout_length: int = 1
    num_steps: int = 1
    num_heads: int = 10
    batch_size: int = 128
    capacity: int = 10_000
    warm_up: int = 128
    target_period: int = 4
    n_step: int = 1
    double: bool = False
    evaluation: str = "vote"
    error: str = "huber"
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (50, 50)
    activation: str = "relu"
    replay: ClassVar[str] = "uniform"

    def __post_init__(self):
        checks.one_of(self, error=ERRORS, evaluation=EVALUATIONS)
        experience.check(self)


class Hypers(NamedTuple):
    """What is only a number; float32 leaves."""

    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    tau: float = 1.0  # share of the online networks in a move of the target networks
    mask_probability: float = 0.5  # that a head learns from a transition
    prior_scale: float = 3.0  # `β`; 0 for none
    max_grad_norm: float = 10.0  # of each head


class Learner(NamedTuple):
    """The heads; every leaf has a leading `[K]`."""

    params: Tree
    prior: Tree  # never trained
    target: Tree
    opt_state: Tree


class State(NamedTuple):
    """What an update changes."""

    learner: Learner
    replay: Transition  # leaves `[R, B, ...]`; `extras["mask"]` is `[R, B, K]` bool


class Metrics(NamedTuple):
    """Means over heads and an update's gradient steps; zero before learning begins."""

    loss: Array
    q_value: Array  # of the actions taken
    error: Array  # mean absolute temporal-difference error
    spread: Array  # standard deviation of `q_value` over heads


class Memory(NamedTuple):
    """Who acts until the episode ends."""

    head: Array  # [*N] int32
    drawn: Array  # [*N] bool; False before the first step


def optimiser(hypers: Hypers) -> Any:
    """Adam behind a clip of the gradient norm, for one head."""
    return optim.adam(hypers.learning_rate, max_grad_norm=hypers.max_grad_norm, eps=hypers.adam_epsilon)


def q_values(params: Tree, prior: Tree, obs: Tree, hypers: Hypers, *, network: ValueNetwork) -> Array:
    """One head's values of all actions, `Q + β p`.

    Args:
        params: of the head.
        prior: of its prior network; it has no gradient.
        obs: `[*N, *observation]`.
        hypers: numbers.
        network: of the head and of its prior.

    Returns:
        Values, `[*N, A]`.
    """
    fixed = lax.stop_gradient(networks.apply(network, prior, obs))
    return networks.apply(network, params, obs) + hypers.prior_scale * fixed


def of_heads(learner: Learner, obs: Tree, hypers: Hypers, *, network: ValueNetwork) -> Array:
    """All heads' values, `[K, *N, A]`, at `[*N, *observation]`."""
    one = functools.partial(q_values, obs=obs, hypers=hypers, network=network)
    return jax.vmap(one)(learner.params, learner.prior)


def goal(params: Tree, prior: Tree, target: Tree, minibatch: Steps, hypers: Hypers, *, network: ValueNetwork) -> Array:
    """What one head's values of the actions taken should be, `[M]`: its own target network bootstraps."""
    predicted = q_values(target, prior, minibatch.next_obs, hypers, network=network)
    chooser = predicted
    if network.config.double:
        chooser = q_values(params, prior, minibatch.next_obs, hypers, network=network)
    best = q_networks.value_of(predicted, jnp.argmax(chooser, axis=-1))
    return lax.stop_gradient(minibatch.reward + minibatch.discount * best)


def loss(
    params: Tree, prior: Tree, target: Tree, minibatch: Steps, mask: Array, hypers: Hypers, *, network: ValueNetwork
):
    """One head's error over a minibatch, in which what its mask keeps out counts nothing.

    Args:
        params: of the head.
        prior: of its prior network.
        target: of its target network.
        minibatch: `[M, ...]`.
        mask: of the head, `[M]`.
        hypers: numbers.
        network: of the head.

    Returns:
        `(loss, (loss, q_value, error))`: with the values of the actions taken, `[M]`, and their mean absolute error.
    """
    predicted = q_values(params, prior, minibatch.obs, hypers, network=network)
    taken = q_networks.value_of(predicted, minibatch.action)
    error = jnp.abs(goal(params, prior, target, minibatch, hypers, network=network) - taken)
    value = (mask * ERRORS[network.config.error](error)).mean()
    return value, (value, taken, error.mean())


def learn(
    learner: Learner, minibatch: Steps, mask: Array, hypers: Hypers, *, network: ValueNetwork
) -> tuple[Learner, Metrics]:
    """Takes one gradient step with every head: the rule itself, free of any environment.

    Args:
        learner: the heads.
        minibatch: leaves `[M, ...]`.
        mask: which head learns from which example, `[M, K]`.
        hypers: numbers.
        network: of a head.

    Returns:
        `(learner, metrics)`; the target networks are left as they were.
    """

    def of_head(head, mask):
        params, opt_state, seen = optim.descend(
            functools.partial(loss, network=network),
            optimiser(hypers),
            head.params,
            head.opt_state,
            head.prior,
            head.target,
            minibatch,
            mask,
            hypers,
        )
        return head._replace(params=params, opt_state=opt_state), seen

    learner, (value, q_value, error) = jax.vmap(of_head, in_axes=(0, 1))(learner, mask)
    return learner, Metrics(value.mean(), q_value.mean(), error.mean(), q_value.std(axis=0).mean())


def init(key: Key, hypers: Hypers, *, network: ValueNetwork) -> State:
    """Makes the state before the first update.  The key is consumed."""
    spec, config = network.spec, network.config
    obs = jnp.zeros(spec.observation.shape, spec.observation.dtype)

    def heads(key):
        return jax.vmap(lambda key: network.init(key, obs[None]))(jax.random.split(key, config.num_heads))

    params, prior = map(heads, jax.random.split(key))
    target = jax.tree.map(jnp.copy, params)  # two names for one buffer could not be donated
    opt_state = jax.vmap(optimiser(hypers).init)(params)
    ring = experience.ring(spec, config, {"mask": jnp.zeros(config.num_heads, bool)})
    return State(Learner(params, prior, target, opt_state), ring)


def update(key: Key, step: Array, state: State, batch: Transition, hypers: Hypers, *, network: ValueNetwork):
    """Stores a rollout `[T, B]` and its masks, and takes some gradient steps on what is stored.

    The key is consumed.  A sum of several rewards has the mask of the transition that it begins with.
    """
    config = network.config
    mask_key, draws_key = jax.random.split(key)
    mask = jax.random.bernoulli(mask_key, hypers.mask_probability, (*batch.reward.shape, config.num_heads))
    ring = replay.add(state.replay, step, batch._replace(extras={"mask": mask}))
    rows = replay.filled(ring, step, config.rollout_length)
    last_row = replay.newest(ring, step, config.rollout_length)

    def one_step(learner, key, count):
        del count
        index = replay.draw(key, ring, rows, config.batch_size)
        minibatch = replay.multi_step(ring, index, last_row, hypers.discount, config.n_step)
        return learn(learner, minibatch, replay.take(ring.extras["mask"], index), hypers, network=network)

    first = experience.warm(config)
    learner, metrics = experience.practise(
        draws_key, step, state.learner, one_step, num_steps=config.num_steps, first=first, metrics=Metrics
    )
    target = experience.follow(step, learner.target, learner.params, period=config.target_period, tau=hypers.tau)
    return State(learner._replace(target=target), ring), metrics


def memory(batch_shape: tuple[int, ...]) -> Memory:
    """Before an episode nobody has been drawn."""
    return Memory(jnp.zeros(batch_shape, jnp.int32), jnp.zeros(batch_shape, bool))


def act(key: Key, obs: Tree, memory: Memory, *, learner: Learner, hypers: Hypers, network: ValueNetwork):
    """Acts at `[*N, *observation]` as each episode's head would, drawn on its first step.  The key is consumed."""
    head_key, action_key = jax.random.split(key)
    drawn = jax.random.randint(head_key, memory.head.shape, 0, network.config.num_heads)
    head = jnp.where(memory.drawn, memory.head, drawn)
    values = of_heads(learner, obs, hypers, network=network)
    own = jnp.take_along_axis(values, head[None, ..., None], axis=0)[0]
    return exploration.greedy(action_key, own), {}, Memory(head, jnp.ones_like(memory.drawn))


def decide(key: Key, obs: Tree, memory: tuple[()], *, learner: Learner, hypers: Hypers, network: ValueNetwork):
    """Acts at `[*N, *observation]` as all heads together would; the key, which is consumed, settles equal votes."""
    values = of_heads(learner, obs, hypers, network=network)
    if network.config.evaluation == "vote":
        values = jax.nn.one_hot(jnp.argmax(values, axis=-1), values.shape[-1])
    return exploration.greedy(key, values.mean(axis=0)), {}, memory


def policy(step: Array, state: State, hypers: Hypers, *, explore: bool, network: ValueNetwork) -> Policy:
    """One head an episode while exploring, all heads otherwise."""
    del step
    apply = functools.partial(act if explore else decide, learner=state.learner, hypers=hypers, network=network)
    return Policy(memory=memory if explore else lambda batch_shape: (), apply=apply)


def build(spec: Spec, config: Config) -> Algorithm:
    """Binds bootstrapped DQN to a task.

    Args:
        spec: observations of one array, `Discrete` actions.
        config: what shapes the program.

    Returns:
        The algorithm; its batches are rollouts `[T, B]` of `Transition`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    return q_networks.bind(ValueNetwork(spec, config), init, update, policy)
