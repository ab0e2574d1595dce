"""Films, sheets of samples and maps: how many frames, how large, and that they show what happened."""

import dataclasses
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rlgen.core import Policy
from rlgen.envs import adapter, frames, grid, memory, scenarios
from rlgen.envs.particles import ParticlesState
from rlgen.experiments import catalogue
from rlgen.experiments.experiment import shrink
from rlgen.experiments.tabular_tasks import BanditTask
from rlgen.lab import drawings, film, maps, pens, planes, sheets, walks
from rlgen.lab.drawings import Episode
from rlgen.lab.errors import UsageError

RIGHT, DOWN, UP = grid.RIGHT, grid.DOWN, grid.UP


@functools.cache
def cliff() -> adapter.Environment:
    return adapter.make(grid.CliffWalking(), max_steps_in_episode=150)


def safe_path() -> np.ndarray:
    """Q-values of the way along the upper edge of the cliff: up, eleven times right, down."""
    q_values = np.zeros((48, 4), np.float32)
    q_values[np.arange(24, 35), RIGHT] = q_values[35, DOWN] = q_values[36, UP] = 1.0
    return q_values


def greedy(q_values) -> Policy:
    return Policy(lambda batch_shape: (), lambda key, obs, memory: (q_values[obs].argmax(-1), {}, memory))


def walk(env: adapter.Environment, observations, action=0) -> Episode:
    """An episode that sees given observations."""
    obs = np.asarray(observations)
    return Episode(obs, np.full(len(obs) - 1, action), np.ones(len(obs) - 1))


@pytest.fixture(scope="module")
def poles():
    """A long episode of a pole that sways."""
    env = adapter.make("CartPole-v1")
    time = np.arange(501)
    obs = np.stack([np.sin(time / 40), 0 * time, 0.2 * np.sin(time / 9), 0 * time], axis=1)
    return env, Episode(obs, time[1:] % 2, np.ones(500))


def frames_of(path) -> list[np.ndarray]:
    with Image.open(path) as picture:
        frames = []
        for index in range(picture.n_frames):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")))
        return frames


def test_a_record_holds_whole_episodes():
    episodes = film.record(jax.random.key(0), greedy, jnp.asarray(safe_path()), cliff(), 2)
    assert len(episodes) == 2
    for episode in episodes:
        np.testing.assert_array_equal(episode.obs, [36, *range(24, 36), 47])  # ends on the goal, before the reset
        np.testing.assert_array_equal(episode.action, [UP, *[RIGHT] * 11, DOWN])
        assert episode.reward.sum() == -13


def test_a_record_of_several_agents_has_what_each_of_them_earned():
    env = adapter.make(scenarios.simple_tag())
    still = Policy(lambda shape: (), lambda key, obs, memory: ((jnp.zeros(len(obs[0]), jnp.int32),) * 4, {}, memory))
    played = film.record(jax.random.key(0), lambda _: still, jnp.zeros(()), env, 64)
    assert all([len(each) for each in episode.obs] == [env.max_steps + 1] * 4 for episode in played)
    reward = np.stack([episode.reward for episode in played])
    assert reward.shape == (64, env.max_steps, 4)
    # Some begin where they touch: pursuers earn together what the evader loses.
    assert (reward[..., 0] == reward[..., 2]).all() and reward[..., 0].any()
    assert (reward[..., 3] <= -reward[..., 0]).all() and not (reward[..., 3] == reward[..., 0]).all()


def test_a_record_ends_at_the_time_limit():
    (episode,) = film.record(jax.random.key(0), greedy, jnp.zeros((48, 4)), cliff(), 1)
    assert len(episode.reward) == 150  # longer than one chunk of steps, and no multiple of it
    assert len(episode.obs) == 151


