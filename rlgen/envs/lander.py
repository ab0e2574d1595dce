"""LunarLander: a lander with three engines comes down on a pad between hills.

Source: Gymnasium's `LunarLander-v3` (arXiv:2407.17032) without wind, whose world Box2D simulates; here that is done by
`rlgen.envs.impulses` and `rlgen.envs.ground`, which tell how they differ.  Observation, actions, rewards, ends and what
is drawn at random are the original's, down to the side engines' place, which depends on how the lander is tilted, and
to the flag of a leg that goes out when the leg leaves one piece of ground while it stands on the next.

Departure: the first step, in which the original straightens the legs, is a linear map of the push that the lander gets,
measured on the original and right to 5e-5.

Shape legend: `C` = 11 corners of the ground, `P` = 10 pieces between them; legs, of which the first is the right one,
are an axis of length 2.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlgen.core import Array, Key
from rlgen.envs import ground, impulses, rigid
from rlgen.envs.rigid import FAR, IMPACT, LINEAR_SLOP, SKIN, Body, Contacts, Leg, Motion, Moving, World

RATE, SCALE = 50, 30.0  # steps a second, and units of the original's drawings a metre
WIDTH, HEIGHT = 600 / SCALE, 400 / SCALE  # of what is in view, in metres
NUM_PIECES = 10
PAD = HEIGHT / 4  # height that the pad is smoothed from
MAIN_POWER, SIDE_POWER = 13.0, 0.6  # impulse of a step, a metre of distance from the centre
MAIN_DOWN, SIDE_AWAY = 4 / SCALE, 12 / SCALE  # where engines act
SIDE_UP, SIDE_TILT = 14 / SCALE, 17 / SCALE  # the same number, were it not for the original's slip
LEG_AWAY, LEG_DOWN = 20 / SCALE, 18 / SCALE
MAX_STEPS, QUIET_STEPS = 1000, 25
QUIET_SPEED, QUIET_TURN = 0.01, 2 / 180 * np.pi  # below which a body counts as resting

CORNERS = tuple((x / SCALE, y / SCALE) for x, y in ((14, 17), (-14, 17), (-17, 0), (-17, -10), (17, -10), (17, 0)))
FOOT = (2 / SCALE, 8 / SCALE)


def _leg(side: int) -> tuple[Body, Leg]:
    """The leg on one side, 1 for the right one."""
    box = tuple((x * FOOT[0], y * FOOT[1]) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    body = rigid.body(box, 1.0, (-side * LEG_AWAY, LEG_DOWN))
    # In 180 sweeps of a step, each of which weighs the leg by itself.
    rise = 180 * 0.3 / (1 / body.inertia + 1 / rigid.body(CORNERS, 5.0).inertia)
    return body, Leg(side, 0.35, 0.85, 0.3, 40.0 / RATE, rise)


WORLD = World(
    bodies=(rigid.body(CORNERS, 5.0), _leg(1)[0], _leg(-1)[0]),
    legs=(_leg(1)[1], _leg(-1)[1]),
    hull=CORNERS,
    foot=FOOT,
    spacing=WIDTH / NUM_PIECES,
    friction=float(np.sqrt(0.2 * 0.1)),
    gravity=-10.0,
    duration=1 / RATE,
)

# After the first step without a push, and by how much more for a whole push to the right and one upwards.
FIRST_POSE = (
    (WIDTH / 2, 0.079827, 0.0),  # x of the hinge
    (HEIGHT + 0.002135, 0.0, 0.080663),  # y
    (0.000007, -0.00925, 0.0),  # angle of the hull
    (0.491886, -0.011997, 0.0),  # of the right leg
    (-0.492146, -0.012, 0.0),  # of the left leg
)
FIRST_SPEEDS = (
    ((0.0, 4.042799, 0.0), (-0.2, 0.0, 4.033161), (0.0, -0.457877, 0.0)),  # x, y and turn of the hull
    ((0.0, 3.706773, 0.0), (-0.2, -0.291139, 4.033161), (0.0, -0.457878, 0.0)),
    ((0.0, 3.706773, 0.0), (-0.2, 0.291139, 4.033161), (0.0, -0.457878, 0.0)),
)


class Thrust(NamedTuple):
    """What the engines do in a step."""

    main: Array  # share of the main engine's power, 0 or from 0.5 to 1
    side: Array  # likewise of the side engines'
    direction: Array  # -1 where the left one fires and 1 where the right one does


@struct.dataclass
class LanderState(environment.EnvState):
    """Everything about the lander and the ground below it."""

    time: Any  # int32 steps since the start of the episode
    pose: Any  # [5]: x and y of the hinge, and the angles of hull and legs
    speeds: Any  # [3, 3]: x, y and turn of hull and legs
    motors: Any  # [2] impulses of the legs' motors
    heights: Any  # [C] of the ground
    contacts: Contacts  # of this pose
    near: Any  # [2, P] bool, whether a leg is about to touch a piece of ground
    touching: Any  # [2, P] bool, whether it did in the last step
    flags: Any  # [2] bool, whether legs are said to touch
    clearance: Any  # of the hull, skins aside
    is_crashed: Any  # bool
    num_quiet: Any  # int32 steps for which all bodies have rested


def start(push: Array, heights: Array) -> LanderState:
    """Puts the lander above the ground.

    Args:
        push: `[2]` to the right and upwards, of at most 1 each.
        heights: `[C]` of the ground.

    Returns:
        The state that an episode starts in.
    """
    factors = jnp.concatenate([jnp.ones(1), push])
    zero, one = jnp.zeros((2, 2)), jnp.ones((2, 2))
    nowhere = jnp.zeros((2, NUM_PIECES), bool)
    return LanderState(
        time=jnp.int32(0),
        pose=(jnp.array(FIRST_POSE) * factors).sum(-1),
        speeds=(jnp.array(FIRST_SPEEDS) * factors).sum(-1),
        motors=jnp.zeros(2),
        heights=heights,
        contacts=Contacts((zero, one), (zero, -one), FAR * one),
        near=nowhere,
        touching=nowhere,
        flags=jnp.zeros(2, bool),
        clearance=jnp.float32(FAR),
        is_crashed=jnp.bool_(False),
        num_quiet=jnp.int32(0),
    )


def hills(key: Key) -> Array:
    """Draws the heights of the ground, `[C]`, level at the pad; the key is consumed."""
    rough = jax.random.uniform(key, (NUM_PIECES + 2,), maxval=HEIGHT / 2).at[3:8].set(PAD)
    return 0.33 * (jnp.roll(rough, 1) + rough + jnp.roll(rough, -1))[:-1]


def thrust(action: Array, is_continuous: bool) -> Thrust:
    """Tells what the engines do.

    Args:
        action: 0 nothing, 1 left engine, 2 main engine, 3 right engine; or `[2]` main engine, which runs from half to
            full power above 0, and side engines, which do so beyond -0.5 (left) and 0.5 (right).
        is_continuous: whether it is the latter.

    Returns:
        Powers and direction.
    """
    if not is_continuous:
        is_main, is_side = action == 2, (action == 1) | (action == 3)
        return Thrust(is_main.astype(jnp.float32), is_side.astype(jnp.float32), (action - 2).astype(jnp.float32))
    main, side = jnp.clip(action[0], -1.0, 1.0), jnp.clip(action[1], -1.0, 1.0)
    main = jnp.where(main > 0, 0.5 + 0.5 * main, 0.0)
    return Thrust(main, jnp.where(jnp.abs(side) > 0.5, jnp.abs(side), 0.0), jnp.sign(side))


def advance(state: LanderState, thrust: Thrust, dispersion: Array) -> LanderState:
    """Does a step.

    Args:
        state: before it.
        thrust: of the engines.
        dispersion: `[2]` from -1 to 1, how far engines go astray.

    Returns:
        The state after it.
    """
    x, y, *turns = state.pose
    pose = Motion(x, y, (turns[0], turns[1], turns[2]))
    moving = Moving(pose, tuple(tuple(speed) for speed in state.speeds), (state.motors[0], state.motors[1]))
    moving = impulses.advance(moving, engines(pose.turns[0], thrust, dispersion), state.contacts, world=WORLD)
    found = ground.find(moving.pose, state.heights, world=WORLD)
    near, touching, flags = _touched(state, found)
    speeds = jnp.array(moving.speeds)
    is_slow = (jnp.square(speeds[:, :2]).sum(-1) <= QUIET_SPEED**2) & (jnp.abs(speeds[:, 2]) <= QUIET_TURN)
    return dataclasses.replace(
        state,
        time=state.time + 1,
        pose=jnp.array([moving.pose.x, moving.pose.y, *moving.pose.turns]),
        speeds=speeds,
        motors=jnp.array(moving.motors),
        contacts=found.contacts,
        near=near,
        touching=touching,
        flags=flags,
        clearance=found.hull,
        # What falls fast enough passes a piece of ground between two steps, and is found below all of them.
        is_crashed=(state.clearance <= SKIN) | (found.hull <= IMPACT) | (moving.pose.y < state.heights.min()),
        num_quiet=jnp.where(is_slow.all(), state.num_quiet + 1, 0),
    )


def engines(angle: Array, thrust: Thrust, dispersion: Array) -> Motion:
    """Computes the impulse of the engines.

    Args:
        angle: of the hull.
        thrust: of the engines.
        dispersion: `[2]` from -1 to 1, how far they go astray.

    Returns:
        The impulse at the hinge and about it.
    """
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    ahead, aside = dispersion[0] / SCALE, dispersion[1] / SCALE
    # The main engine pushes from below along the line to the hinge, so that it does not turn the lander.
    down, power = MAIN_DOWN + 2 * ahead, MAIN_POWER * thrust.main
    main_x, main_y = power * (cosine * aside - sine * down), power * (cosine * down + sine * aside)
    away, power = 3 * aside + SIDE_AWAY * thrust.direction, SIDE_POWER * thrust.side
    x, y = sine * ahead - cosine * away, -cosine * ahead - sine * away
    turn = (y + SIDE_UP * cosine) * x - (x - SIDE_TILT * sine) * y
    return Motion(main_x - power * x, main_y - power * y, (power * turn, 0.0, 0.0))


def _touched(state: LanderState, found: ground.Ground) -> tuple[Array, Array, Array]:
    """Which pieces legs are near to and touch, `[2, P]`, and the legs' flags, `[2]`."""
    pieces = jnp.arange(NUM_PIECES)
    gaps = jnp.full((2, NUM_PIECES), FAR)
    for offset in range(2):
        gaps = jnp.where(pieces == found.piece[:, None] + offset, found.near[offset][:, None], gaps)
    # A leg that came too deep will be lifted out of the piece where it is deepest.
    lift = jnp.minimum(gaps.min(-1, keepdims=True) - SKIN + LINEAR_SLOP, 0.0)
    near = gaps <= SKIN + lift
    touching = state.near | (near & (gaps <= IMPACT))
    has_ended = (state.touching & ~state.near).any(-1)
    has_begun = (state.near & ~state.touching).any(-1)
    flags = jnp.where(has_ended, False, state.flags | has_begun) | (touching & ~state.near).any(-1)
    return near, touching, flags


