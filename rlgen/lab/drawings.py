"""Drawings of environments, made from what an agent observes.

An observation says all that a picture needs in every environment of the catalogue, and the adapter hands out the last
one of an episode from before the reset, so no drawing looks into an environment's state.  Of stacked frames the newest
one is drawn.  Environments without a drawing of their own are shown as the image, the cell or the bars that their
observation is.

Shape legend: `T` steps of an episode, `A` agents, `H W C` image.
"""

import cmath
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rlgen.core import Discrete
from rlgen.envs import frames, lander
from rlgen.envs.adapter import Environment
from rlgen.envs.frames import FrameStack
from rlgen.envs.grid import GridWorld
from rlgen.envs.memory import RepeatPrevious
from rlgen.envs.particles import Particles, Scenario
from rlgen.envs.scenarios import SCENARIOS
from rlgen.lab import pens
from rlgen.lab.canvas import COLOURS, FAINT, INK, WALL
from rlgen.lab.pens import BLUE, FINE, ORANGE, PAPER, RED, WIDTH, Point

HEADING = 26
NIGHT, GAIN, LOSS, TRAIL = "#15151c", "#d3ecd5", "#f6d3cd", "#9cc7ec"
RIGHT = "#2e9e44"  # an answer that is right
MOST_RETURNS = 4  # of several agents that are told one by one
MAX_BARS = 96  # numbers beyond which a vector is shown as an image


class Episode(NamedTuple):
    """What happened, as arrays of the host."""

    obs: Any  # [T + 1, *observation]: before each step, and the last one before the reset
    action: Any  # [T, *action]
    reward: NDArray[np.float64]  # [T], or [T, A] of several agents


class Drawing(NamedTuple):
    """How an environment is drawn.

    Attributes:
        draw: `(env, episode, step) -> picture` of the moment after `step` steps, `0 … T`.
        pace: milliseconds that a step lasts in a film.
    """

    draw: Callable[[Environment, Episode, int], Image.Image]
    pace: int


def drawing(env: Environment) -> Drawing:
    """Chooses how to draw an environment: by its name, or by what it observes.

    Args:
        env: the environment.

    Returns:
        Its drawing.
    """
    if env.name in DRAWINGS:
        return DRAWINGS[env.name]
    if isinstance(env.native, GridWorld):
        return Drawing(grid_world, 250)
    return Drawing(pixels if env.name.endswith("-MinAtar") else observation, 80)