def test_a_film_shows_every_step_of_a_short_episode(tmp_path):
    episodes = film.record(jax.random.key(0), greedy, jnp.asarray(safe_path()), cliff(), 2)
    path = tmp_path / "walk.gif"
    assert film.film(path, cliff(), episodes) == 28
    frames = frames_of(path)
    assert len(frames) == 28
    assert all((before != after).any() for before, after in itertools.pairwise(frames))
    with Image.open(path) as picture:
        assert picture.info["duration"] == 250
        assert picture.info["loop"] == 0  # for ever
        picture.seek(13)
        assert picture.info["duration"] == film.PAUSE


def test_a_film_of_a_long_episode_leaves_steps_out(tmp_path, poles):
    env, episode = poles
    path = tmp_path / "poles.gif"
    num_frames = film.film(path, env, [episode, episode])
    frames = frames_of(path)
    assert num_frames == len(frames) <= film.MAX_FRAMES
    assert num_frames > film.MAX_FRAMES // 2
    assert path.stat().st_size <= film.MAX_BYTES
    assert max(frames[0].shape) <= 400
    last = np.asarray(drawings.frame(env, episode, 500), np.float64)
    assert np.abs(last - frames[-1]).mean() < 1.5  # the end is there, in a few colours


def test_a_film_keeps_to_its_size(tmp_path, poles, monkeypatch):
    env, episode = poles
    monkeypatch.setattr(film, "MAX_BYTES", 60_000)
    path = tmp_path / "small.gif"
    num_frames = film.film(path, env, [episode])
    assert path.stat().st_size <= 60_000
    assert 2 < num_frames < 100


BOARD = np.zeros((2, 10, 10, 4), np.float32)
BOARD[0, 4, 4, 0] = BOARD[1, 4, 5, 0] = 1