def observation(state: LanderState) -> Array:
    """What is seen: place of the lander from the pad, its velocity, angle and turn, and both legs' flags, `[8]`."""
    (x, y, angle), (speed_x, speed_y, turn) = state.pose[:3], state.speeds[0]
    place = (x - WIDTH / 2) / (WIDTH / 2), (y - PAD - LEG_DOWN) / (HEIGHT / 2)
    speed = speed_x * (WIDTH / 2) / RATE, speed_y * (HEIGHT / 2) / RATE
    return jnp.array([*place, *speed, angle, 20 * turn / RATE, *state.flags.astype(jnp.float32)])


def shaping(obs: Array) -> Array:
    """How good it is to be somewhere; a step earns by how much that improves.

    Args:
        obs: `[*N, 8]`.

    Returns:
        `[*N]`.
    """
    x, y, speed_x, speed_y, angle, _, first, second = jnp.moveaxis(obs, -1, 0)
    far, fast = jnp.sqrt(x * x + y * y), jnp.sqrt(speed_x * speed_x + speed_y * speed_y)
    return -100 * (far + fast + jnp.abs(angle)) + 10 * (first + second)


def heuristic(obs: Array, is_continuous: bool = False) -> Array:
    """Chooses as the original's hand-made controller does: towards the pad, upright, the slower the lower.

    Args:
        obs: `[8]`.
        is_continuous: whether engines have powers.

    Returns:
        An action, an int32 scalar or `[2]`.
    """
    hover = 0.55 * jnp.abs(obs[0]) - obs[1]
    turn = 0.5 * (jnp.clip(0.5 * obs[0] + obs[2], -0.4, 0.4) - obs[4]) - obs[5]
    stands = obs[6:].any()
    turn, rise = jnp.where(stands, 0.0, turn), jnp.where(stands, 0.0, 0.5 * hover) - 0.5 * obs[3]
    if is_continuous:
        return jnp.clip(jnp.array([20 * rise - 1, -20 * turn]), -1, 1)
    others = jnp.where(turn < -0.05, 3, jnp.where(turn > 0.05, 1, 0))
    return jnp.where((rise > jnp.abs(turn)) & (rise > 0.05), 2, others)