def frame(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws a moment under a heading that tells the step and the return so far.

    Args:
        env: the environment.
        episode: what happened.
        step: steps done, `0 … T`.

    Returns:
        An RGB image of at most `WIDTH` by `WIDTH + HEADING` pixels.
    """
    if isinstance(env.native, FrameStack):
        episode = episode._replace(obs=env.native.newest(np.asarray(episode.obs)))
    picture = drawing(env).draw(env, episode, step)
    width = max(picture.width, 200)
    canvas = Image.new("RGB", (width, picture.height + HEADING), PAPER)
    canvas.paste(picture, ((width - picture.width) // 2, HEADING))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    totals = np.atleast_1d(episode.reward[:step].sum(axis=0))
    returns = (
        f"return {totals[0]:.6g}" if len(totals) == 1 else "returns " + ", ".join(f"{each:.3g}" for each in totals)
    )
    if len(totals) > MOST_RETURNS:
        returns = f"returns {totals.min():.3g} to {totals.max():.3g}"
    pen.text((8, HEADING / 2), f"step {step}", fill=INK, font=font, anchor="lm")
    pen.text((width - 8, HEADING / 2), returns, fill=INK, font=font, anchor="rm")
    return canvas


def cart_pole(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws cart and pole on their track, its two ends marked, and the push that comes next.

    The two positions are drawn, so velocities may be missing from the observation.
    """
    numbers = np.asarray(episode.obs[step])
    x, angle = map(float, numbers if env.name == "MaskedCartPole" else numbers[::2])
    picture, pen = pens.sheet(WIDTH, 210)
    unit, ground = WIDTH * FINE / 5.6, 165 * FINE
    middle = WIDTH * FINE / 2 + x * unit
    pen.line((0, ground, WIDTH * FINE, ground), fill=FAINT, width=2 * FINE)
    for end in (-2.4, 2.4):
        place = WIDTH * FINE / 2 + end * unit
        pen.line((place, ground - 8 * FINE, place, ground + 8 * FINE), fill=RED, width=2 * FINE)
    top = ground - 22 * FINE
    pen.rounded_rectangle((middle - 26 * FINE, top, middle + 26 * FINE, ground - FINE), radius=4 * FINE, fill=INK)
    tip = middle + math.sin(angle) * 1.5 * unit, top - math.cos(angle) * 1.5 * unit
    pens.rod(pen, (middle, top), tip, ORANGE, 9 * FINE)
    pens.disc(pen, (middle, top), 3.5 * FINE, BLUE)
    if step < len(episode.action):
        side = 1 if int(episode.action[step]) == 1 else -1
        pens.arrow(pen, (middle, ground + 22 * FINE), (middle + side * 34 * FINE, ground + 22 * FINE), BLUE)
    return picture.reduce(FINE)


def pendulum(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws the pendulum, upright at angle zero and positive to the left, and as an arc the torque that comes next."""
    cosine, sine, _ = map(float, episode.obs[step])
    picture, pen = pens.sheet(280, 280)
    centre, length = 140 * FINE, 105 * FINE
    pen.ellipse((centre - length, centre - length, centre + length, centre + length), outline="#e4e4e4", width=FINE)
    pens.rod(pen, (centre, centre), (centre - sine * length, centre - cosine * length), RED, 18 * FINE)
    pens.disc(pen, (centre, centre), 4.5 * FINE, INK)
    if step < len(episode.action):
        limit = float(np.max(env.spec.action.high))
        torque = float(np.clip(np.ravel(episode.action[step])[0], -limit, limit))
        pens.torque(pen, (centre, centre), 38 * FINE, 150.0 * torque / limit)
    return picture.reduce(FINE)


def particles(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws agents with their trails among landmarks in the field; adversaries are red, and a goal is green.

    Where nobody sees the place that it is at, the middle of the landmarks is the middle of the picture.
    """
    native = env.native
    assert isinstance(native, Particles)
    scenario, num = native.scenario, native.scenario.num_agents
    picture, pen = pens.sheet(WIDTH, WIDTH)
    width = 5.0 if scenario.has_goal else 3.2  # of what is shown
    unit, middle = WIDTH * FINE / width, WIDTH * FINE / 2
    trail = [_particle_places(scenario, episode, before) for before in range(max(step - 8, 0), step + 1)]
    here = [[(middle + x * unit, middle - y * unit) for x, y in places] for places in trail]
    if not scenario.has_goal:
        pen.rectangle((middle - unit, middle - unit, middle + unit, middle + unit), outline=FAINT, width=FINE)
    goal = _particle_goal(scenario, episode, step)
    discs = [(scenario.landmark_size, place, RIGHT if k == goal else WALL) for k, place in enumerate(here[-1][num:])]
    for k, name in enumerate(scenario.agents):
        colour = RED if name.startswith("adversary") else BLUE
        pen.line([places[k] for places in here], fill=colour, width=2 * FINE)
        discs.append((scenario.sizes[k], here[-1][k], colour))
    for size, place, colour in sorted(discs, key=lambda disc: -disc[0]):  # so that none is covered whole
        pens.disc(pen, place, size * unit, colour)
    return picture.reduce(FINE)


def _particle_places(scenario: Scenario, episode: Episode, step: int) -> NDArray[np.float64]:
    """Where all bodies are, `[E, 2]`, from what the first agent sees."""
    seen = np.asarray(episode.obs[0][step], np.float64).reshape(-1, 2)
    sees_itself = not scenario.has_goal
    ways = seen[2 * sees_itself :]
    landmarks, others = np.split(ways[: scenario.num_landmarks + scenario.num_agents - 1], [scenario.num_landmarks])
    place = seen[1] if sees_itself else -landmarks.mean(axis=0)
    return place + np.concatenate([np.zeros((1, 2)), others, landmarks])


def _particle_goal(scenario: Scenario, episode: Episode, step: int) -> int | None:
    """The landmark that counts, which the second agent sees before all others."""
    if not scenario.has_goal:
        return None
    seen = np.asarray(episode.obs[1][step]).reshape(-1, 2)
    return int(np.abs(seen[1 : 1 + scenario.num_landmarks] - seen[0]).sum(axis=1).argmin())


def lunar_lander(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws the lander, its way, the pad between its flags, and the engines that fire next.

    Hills cannot be observed: only the pad's level is drawn, and faintly so beyond it.  Legs hang as they do in flight
    and are blue where they touch.
    """
    del env
    numbers = np.asarray(episode.obs, np.float64)
    unit = WIDTH / lander.WIDTH * FINE
    picture, pen = pens.sheet(WIDTH, round(lander.HEIGHT * unit / FINE))
    pen.rectangle((0, 0, *picture.size), fill=NIGHT)

    def place(x: float, y: float) -> Point:
        return x * unit, picture.height - y * unit

    level, (left, right) = 0.99 * lander.PAD, (0.4 * lander.WIDTH, 0.6 * lander.WIDTH)
    pen.line((*place(0, level), *place(lander.WIDTH, level)), fill=FAINT, width=FINE)
    pen.line((*place(left, level), *place(right, level)), fill=PAPER, width=3 * FINE)
    for x in (left, right):
        pen.line((*place(x, level), *place(x, level + 1.4)), fill=PAPER, width=FINE)
        pen.polygon([place(x, level + 1.4), place(x, level + 0.9), place(x + 0.8, level + 1.15)], fill=ORANGE)
    xs = (1 + numbers[: step + 1, 0]) * lander.WIDTH / 2
    ys = numbers[: step + 1, 1] * lander.HEIGHT / 2 + lander.PAD + lander.LEG_DOWN
    pen.line([place(x, y) for x, y in zip(xs, ys, strict=True)], fill=FAINT, width=FINE)

    def turned(corners: Sequence[Point], angle: float, centre: Point = (0.0, 0.0)) -> list[Point]:
        middle = complex(*centre) * cmath.rect(1, numbers[step, 4])
        around = [middle + complex(*corner) * cmath.rect(1, numbers[step, 4] + angle) for corner in corners]
        return [place(xs[-1] + point.real, ys[-1] + point.imag) for point in around]

    if step < len(episode.action):
        power = lander.thrust(jax.numpy.asarray(episode.action[step]), np.ndim(episode.action[step]) > 0)
        main, side, direction = float(power.main), float(power.side), float(power.direction)
        flame = turned([(-0.25, -0.33), (0.25, -0.33), (0, -0.33 - 1.2 * main)], 0)
        pen.polygon(flame, fill=ORANGE if main else NIGHT)
        edge, tip = -0.5 * direction, -(0.5 + 0.8 * side) * direction  # the left engine pushes left
        pen.polygon(turned([(edge, 0.3), (edge, 0.5), (tip, 0.4)], 0), fill=ORANGE if side else NIGHT)
    half_width, half_height = lander.FOOT
    box = [(x * half_width, y * half_height) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    for index, joint in enumerate(lander.WORLD.legs):
        angle = joint.side * joint.inner
        arm = complex(*lander.WORLD.bodies[1 + index].centre) * cmath.rect(1, angle)
        pen.polygon(turned(box, angle, (arm.real, arm.imag)), fill=BLUE if numbers[step, 6 + index] else WALL)
    pen.polygon(turned(lander.CORNERS, 0), fill=COLOURS[3])
    return picture.reduce(FINE)


def pong(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws the field with the agent's paddle on the left, the ball and where it was, and the move that comes next."""
    del env
    image = np.asarray(episode.obs[step])
    rows, columns = image.shape
    cell = WIDTH // columns * FINE
    picture, pen = pens.sheet(columns * cell // FINE, rows * cell // FINE)
    pen.rectangle((0, 0, *picture.size), fill=NIGHT)
    for row in range(0, rows, 2):
        middle = columns * cell / 2
        pen.line((middle, row * cell, middle, (row + 1) * cell), fill=FAINT, width=FINE)
    was = np.asarray(episode.obs[max(step - 1, 0)]) == frames.BALL
    marks = ((was, WALL, 0.2), (image == frames.PADDLE, BLUE, 0.5), (image == frames.BALL, ORANGE, 0.5))
    for mask, colour, half in marks:
        for row, column in np.argwhere(mask):
            x, y, reach = (column + 0.5) * cell, (row + 0.5) * cell, half * cell
            fill = RED if colour == BLUE and column > 0 else colour
            pen.rectangle((x - reach, y - reach, x + reach - 1, y + reach - 1), fill=fill)
    move = int(episode.action[step]) if step < len(episode.action) else frames.STAY
    if move != frames.STAY:
        side = -1 if move == frames.UP else 1
        y = (np.argwhere(image[:, 0] == frames.PADDLE).mean() + 0.5) * cell
        pens.arrow(pen, (2.2 * cell, y - side * cell), (2.2 * cell, y + side * cell), PAPER)
    return picture.reduce(FINE)


def repeat_previous(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws the symbols from the one asked for to the one on show, and an answer: its arrow is green if it is right."""
    delay = cast(RepeatPrevious, env.native).delay
    side = min(64, WIDTH // (delay + 2)) * FINE
    picture, pen = pens.sheet(WIDTH, 210)
    left, top, below = (WIDTH * FINE - (delay + 1) * side) / 2, 20 * FINE, 210 * FINE - 20 * FINE - side
    for place, time in enumerate(range(step - delay, step + 1)):
        corner = left + place * side, top
        if time >= 0:
            _symbol(pen, corner, side, int(episode.obs[time]), INK if time == step else None)
        else:
            x, y = corner[0] + side / 2, corner[1] + side / 2
            pens.disc(pen, (x, y), side * 0.06, FAINT)
    if step < len(episode.action):
        answer, asked = int(episode.action[step]), step - delay
        verdict = FAINT if asked < 0 else RIGHT if answer == int(episode.obs[asked]) else RED
        _symbol(pen, (left, below), side, answer, None)
        pens.arrow(pen, (left + side / 2, below - 6 * FINE), (left + side / 2, top + side + 12 * FINE), verdict)
    return picture.reduce(FINE)


def _symbol(pen: ImageDraw.ImageDraw, corner: Point, side: float, symbol: int, outline: str | None) -> None:
    """Draws a symbol as a letter on a colour of its own."""
    (x, y), gap = corner, side * 0.08
    box = x + gap, y + gap, x + side - gap, y + side - gap
    width = max(round(side * 0.06), 1)
    fill = COLOURS[symbol % len(COLOURS)]
    pen.rounded_rectangle(box, radius=side * 0.12, fill=fill, outline=outline or fill, width=width)
    font = ImageFont.load_default(side * 0.4)
    name = chr(ord("A") + symbol) if symbol < 26 else str(symbol)
    pen.text((x + side / 2, y + side / 2), name, fill=PAPER, font=font, anchor="mm")


def grid_world(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws the layout, the way that the agent came and the agent."""
    world = cast(GridWorld, env.native)
    rows, columns = world.shape
    cell = min(80, WIDTH // max(rows, columns)) * FINE
    picture, pen = pens.sheet(columns * cell // FINE, rows * cell // FINE)
    font = ImageFont.load_default(cell * 0.36)
    centres = [((index % columns + 0.5) * cell, (index // columns + 0.5) * cell) for index in range(rows * columns)]
    for (x, y), reward, wall in zip(centres, world.cell_reward, world.cell_wall, strict=True):
        fill = WALL if wall else GAIN if reward > 0 else LOSS if reward < 0 else PAPER
        box = x - cell / 2, y - cell / 2, x + cell / 2, y + cell / 2
        pen.rectangle(box, fill=fill, outline="#dddddd", width=FINE)
    way = [centres[int(index)] for index in episode.obs[: step + 1]]
    for start, stop in itertools.pairwise(way):
        if math.dist(start, stop) <= cell:  # a longer way is no move: the agent was sent back
            pens.rod(pen, start, stop, TRAIL, max(cell / 12, FINE))
    for centre, mark in zip(centres, "".join(world.layout), strict=True):
        if mark not in ".#":
            pen.text(centre, mark, fill=INK, font=font, anchor="mm")
    pens.disc(pen, way[-1], cell * 0.26, ORANGE)
    return picture.reduce(FINE)


def pixels(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws an image `[H, W, C]` as squares in one colour a channel, that of the largest number.

    Of equal numbers the first channel's lies on top.  The largest number of the episode shines brightest.
    """
    del env
    board = np.asarray(episode.obs[step])
    height, width, channels = board.shape
    colours = np.array([pens.rgb(COLOURS[channel % len(COLOURS)]) for channel in range(channels)])
    light = np.nan_to_num(np.clip(board.max(-1) / (np.max(episode.obs) or 1), 0, 1))[..., None]
    squares = (light * colours[board.argmax(-1)] + (1 - light) * pens.rgb(NIGHT)).astype(np.uint8)
    side = max(1, 320 // max(height, width))
    large = squares.repeat(side, axis=0).repeat(side, axis=1)
    if side >= 8:  # dark lines between squares
        large[::side], large[:, ::side] = pens.rgb(NIGHT), pens.rgb(NIGHT)
    return Image.fromarray(large)


def observation(env: Environment, episode: Episode, step: int) -> Image.Image:
    """Draws any observation: a lit cell for an index, an image for an image, bars for numbers."""
    if isinstance(env.spec.observation, Discrete):
        num = env.spec.observation.num
        return pens.heat(_square(np.arange(num) == int(episode.obs[step])), (0.0, 1.0))
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(episode.obs)]
    shape = leaves[0].shape[1:]
    if len(leaves) == 1 and len(shape) == 3 and shape[-1] not in (1, 3):
        return pixels(env, Episode(leaves[0], episode.action, episode.reward), step)
    if len(leaves) == 1 and len(shape) in (2, 3):
        return pens.heat(leaves[0][step], _range(leaves[0]))
    numbers = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    if numbers.shape[1] > MAX_BARS:
        return pens.heat(_square(numbers[step]), _range(numbers))
    return _bars(numbers[step], np.abs(numbers[np.isfinite(numbers)]).max(initial=1e-6))


def _bars(numbers: NDArray[np.float64], largest: float) -> Image.Image:
    """Draws numbers as bars from a line in the middle; the largest of the episode reaches the edge."""
    picture, pen = pens.sheet(WIDTH, 220)
    width, middle = WIDTH * FINE / max(len(numbers), 1), 110 * FINE
    for index, number in enumerate(np.nan_to_num(numbers, posinf=largest, neginf=-largest)):
        end = middle - number / largest * 100 * FINE
        colour = BLUE if number >= 0 else RED
        gap = width * 0.12
        pen.rectangle((index * width + gap, min(middle, end), (index + 1) * width - gap, max(middle, end)), fill=colour)
    pen.line((0, middle, WIDTH * FINE, middle), fill=INK, width=FINE)
    return picture.reduce(FINE)


def _square(numbers: NDArray[Any]) -> NDArray[Any]:
    """Lays numbers out in rows, as square as can be, with zeros after the last."""
    columns = math.ceil(math.sqrt(numbers.size))
    rows = math.ceil(numbers.size / columns)
    return np.pad(numbers.astype(np.float64), (0, rows * columns - numbers.size)).reshape(rows, columns)


def _range(numbers: NDArray[np.float64]) -> Point:
    """The smallest and the largest finite number."""
    finite = numbers[np.isfinite(numbers)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))


DRAWINGS = {
    "CartPole-v1": Drawing(cart_pole, 20),
    "LunarLander": Drawing(lunar_lander, 20),
    "LunarLanderContinuous": Drawing(lunar_lander, 20),
    "MaskedCartPole": Drawing(cart_pole, 20),
    "Pendulum-v1": Drawing(pendulum, 50),
    "Pong": Drawing(pong, 40),
    "RepeatPrevious": Drawing(repeat_previous, 400),
    **dict.fromkeys(SCENARIOS, Drawing(particles, 100)),
}