CHANGES = {
    "CartPole-v1": ([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0, 0, 0.15, 0]], 0),
    "Pendulum-v1": ([[1.0, 0, 0], [0.0, 1, 0], [0.0, -1, 0]], np.float32(0)),
    "Breakout-MinAtar": (BOARD, 0),
    "Acrobot-v1": ([[1.0, 0, 1, 0, 0, 0], [0.0, 1, 1, 0, 2, 0]], 0),
    "Catch-bsuite": (BOARD[..., 0], 0),
    "FrozenLake-misc": ([0, 1, 5], 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_drawing_changes_with_what_is_observed(name):
    env = adapter.make(name)
    observations, action = CHANGES[name]
    episode = walk(env, observations, action)
    draw = drawings.drawing(env).draw
    # The same step of other episodes, so that nothing but the observation differs.
    alone = [
        Episode(episode.obs[[step, 0]], episode.action[:1], episode.reward[:1]) for step in range(len(episode.obs))
    ]
    seen = [draw(env, other, 0) for other in alone]
    assert len({picture.tobytes() for picture in seen}) == len(seen)
    assert all(max(picture.size) <= pens.WIDTH for picture in seen)


@pytest.mark.parametrize("world", [cliff, lambda: adapter.make(grid.four_by_three())])
def test_a_grid_world_shows_agent_and_trail(world):
    env = world()
    start = int(np.argmax(env.native.mdp().start))
    columns = env.native.shape[1]
    there, waited = walk(env, [start, start - columns, start]), walk(env, [start, start, start])
    went, stayed = (drawings.grid_world(env, episode, 2) for episode in (there, waited))
    assert drawings.grid_world(env, there, 1).tobytes() != drawings.grid_world(env, there, 0).tobytes()
    assert went.tobytes() != stayed.tobytes()  # the agent is where it was, but the way can be seen
    assert max(went.size) <= pens.WIDTH


def test_being_sent_back_leaves_no_trail():
    jump = drawings.grid_world(cliff(), walk(cliff(), [27, 36]), 1)
    stay = drawings.grid_world(cliff(), walk(cliff(), [36, 36]), 1)
    assert jump.tobytes() == stay.tobytes()


def test_the_action_to_come_is_drawn(poles):
    env, episode = poles
    left, right = (drawings.cart_pole(env, walk(env, episode.obs[:2], action), 0) for action in (0, 1))
    assert left.tobytes() != right.tobytes()
    pendulum = adapter.make("Pendulum-v1")
    obs = np.array([[1.0, 0, 0]] * 2)
    torques = [drawings.pendulum(pendulum, Episode(obs, np.array([[u]]), np.zeros(1)), 0) for u in (-2.0, 0.0, 1.0)]
    assert len({picture.tobytes() for picture in torques}) == 3


def test_pole_and_pendulum_lean_the_right_way():
    env = adapter.make("CartPole-v1")
    # Above the cart, where the pole alone is drawn.
    tilted = np.asarray(drawings.cart_pole(env, walk(env, [[0.0, 0, 0.2, 0]]), 0).convert("L"), np.float64)[:100]
    assert tilted[:, 192:].mean() < tilted[:, :192].mean()  # darker on the right
    pendulum = adapter.make("Pendulum-v1")
    raised = drawings.pendulum(pendulum, Episode(np.array([[0.0, 1, 0]]), np.zeros((0, 1)), np.zeros(0)), 0)
    raised = np.asarray(raised.convert("L"), np.float64)
    assert raised[:, :130].mean() < raised[:, 150:].mean()  # a quarter turn, against the clock


def test_masked_poles_are_drawn_as_whole_ones(poles):
    env, episode = poles
    masked = adapter.make(memory.masked_cartpole())
    for step in (0, 40, 500):
        seen = drawings.frame(masked, episode._replace(obs=episode.obs[:, [0, 2]]), step)
        assert seen.tobytes() == drawings.frame(env, episode, step).tobytes()


def test_of_stacked_frames_the_newest_is_drawn(poles):
    env, episode = poles
    stack = adapter.make(frames.FrameStack(env.native, 2))
    obs = np.concatenate([np.roll(episode.obs, 1, axis=0), episode.obs], axis=-1)
    seen, plain = (drawings.frame(*what, 40) for what in ((stack, episode._replace(obs=obs)), (env, episode)))
    assert seen.tobytes() == plain.tobytes()


def test_pong_shows_paddles_ball_and_move():
    env = adapter.make(frames.pong())

    def picture(ball, action, paddles=(15, 15), before=(10, 10)):
        obs = np.zeros((3, 30, 40, 2), np.float32)
        for column, centre in zip((0, 39), paddles, strict=True):
            obs[:, centre - 2 : centre + 3, column] = frames.PADDLE
        obs[0][before] = obs[1][ball] = frames.BALL
        seen = drawings.frame(env, Episode(obs, np.array([0, action]), np.zeros(2)), 1)
        assert max(seen.size) <= pens.WIDTH
        return np.asarray(seen)[drawings.HEADING :]

    seen = picture((5, 30), frames.STAY)
    rows, columns = np.nonzero((seen == pens.rgb(drawings.ORANGE)).all(-1))
    assert (rows.min() // 9, rows.max() // 9, columns.min() // 9, columns.max() // 9) == (5, 5, 30, 30)
    for colour, side in ((drawings.BLUE, 0), (drawings.RED, 39)):
        rows, columns = np.nonzero((seen == pens.rgb(colour)).all(-1))
        assert (set(rows // 9), set(columns // 9)) == ({13, 14, 15, 16, 17}, {side})
    others = [
        picture((5, 30), frames.UP),
        picture((5, 30), frames.DOWN),
        picture((5, 30), frames.STAY, paddles=(16, 15)),
        picture((5, 30), frames.STAY, before=(11, 10)),
    ]
    assert len({other.tobytes() for other in (seen, *others)}) == 5


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_particles_are_drawn_where_they_are(name):
    native = scenarios.SCENARIOS[name]()
    scenario, num = native.scenario, native.scenario.num_agents
    place = np.array(
        [*[[-0.8, 0.6], [0.7, 0.7], [0.4, -0.9], [-0.5, -0.4]][:num], [0.2, 0.1], [-0.2, -0.1]], np.float32
    )
    place = np.concatenate([place, np.zeros((scenario.num_landmarks - 2, 2), np.float32)])
    state = ParticlesState(time=jnp.int32(0), place=place, velocity=jnp.zeros((num, 2)), goal=jnp.int32(1))
    obs = tuple(np.stack([each] * 3) for each in scenario.observe(scenario, state))
    reward = np.arange(2.0 * num).reshape(2, num)
    picture = drawings.frame(adapter.make(native), Episode(obs, (), reward), 2)
    assert max(picture.size) <= pens.WIDTH + drawings.HEADING
    seen = np.asarray(picture)[drawings.HEADING :]

    def colour_at(x, y):
        half, unit = pens.WIDTH / 2, pens.WIDTH / (5.0 if scenario.has_goal else 3.2)
        return "#" + seen[round(half - y * unit), round(half + x * unit)].tobytes().hex()

    reds = 1 if name == "SimpleAdversary" else 3 if name == "SimpleTag" else 0
    colours = [drawings.RED] * reds + [drawings.BLUE] * (num - reds)
    landmarks = [drawings.WALL] * scenario.num_landmarks
    if scenario.has_goal:
        landmarks[1] = drawings.RIGHT
    assert [colour_at(*xy).lower() for xy in place] == [colour.lower() for colour in (*colours, *landmarks)]


def test_symbols_are_shown_with_the_verdict_on_an_answer():
    env = adapter.make(memory.repeat_previous(num_symbols=30, delay=2, max_steps=6))
    symbols = np.array([0, 1, 2, 29, 1])

    def colours(step, answer):
        episode = Episode(symbols, np.full(4, answer), np.zeros(4))
        seen = drawings.frame(env, episode, step)
        assert max(seen.size) <= pens.WIDTH
        return set(map(tuple, np.asarray(seen)[120:].reshape(-1, 3).tolist()))

    right, wrong, unasked = (tuple(pens.rgb(colour)) for colour in (drawings.RIGHT, drawings.RED, drawings.FAINT))
    assert right in colours(3, 1)
    assert wrong in colours(3, 0)  # drawn in blue itself
    assert right not in colours(3, 0)
    assert unasked in colours(1, 0)
    assert not {right, wrong, unasked} & colours(4, 0)  # nothing is answered any more


def test_the_heading_tells_step_and_return(poles):
    env, episode = poles
    other = episode._replace(obs=np.repeat(episode.obs[:1], 501, axis=0), action=np.zeros(500))
    rewards = np.array([1.0, 2.0, *np.zeros(498)])

    def halves(step, reward=rewards):
        head = np.asarray(drawings.frame(env, other._replace(reward=reward), step))[: drawings.HEADING]
        return [half.tobytes() for half in np.split(head, 2, axis=1)]

    assert len({halves(step)[0] for step in (0, 1, 2, 300)}) == 4
    assert len({halves(step)[1] for step in (0, 1, 2)}) == 3
    assert halves(2)[1] == halves(300)[1]  # nothing more was earned
    assert halves(2)[1] != halves(2, -rewards)[1]


def test_other_observations_are_drawn_too():
    env = adapter.make("FourRooms-misc")
    pictures = [np.random.default_rng(0).random(shape) for shape in ((2, 12, 7), (2, 9, 9, 3), (2, 8, 8, 6), (2, 300))]
    for obs in pictures:
        episode = Episode(obs, np.zeros(1), np.zeros(1))
        first, second = (drawings.observation(env, episode, step) for step in (0, 1))
        assert max(first.size) <= pens.WIDTH
        assert first.tobytes() != second.tobytes()
    tree = Episode({"a": np.eye(2), "b": np.full((2, 1), np.nan)}, np.zeros(1), np.zeros(1))
    assert drawings.observation(env, tree, 0).tobytes() != drawings.observation(env, tree, 1).tobytes()


def test_a_film_of_an_episode_without_end_stops(monkeypatch):
    monkeypatch.setattr(film, "MAX_STEPS", 100)
    (episode,) = film.record(jax.random.key(0), greedy, jnp.zeros((48, 4)), adapter.make(grid.CliffWalking()), 1)
    assert len(episode.reward) == 100


def test_a_bandit_has_no_film(tmp_path):
    row = dataclasses.replace(catalogue.find("q_learning/Cliff"), task=BanditTask(cliff))
    learned = film.Learned(row, jax.random.key(0), jnp.int32(4), None, row.hypers)
    with pytest.raises(UsageError, match="nothing to show"):
        film.show(learned, tmp_path / "play", label="")


def lane(name):
    """A lane of a row at a tiny size, before it has learned anything."""
    experiment = shrink(catalogue.find(name))
    algorithm = experiment.algorithm.build(experiment.task.spec, experiment.config)
    state = jax.jit(algorithm.init)(jax.random.key(0), experiment.hypers)
    return film.Learned(experiment, jax.random.key(1), jnp.int32(4), state, experiment.hypers)


def test_what_is_made_of_a_trained_lane(tmp_path):
    learned = lane("q_learning/Cliff")
    learned = learned._replace(state=learned.state._replace(q_values=jnp.asarray(safe_path())))
    paths = film.show(learned, tmp_path / "play", label="seed 0")
    assert [path.name for path in paths] == ["play.gif", "play-values.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert len(frames_of(paths[0])) == 14
    with pytest.raises(ValueError, match="episodes=0"):
        film.show(learned, tmp_path / "play", label="", num_episodes=0)


@pytest.fixture
def walker():
    """A lane that takes the safe path."""
    learned = lane("q_learning/Cliff")
    return learned._replace(state=learned.state._replace(q_values=jnp.asarray(safe_path())))


@pytest.mark.parametrize(
    ("name", "film_name"),
    [
        ("ppo-0.5", "ppo-0.5.gif"),
        ("a.GIF", "a.GIF"),
        ("a.png", "a.gif"),
        ("notes.txt", "notes.txt.gif"),
        ("v1.", "v1..gif"),
    ],
)
def test_a_name_keeps_its_dots(name, film_name, tmp_path, walker):
    (tmp_path / "notes.gif").write_bytes(b"another's")
    path, values = film.show(walker, tmp_path / name, label="")
    assert path.name == film_name and values.name == f"{path.stem}-values.png"
    assert {path.name for path in tmp_path.iterdir()} == {film_name, values.name, "notes.gif"}
    assert (tmp_path / "notes.gif").read_bytes() == b"another's"


@pytest.mark.parametrize("name", ["q_learning/Cliff", "vae/digits", "flow/moons"])
def test_a_folder_is_no_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo.d").mkdir()
    for out in (".", "", "..", "ppo.d"):
        with pytest.raises(UsageError, match=r"^out=.* is impossible: it is a folder, and a file is needed$"):
            film.show(lane(name), Path(out), label="")
    assert [path.name for path in tmp_path.iterdir()] == ["ppo.d"]


@pytest.mark.parametrize(
    ("name", "place", "function", "file"),
    [
        ("q_learning/Cliff", maps, "draw", "play-values.png"),
        ("vae/digits", sheets, "image_grid", "play.png"),
        ("flow/moons", planes, "way", "play.png"),
    ],
)
def test_what_is_replaced_is_whole_or_as_it_was(name, place, function, file, tmp_path, monkeypatch):
    path = tmp_path / file
    path.write_bytes(b"whole")

    def draw(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, function, draw)
    with pytest.raises(UsageError, match=f"{file} could not be written: No space left"):
        film.show(lane(name), tmp_path / "play", label="")
    assert path.read_bytes() == b"whole" and not list(tmp_path.glob("*partial*"))


def test_a_film_is_whole_or_as_it_was(tmp_path, monkeypatch, walker):
    path, write = tmp_path / "play.gif", Path.write_bytes
    path.write_bytes(b"whole")

    def stop(path, content):
        write(path, content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(UsageError, match=r"play\.gif could not be written"):
        film.show(walker, tmp_path / "play", label="")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


REBUILT = ("held out", "rebuilt") * walks.NUM_ROWS
# Of each model, the sheets and what stands beside their rows.
SHEETS = {
    "vae/digits": {"play.png": (), "play-reconstructions.png": REBUILT, "play-walk.png": ()},
    "flow/digits": {"play.png": (), "play-reconstructions.png": REBUILT, "play-walk.png": ()},
    "gan/digits": {"play.png": (), "play-walk.png": ()},
    "autoencoder/digits-denoising": {
        "play.png": ("clean", "damaged", "restored") * 2,
        "play-weights.png": (),
        "play-walk.png": (),
    },
}


@pytest.mark.parametrize("name", SHEETS)
def test_sheets_of_a_model_of_images(name, tmp_path, figures):
    learned = lane(name)
    paths = film.show(learned, tmp_path / "play", label="seed 0")
    assert [path.name for path in paths] == [*SHEETS[name]]
    assert all(path.stat().st_size > 1000 for path in paths)
    titles = {figure.texts[0].get_text() for figure in figures}
    assert titles == {f"{learned.experiment.name}, seed 0"}
    headings = [tuple(text.get_text() for text in figure.texts[1:]) for figure in figures]
    assert headings == [*SHEETS[name].values()]


def test_samples_are_not_one_image_many_times():
    samples = walks.samples(lane("vae/digits"), jax.random.key(0))
    assert samples.shape == (walks.NUM_IMAGES, 8, 8, 1)
    assert np.ptp(samples.mean(axis=(1, 2, 3))) > 0


def test_what_is_restored_was_damaged_and_what_is_only_given_was_not():
    learned, plain = lane("autoencoder/digits-denoising"), lane("generative/autoencoder/digits")
    images = walks.held_out(learned.experiment, 5)
    stages = walks.restored(learned._replace(hypers=learned.hypers._replace(corruption_level=1.0)), learned.key, images)
    assert [*stages] == ["clean", "damaged", "restored"]
    np.testing.assert_array_equal(stages["clean"], images)
    assert not stages["damaged"].any()
    assert (stages["restored"] == stages["restored"][:1]).all()  # made of the damaged ones, which are all alike
    stages = walks.restored(plain, learned.key, images)
    assert [*stages] == ["given", "made of it"]
    assert stages["made of it"].shape == images.shape


def test_a_walk_goes_from_one_reconstruction_to_the_other():
    learned = lane("vae/digits")
    images = walks.held_out(learned.experiment, 6)
    rebuilt, stations = walks.walk(learned, learned.key, images[:3], images[3:])
    assert stations.shape == (3, walks.NUM_STATIONS, 8, 8, 1)
    np.testing.assert_allclose(stations[:, 0], rebuilt, rtol=1e-5)
    steps = np.abs(np.diff(stations, axis=1)).max(axis=(2, 3, 4))
    assert (steps > 0).all()
    assert (steps < 2 * steps.mean(axis=1, keepdims=True)).all()  # no station is left out
    still, way = walks.walk(learned, learned.key, images[:3], images[:3])
    assert still.shape == (3, 8, 8, 1)
    assert np.isfinite(way).all()


def test_a_classifier_has_no_sheet(tmp_path):
    with pytest.raises(UsageError, match="no image"):
        film.show(lane("classifier/digits"), tmp_path / "play", label="")


def test_points_of_a_flow_go_to_latents_and_back(tmp_path):
    learned = lane("flow/moons")
    stations = film.points(learned, learned.experiment.task, 50)
    assert [*stations] == ["data", "to latents", "and back", "samples"]
    assert all(points.shape == (50, 2) for points in stations.values())
    np.testing.assert_allclose(stations["and back"], stations["data"], atol=1e-4)
    assert np.abs(stations["to latents"] - stations["data"]).max() > 0.1
    assert [path.name for path in film.show(learned, tmp_path / "play", label="seed 0")] == ["play.png"]
