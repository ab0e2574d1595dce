"""What the benchmarks count, and the page that is made from the results that are kept."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    ablation,
    cliffwalk,
    comparisons,
    compiling,
    digits,
    figures,
    films,
    judges,
    lander,
    learners,
    learning,
    limits,
    measure,
    memory,
    optimum,
    overestimation,
    planning,
    replay,
    scale,
    sheets,
    speed,
    tables,
    walks,
)
from benchmarks.peers import timing
from rlgen import evaluate
from rlgen.experiments import catalogue
from rlgen.experiments import judges as kept_judges
from rlgen.experiments.pictures import Data
from rlgen.lab import lanes
from rlgen.lab import walks as lab_walks
from rlgen.lab.drawings import Episode
from rlgen.lab.errors import UsageError


def test_rows_have_names_of_their_own_and_experiments_of_the_catalogue():
    names = [row.name for row in comparisons.ROWS]
    assert len(set(names)) == len(names)
    assert all(row.experiment in catalogue.EXPERIMENTS for row in comparisons.ROWS)


def test_the_page_is_made_of_the_results_that_are_kept():
    for part in (tables.learning, tables.speed, tables.limits, tables.memory, tables.compilation, tables.lander):
        text = part()
        assert "\n| --- |" in text and "nan" not in text


def test_values_are_interpolated_round_the_circle_of_angles():
    angles, speeds = np.linspace(-np.pi, np.pi, 5), np.linspace(-8, 8, 3)
    values = jnp.array(np.abs(angles)[:, None] + 10 * speeds)
    angle, speed = jnp.array([0.5, 3 * np.pi / 2, -np.pi - 0.5, 7.0]), jnp.array([1.0, -8.0, 8.0, 0.0])
    wanted = [10.5, np.pi / 2 - 80, np.pi - 0.5 + 80, 7 - 2 * np.pi]
    np.testing.assert_allclose(optimum.interpolate(values, angle, speed), wanted, rtol=1e-4)


def test_a_film_is_drawn_again_from_the_episodes_that_are_kept(tmp_path, monkeypatch):
    for module, name in ((films, "KEPT"), (figures, "FIGURES")):
        monkeypatch.setattr(module, name, tmp_path)
    played = [Episode(np.arange(4.0 * num + 4).reshape(-1, 4), np.ones(num, int), np.ones(num)) for num in (5, 2)]
    films.keep("policy/ppo/CartPole-v1", played)
    (path,) = films.draw()
    assert films.titles() == {path.stem: "policy/ppo/CartPole-v1"}
    with Image.open(path) as picture:
        assert picture.n_frames == 6 + 3


def test_sheets_are_drawn_again_from_what_is_kept(tmp_path, monkeypatch):
    for module, name in ((sheets, "KEPT"), (figures, "FIGURES")):
        monkeypatch.setattr(module, name, tmp_path)
    rng = np.random.default_rng(0)
    coloured = lab_walks.Sheet(rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), 3, ("one", "two"))
    grey = lab_walks.Sheet(np.repeat(rng.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8), 3, axis=-1))
    kept = sheets.keep("generative/vae/digits", {"": grey, "walk": coloured})
    with np.load(kept) as arrays:
        assert (arrays["images_"].shape, arrays["images_walk"].shape) == ((4, 8, 8, 1), (6, 8, 8, 3))
    drawn = []
    monkeypatch.setattr(lab_walks.Sheet, "draw", lambda self, path, title: drawn.append((self, path, title)))
    first, second = sheets.draw()
    assert [path.name for path in (first, second)] == [f"{kept.stem}-made.png", f"{kept.stem}-made-walk.png"]
    for sheet, (again, path, title) in zip((grey, coloured), drawn, strict=True):
        np.testing.assert_array_equal(again.images, sheet.images)
        assert (again.num_columns, again.headings) == (sheet.num_columns, sheet.headings)
        assert (title, path.parent) == ("generative/vae/digits", tmp_path)
    assert sheets.titles() == {
        first.stem: "generative/vae/digits: what it makes",
        second.stem: "generative/vae/digits: walk",
    }
    kept.unlink()
    points = {"data": np.zeros((5, 2)), "to latents": np.ones((5, 2))}
    sheets.keep_points("generative/flow/moons", points)
    (path,) = sheets.draw()
    assert path.stat().st_size > 1000 and sheets.titles() == {path.stem: "generative/flow/moons: points on their way"}


WITH_PATTERN = {
    "learning": lambda only: learning.run(only, None, None),
    "speed": lambda only: speed.run(Path(), None, 1, only),
    "scale": scale.run,
    "limits": limits.run,
    "memory": memory.run,
    "compile": lambda only: compiling.run(only, 1),
    "judges": judges.run,
    "ablation": lambda only: ablation.run(1, only),
}


@pytest.mark.parametrize("command", WITH_PATTERN)
def test_a_pattern_that_matches_nothing_is_refused(command, monkeypatch):
    for name in ("call", "save"):
        monkeypatch.setattr(measure, name, pytest.fail)
    with pytest.raises(UsageError, match=r"^only=\*?typo\*? matches none of \d+ names, such as \w"):
        WITH_PATTERN[command]("typo")


def test_rows_whose_checkouts_are_absent_alone_are_refused(tmp_path, monkeypatch):
    name = next(row.name for row in comparisons.ROWS if row.peer == "purejaxrl")
    for checkouts in (None, tmp_path):
        with pytest.raises(UsageError, match="needs the checkout of purejaxrl: name its folder with --checkouts"):
            speed.run(tmp_path, checkouts, 1, name)
    python = tmp_path / "purejaxrl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"^{re.escape(str(python))} is absent: `scripts/peers purejaxrl` makes it$"):
        speed.run(tmp_path, tmp_path, 1, name)
    python.touch()
    monkeypatch.setattr(measure, "alternate", lambda sides, repeats: (_ for _ in ()).throw(KeyboardInterrupt(sides)))
    with pytest.raises(KeyboardInterrupt) as reached:
        speed.run(tmp_path, tmp_path, 1, name)
    assert str((tmp_path / "purejaxrl").resolve()) in reached.value.args[0]["purejaxrl"][0]


def test_rows_are_chosen_by_their_peer_too(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "summarise", lambda runs: {"steps_per_second": 1.0})
    monkeypatch.setattr(measure, "alternate", lambda sides, repeats: asked.append(list(sides)) or dict.fromkeys(sides))
    monkeypatch.setattr(measure, "save", lambda kind, name, content: Path(name))
    python = tmp_path / "nflows" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    speed.run(tmp_path, None, 1, "*", "nflows")
    assert asked == [["rlgen", "nflows"]] * sum(row.peer == "nflows" for row in comparisons.ROWS)
    with pytest.raises(UsageError, match=r"^peer=nflow matches none of \d+ names, such as nflows"):
        speed.run(tmp_path, None, 1, "*", "nflow")
    with pytest.raises(UsageError, match="beside peer=nflows"):
        speed.run(tmp_path, None, 1, "rejax*", "nflows")


def test_a_timing_says_what_ran_it():
    tell = "import sys, json, gymnax, jax; sys.modules['wandb'] = sys.modules['brax'] = 1"
    say = "from benchmarks.peers import timing; print(json.dumps([timing.versions(), timing.device()]))"
    said = subprocess.run([sys.executable, "-c", f"{tell}; {say}"], capture_output=True, text=True, check=True)
    versions, device = json.loads(said.stdout.splitlines()[-1])
    assert {"jax", "jaxlib", "gymnax", "flax", "numpy"} <= set(versions)
    assert not {"torch", "brax", "rlax"} & set(versions)
    assert versions["jax"] == jax.__version__
    assert re.fullmatch(r"\d+ × \w.*", device)
    summary = measure.summarise([{"steps_per_second": 1.0, "versions": versions, "device": device}] * 2)
    assert (summary["versions"], summary["device"]) == (versions, device)


def test_every_repeat_has_a_seed_of_its_own_which_all_sides_share():
    tell = "import json; from benchmarks.peers import timing; s = timing.seed()"
    says = f"{tell}; print(json.dumps(dict(steps_per_second=10.0 * s, final_returns=[s])))"
    side = [sys.executable, "-c", says], {}
    said = measure.alternate({"left": side, "right": side}, 3)
    assert said["left"] == said["right"]
    summary = measure.summarise(said["left"])
    assert summary == {"steps_per_second": 10.0, "repeats": 3, "range": [0.0, 20.0], "final_returns": [0, 1, 2]}
    assert timing.seed() == 0


def test_no_seeds_no_repeats_and_no_episodes_are_refused():
    name = "tabular/q_learning/CliffWalking"
    for count, start in (
        ("seeds", lambda: learning.run(name, None, 0)),
        ("seeds", lambda: replay.run(0, 1)),
        ("seeds", lambda: overestimation.run(0)),
        ("seeds", lambda: digits.run(Path(), 0, None)),
        ("images", lambda: digits.run(Path(), 1, 0)),
        ("seeds", lambda: cliffwalk.run(0, 2)),
        ("most", lambda: cliffwalk.run(1, 0)),
        ("repeats", lambda: compiling.run(name, 0)),
        ("repeats", lambda: replay.run(1, 0)),
        ("repeats", lambda: planning.run(0)),
        ("repeats", lambda: learners.run(Path(), 0)),
        ("repeats", lambda: walks.run(0)),
        ("episodes", lambda: lander.run(0)),
        ("episodes", lambda: lander.transfer(Path(), 0)),
        ("episodes", lambda: films.run(Path(), 0)),
    ):
        with pytest.raises(UsageError, match=f"^{count}=0 is impossible: at least 1 is needed$"):
            start()
    with pytest.raises(UsageError, match=r"^seeds=-1 is"):
        ablation.run(-1, "")
    with pytest.raises(UsageError, match=r"^repeats=0 is"):
        speed.run(Path(), None, 0, "*")


def test_learning_runs_what_matches_with_as_many_seeds_as_were_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(learning.subprocess, "run", lambda command, check: asked.append(command))
    monkeypatch.setattr(measure, "machine", dict)
    monkeypatch.setattr(learning, "thin", lambda folder: {"summary": {"points": [{"iqm": 1.0}]}})
    monkeypatch.setattr(measure, "save", lambda *what: tmp_path)
    for seeds in (None, 1):
        learning.run("tabular/q_learning/Cliff*", tmp_path, seeds)
    own = catalogue.EXPERIMENTS["tabular/q_learning/CliffWalking"].seeds
    said = {command[2]: [] for command in asked}
    for command in asked:
        said[command[2]].append(command[command.index("--seeds") + 1])
    assert said["tabular/q_learning/CliffWalking"] == [str(own), "1"]
    assert all(name.startswith("tabular/q_learning/Cliff") for name in said)


def test_digits_of_a_peer_are_judged_beside_those_that_it_learned_from(tmp_path, monkeypatch):
    images = np.asarray(jax.random.bits(jax.random.key(0), (2, 20, 28, 28, 1), "uint8"))
    data = Data(255 - images[0], images[0], kept_judges.random_params("mnist"))
    python = tmp_path / "vae" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()

    def call(command, environment):
        options = json.loads(command[-1])
        assert (options["steps"], command[0]) == (64, str(python))
        seed = int(environment[timing.SEED])
        np.save(options["out"], images[seed])  # the held-out digits themselves, then others
        return {"steps_per_second": 1.0 + seed, "final_returns": [0.5]}

    monkeypatch.setattr(lanes, "load_data", lambda row: data)
    monkeypatch.setattr(measure, "call", call)
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    digits.run(tmp_path, 2, 64)
    kept = json.loads((tmp_path / "digits" / "dcgan.json").read_text())
    same, other = kept["distances"]
    assert abs(same) < 1e-3 < 10 * abs(same) + 1e-2 < min(other, kept["training_digits"])
    assert kept["peer"]["steps_per_second"] == 1.5
    page = tables.digits()
    assert f"{other:.4g}" in page
    assert f"{kept['training_digits']:.4g}" in page


def test_the_environment_of_a_peer_that_is_absent_is_named(tmp_path):
    with pytest.raises(UsageError, match="`scripts/peers vae` makes it"):
        digits.run(tmp_path, 1, None)


def test_steps_after_the_end_of_an_episode_are_no_speed(monkeypatch):
    clock = itertools.count(0.0, 2.0)
    monkeypatch.setattr(lander.time, "perf_counter", lambda: next(clock))
    played = evaluate.Episodes(jnp.zeros(4), jnp.array([10, 20, 30, 1_000]))
    monkeypatch.setattr(lander.evaluate, "episodes", lambda key, policy, env, num: played)
    _, lengths, speed = lander._ours(4, continuous=False)
    assert speed == lengths.sum() / 2.0