class LunarLander(environment.Environment[LanderState, environment.EnvParams]):
    """The lander, with four actions or two continuous ones.

    Attributes:
        is_continuous: which of the two.
    """

    def __init__(self, continuous: bool = False):
        """Binds the kind of actions.

        Args:
            continuous: whether engines have powers; otherwise one of them fires, fully, or none.
        """
        super().__init__()
        self.is_continuous = continuous

    def reset_env(self, key: Key, params: environment.EnvParams) -> tuple[Array, LanderState]:
        """Draws hills and a push; the key is consumed."""
        del params
        hills_key, push_key = jax.random.split(key)
        state = start(jax.random.uniform(push_key, (2,), minval=-1.0), hills(hills_key))
        return observation(state), state

    def step_env(
        self, key: Key, state: LanderState, action: int | float | Array, params: environment.EnvParams
    ) -> tuple[Array, LanderState, Array, Array, dict[Any, Any]]:
        """Fires engines for a step; the key is consumed."""
        power = thrust(jnp.asarray(action), self.is_continuous)
        before = shaping(observation(state))
        state = advance(state, power, jax.random.uniform(key, (2,), minval=-1.0))
        obs = observation(state)
        reward = shaping(obs) - before - 0.3 * power.main - 0.03 * power.side
        reward = jnp.where(state.num_quiet >= QUIET_STEPS, 100.0, jnp.where(_is_lost(state), -100.0, reward))
        return obs, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Key, state: LanderState, action: Any, params: environment.EnvParams) -> Array:
        """Place, velocity, angle, turn and the legs' flags, `[8]`."""
        del key, action, params
        return observation(state)

    def is_terminated(self, state: LanderState, params: environment.EnvParams) -> Array:
        """Whether the lander has crashed, is out of view or has come to rest."""
        del params
        return _is_lost(state) | (state.num_quiet >= QUIET_STEPS)

    @property
    def default_params(self) -> environment.EnvParams:
        """The original's time limit."""
        return environment.EnvParams(max_steps_in_episode=MAX_STEPS)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "LunarLanderContinuous" if self.is_continuous else "LunarLander"

    @property
    def num_actions(self) -> int:
        """Number of actions, or of their parts."""
        return 2 if self.is_continuous else 4

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Discrete | spaces.Box:
        """Engines to fire, or powers of the main engine and of those on the sides."""
        del params
        return spaces.Box(-1.0, 1.0, (2,)) if self.is_continuous else spaces.Discrete(4)

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        """The original's bounds, beyond which fast landers go."""
        del params
        high = jnp.array([2.5, 2.5, 10.0, 10.0, 2 * jnp.pi, 10.0, 1.0, 1.0])
        return spaces.Box(-high.at[6:].set(0.0), high, (8,))


def _is_lost(state: LanderState) -> Array:
    return state.is_crashed | (jnp.abs(state.pose[0] - WIDTH / 2) >= WIDTH / 2)
