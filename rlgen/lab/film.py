"""Films of trained policies and samples of trained generators.

A film shows whole episodes of the policy as its task scores it: greedy, unless the task scores it as it explores.  It
keeps to a size that pages and messages accept: at most `MAX_FRAMES` frames and `MAX_BYTES` bytes, reached by leaving
steps out.

Shape legend: `T` steps of an episode, `E` episodes, `G` grid points, `S` seeds, `N` images.
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from rlgen.core import Array, Key, Policy
from rlgen.envs.adapter import Environment, TimeStep
from rlgen.experiments.planes import PlaneTask
from rlgen.experiments.tabular_tasks import BanditTask
from rlgen.lab import drawings, folders, maps, planes, walks
from rlgen.lab.drawings import Episode
from rlgen.lab.errors import UsageError
from rlgen.lab.runner import Trained
from rlgen.lab.walks import Learned

MAX_FRAMES = 300
MAX_BYTES = 2_000_000
MAX_EPISODES = 50
NUM_COLOURS = 64
MAX_STEPS = 10_000  # of an episode that are played: some never end
CHUNK = 100  # steps at a time: an episode is seldom as long as its limit
LONGEST = 20_000  # milliseconds that a film lasts at most
SHORTEST = 20  # milliseconds that a frame lasts at least: players slow down what is faster
PAUSE = 1_000  # milliseconds on the last frame of an episode
NUM_POINTS = 3_000  # of a plane
FILM, SHEET = ".gif", ".png"
SAMPLES = "samples"  # heading of what a generator draws
_SHOWN = 2**31 - 2  # folded into a run's key: no update reaches it, and the score has another number


def show(learned: Learned, path: Path, *, label: str, num_episodes: int = 1) -> list[Path]:
    """Makes the pictures of a trained lane: a film and, of values that lie in a plane, a map; or sheets of images.

    Args:
        learned: what it came to.
        path: of the film or the sheet; a name gets the suffix `.gif` or `.png`, in place of the other one if it has
            that.  What lies there is replaced, as the files of a report are.
        label: which lane it is, for titles.
        num_episodes: `E`, at most `MAX_EPISODES`.

    Returns:
        The paths of what was written.

    Raises:
        ValueError: if there are too many episodes, or none.
        UsageError: if the task has nothing to show, the path is that of a folder, or a file cannot be written.
    """
    if not 1 <= num_episodes <= MAX_EPISODES:
        raise ValueError(f"episodes={num_episodes} is impossible: it must lie in [1, {MAX_EPISODES}]")
    if path.is_dir():  # as the path of no name at all is: "" is "."
        raise UsageError(f"out={path} is impossible: it is a folder, and a file is needed")
    task, title = learned.experiment.task, f"{learned.experiment.name}, {label}"
    env: Environment | None = getattr(task, "env", None)
    if isinstance(task, BanditTask):
        raise UsageError(f"{learned.experiment.name} has nothing to show: a bandit has no episodes")
    if isinstance(task, PlaneTask):
        path, stations = _named(path, SHEET), points(learned, task)
        folders.write(path, lambda partial: planes.way(partial, stations, title=title, apart=(SAMPLES,)))
        return [path]
    if env is None:
        return walks.show(learned, jax.random.fold_in(learned.key, _SHOWN), _named(path, SHEET), title=title)
    path = _named(path, FILM)
    film(path, env, episodes(learned, env, num_episodes))
    where = maps.plane(task)
    what = where and maps.learned(learned.experiment, learned.state, learned.hypers)
    if where is None or what is None:
        return [path]
    values = path.with_name(f"{path.stem}-values.png")
    folders.write(values, lambda partial: maps.draw(partial, where, what, title=title))
    return [path, values]


def _named(path: Path, suffix: str) -> Path:
    """Gives a file its suffix.  The name may hold other dots, as in `ppo-0.5`: what follows them is no suffix."""
    known = path.suffix.lower()
    if known == suffix:
        return path
    return path.with_suffix(suffix) if known in (FILM, SHEET) else path.with_name(path.name + suffix)


def lane(trained: Trained, index: int) -> Learned:
    """Gives what lane `index` of a finished run came to."""
    state, key, hypers = jax.tree.map(lambda leaf: leaf[index], (trained.state.algorithm, trained.keys, trained.hypers))
    return Learned(trained.experiment, key, jnp.int32(trained.bound.num_updates), state, hypers)


def episodes(learned: Learned, env: Environment, num: int) -> list[Episode]:
    """Plays `num` whole episodes of a trained policy as its task scores it."""
    explore = getattr(learned.experiment.task, "explore", False)
    policy_of = functools.partial(walks.policy, experiment=learned.experiment, explore=explore)
    return record(jax.random.fold_in(learned.key, _SHOWN), policy_of, learned[2:], env, num)


def points(learned: Learned, task: PlaneTask, num: int = NUM_POINTS) -> dict[str, np.ndarray]:
    """Gives points of a plane by heading, `[N, 2]` each: data and samples, and of a flow the way there and back."""
    experiment, data = learned.experiment, task.held_out[:num]
    build_way = getattr(experiment.algorithm, "build_way", None)
    stations = {"data": data}
    if build_way is not None:
        latents, back = jax.jit(build_way(task.spec, experiment.config))(learned.state, data)
        stations |= {"to latents": latents, "and back": back}
    drawn = walks.samples(learned, jax.random.fold_in(learned.key, _SHOWN), num)
    return {heading: np.asarray(place) for heading, place in stations.items()} | {SAMPLES: drawn}


def record(key: Key, policy_of: Callable[[Any], Policy], learned: Any, env: Environment, num: int) -> list[Episode]:
    """Plays whole episodes, or their first `MAX_STEPS` steps, and keeps all that was seen and done.

    Args:
        key: consumed.
        policy_of: `learned -> policy`, called inside the trace.
        learned: arrays that the policy is made of.
        env: where.
        num: `E` episodes, each in an environment of its own.

    Returns:
        The episodes.
    """
    reset_key, steps_key = jax.random.split(key)
    env_state, obs = env.reset(reset_key, num)
    carry = env_state, obs, policy_of(learned).memory((num,))
    advance = jax.jit(functools.partial(_advance, policy_of=policy_of, env=env))
    pieces = []
    ended = np.zeros(num, bool)
    for start in range(0, min(env.max_steps, MAX_STEPS), CHUNK):
        carry, piece = advance(steps_key, jnp.int32(start), carry, learned)
        pieces.append(jax.device_get(piece))
        done = pieces[-1][2].terminated | pieces[-1][2].truncated
        ended |= done.any(0)
        if ended.all():
            break
    obs, action, steps = jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)
    return [_episode(obs, action, steps, index) for index in range(num)]


def _advance(key: Key, start: Array, carry: Any, learned: Any, *, policy_of: Callable[[Any], Policy], env: Environment):
    """Takes `CHUNK` steps; gives observations before them, actions and what came of them, `[CHUNK, E]`."""
    policy = policy_of(learned)

    def body(carry, step):
        env_state, obs, memory = carry
        action_key, step_key = jax.random.split(jax.random.fold_in(key, step))
        action, _, memory = policy.apply(action_key, obs, memory)
        env_state, time_step = env.step(step_key, env_state, action)
        return (env_state, time_step.obs, memory), (obs, action, time_step)

    return lax.scan(body, carry, start + jnp.arange(CHUNK, dtype=jnp.int32))


def _episode(obs: Any, action: Any, steps: TimeStep, index: int) -> Episode:
    """Cuts the first episode of an environment out of arrays `[N, E]`."""
    done = np.asarray(steps.terminated | steps.truncated)[:, index]
    length = int(done.argmax()) + 1 if done.any() else len(done)
    first, last = (jax.tree.map(lambda leaf: leaf[:length, index], tree) for tree in (obs, steps.next_obs))
    seen = jax.tree.map(lambda before, after: np.concatenate([before, after[-1:]]), first, last)
    reward = jax.tree.map(lambda leaf: np.asarray(leaf[:length, index], np.float64), steps.reward)
    if isinstance(reward, tuple):  # of several agents
        reward = np.stack(reward, axis=-1)
    return Episode(seen, jax.tree.map(lambda leaf: leaf[:length, index], action), reward)


def film(path: Path, env: Environment, episodes: Sequence[Episode]) -> int:
    """Writes a film that plays episodes one after another, for ever.

    Args:
        path: of the GIF.
        env: the environment.
        episodes: what happened.

    Returns:
        The number of frames.

    Raises:
        FolderError: if it cannot be written.
    """
    stride = 1
    while True:
        moments = _moments(episodes, stride)
        if len(moments) <= MAX_FRAMES:
            encoded = _encode(env, moments, stride)
            if len(encoded) <= MAX_BYTES or len(moments) <= 2 * len(episodes):
                break
            stride *= 2
        else:
            stride += 1
    folders.write(path, lambda partial: partial.write_bytes(encoded))
    return len(moments)


def _moments(episodes: Sequence[Episode], stride: int) -> list[tuple[Episode, int]]:
    """Lists every `stride`-th step of the episodes, and their last ones."""
    return [
        (episode, step)
        for episode in episodes
        for step in (*range(0, len(episode.reward), stride), len(episode.reward))
    ]


def _encode(env: Environment, moments: Sequence[tuple[Episode, int]], stride: int) -> bytes:
    """Draws moments and makes a GIF of them, with one palette for all."""
    frames = [drawings.frame(env, episode, step) for episode, step in moments]
    palette = _palette(frames)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pace = max(SHORTEST, min(drawings.drawing(env).pace * stride, LONGEST // len(frames)))
    durations = [PAUSE if step == len(episode.reward) else pace // 10 * 10 for episode, step in moments]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    return stream.getvalue()


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Chooses colours that serve all frames, from some of them side by side."""
    chosen = [frames[int(index)] for index in np.linspace(0, len(frames) - 1, min(8, len(frames)))]
    sheet = Image.new("RGB", (chosen[0].width, sum(frame.height for frame in chosen)))
    for index, frame in enumerate(chosen):
        sheet.paste(frame, (0, index * frame.height))
    return sheet.quantize(NUM_COLOURS, method=Image.Quantize.FASTOCTREE)
