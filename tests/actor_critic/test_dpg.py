"""Linear deterministic policy gradient: an update by hand, the true gradient, and the optimum of a linear system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import train
from rlgen.actor_critic import dpg
from rlgen.core import Box, Discrete, Spec, Transition
from rlgen.envs import adapter, lqr
from rlgen.sources import rollout

HYPERS = dpg.Hypers(learning_rate=0.1, critic_learning_rate=0.2, discount=0.5)


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("terminated", [False, True])
def test_a_step_by_hand(natural, terminated):
    learner = dpg.Learner(jnp.array([[0.5]]), jnp.array([[2.0]]), jnp.array([1.0, 3.0]))
    obs, action, next_obs = jnp.array([[2.0]]), jnp.array([[1.5]]), jnp.array([[-1.0]])
    ends = jnp.array([terminated])
    step = Transition(obs, action, jnp.array([1.0]), next_obs, ends, ~ends, {})
    # Q(2, 1.5) = (1.5 − 1) · (2 · 2) + 1 · 4 + 3, and Q(−1, 0) = (0 + 0.5) · (2 · −1) + 1 + 3.
    error = 1.0 + (0.0 if terminated else 0.5 * 3.0) - 9.0
    moved, metrics = dpg.learn(learner, step, jnp.array([[0.0]]), HYPERS, config=dpg.Config(natural=natural))
    np.testing.assert_allclose(moved.policy, [[0.5 + 0.1 * (2.0 if natural else 2.0 * 2.0 * 2.0)]], rtol=1e-6)
    np.testing.assert_allclose(moved.advantage, [[2.0 + 0.2 * error * 2.0 * 0.5]], rtol=1e-6)
    np.testing.assert_allclose(moved.value, [1.0 + 0.2 * error * 4.0, 3.0 + 0.2 * error], rtol=1e-6)
    np.testing.assert_allclose(metrics, (abs(error), 9.0), rtol=1e-6)


def test_the_compatible_gradient_is_that_of_finite_differences():
    env, discount = lqr.LinearQuadratic(seed=1, size=3, num_controls=2, noise=0.0), 0.9
    gain = 0.8 * env.gain(discount)

    def earned(gain):  # from x ~ N(0, I)
        return -np.trace(env.worth(gain, discount))

    numeric = np.zeros_like(gain)
    for place in np.ndindex(gain.shape):
        moved = np.zeros_like(gain)
        moved[place] = 1e-5
        numeric[place] = (earned(gain + moved) - earned(gain - moved)) / 2e-5
    worth = env.worth(gain, discount)
    # The slope of the true action value at the policy's action is linear in the state: this is the compatible `W`.
    advantage = -2 * (
        gain @ env.action_cost + discount * (env.transition + env.control @ gain.T).T @ worth @ env.control
    )
    closed = env.transition + env.control @ gain.T
    seen = np.eye(3)  # second moments of the states, discounted and summed
    for _ in range(500):
        seen = np.eye(3) + discount * closed @ seen @ closed.T
    exact = seen @ advantage
    np.testing.assert_allclose(exact, numeric, rtol=1e-4, atol=1e-5)
    obs = np.linalg.cholesky(3 * seen).T  # three states with just these moments
    learner = dpg.Learner(jnp.asarray(gain), jnp.asarray(advantage), jnp.zeros(7))
    zeros = jnp.zeros(3)
    steps = Transition(obs, obs @ gain, zeros, obs, zeros == 0, zeros == 1, {})
    moved, _ = dpg.learn(learner, steps, obs @ gain, HYPERS._replace(learning_rate=1.0), config=dpg.Config())
    np.testing.assert_allclose(moved.policy - gain, numeric, rtol=1e-3, atol=1e-3)


def test_sarsa_bootstraps_from_an_action_that_is_drawn():
    spec = Spec(Box((1,)), Box((1,)))
    state = dpg.State(dpg.Learner(jnp.array([[0.5]]), jnp.array([[2.0]]), jnp.zeros(2)))
    obs = jnp.ones((1, 4, 1))
    nothing = jnp.zeros((1, 4), bool)
    batch = Transition(obs, 0.5 * obs, jnp.zeros((1, 4)), obs, nothing, nothing, {})
    errors = {}
    for critic in dpg.CRITICS:
        update = dpg.build(spec, dpg.Config(critic=critic)).update
        errors[critic] = update(jax.random.key(0), jnp.int32(0), state, batch, HYPERS)[1].error
    drawn = HYPERS.noise * jax.random.normal(jax.random.key(0), (1, 4, 1))
    assert errors["q"] == 0
    np.testing.assert_allclose(errors["sarsa"], jnp.abs(0.5 * 2.0 * drawn).mean(), rtol=1e-5)
    # A box that is too small for the policy holds the next action as it does any other: 0.3 in place of 0.5.
    narrow = dpg.build(Spec(Box((1,)), Box((1,), -0.3, 0.3)), dpg.Config()).update
    error = narrow(jax.random.key(0), jnp.int32(0), state, batch, HYPERS)[1].error
    np.testing.assert_allclose(error, 0.5 * 2.0 * 0.2, rtol=1e-5)


@pytest.mark.parametrize("spec", [Spec(Box((2,)), Discrete(2)), Spec(Discrete(3), Box((1,)))])
def test_other_spaces_are_refused(spec):
    with pytest.raises(ValueError, match="from vectors to vectors"):
        dpg.build(spec, dpg.Config())


def recovered(**config):
    """Policies of three learners of a linear system, and the best one."""
    env = lqr.LinearQuadratic(seed=0)
    built = adapter.make(env)
    config = dpg.Config(num_envs=64, rollout_length=4, **config)
    # What is natural goes further at each step.
    hypers = dpg.Hypers(learning_rate=0.005 if config.natural else 0.02, critic_learning_rate=0.05)
    run = train.make(dpg.build(built.spec, config), rollout.build(built, num_envs=64, length=4))

    @jax.jit
    @jax.vmap
    def learned(key):
        state, _ = train.scan(run, 3000)(key, jnp.int32(0), run.init(key, hypers), hypers)
        return state.algorithm.learner.policy

    found = np.asarray(learned(jax.random.split(jax.random.key(0), 3)))
    return found, np.broadcast_to(env.gain(hypers.discount), found.shape)


def test_recovers_the_best_policy_of_a_linear_system():
    np.testing.assert_allclose(*recovered(), atol=0.04)


@pytest.mark.learning
@pytest.mark.parametrize("config", [{"critic": "sarsa"}, {"natural": True}], ids=str)
def test_every_form_recovers_the_best_policy_of_a_linear_system(config):
    np.testing.assert_allclose(*recovered(**config), atol=0.04)
