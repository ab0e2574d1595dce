"""Reports: reading run folders, the table, the pictures, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from rlgen.lab import finished, plots, report, statistics
from rlgen.lab.folders import FolderError

NUM_SEEDS, NUM_WINDOWS = 6, 5
SOURCE = "reward threshold of Gymnasium"
PICTURES = ("comparison", "profile")


def make_run(folder, *, experiment="value/dqn/CartPole-v1", level=470.0, grid=(0.001,), loss=False, **changes):
    """Writes a run folder whose scores are known: `level` and up by one a seed, minus ten a grid point."""
    folder.mkdir(parents=True)
    scores = level - 10.0 * np.arange(len(grid))[:, None] + np.arange(NUM_SEEDS)
    ramp = np.linspace(0.5, 1.0, NUM_WINDOWS)
    curve = scores[..., None] * ramp
    curve[:, :, 0] = np.nan
    points = [
        {
            "hypers": {"learning_rate": rate, "discount": 0.99},
            "iqm": statistics.iqm(row, higher_is_better=not loss),
            "ci95": list(statistics.interval(row, higher_is_better=not loss)),
            "per_seed": row.tolist(),
            "diverged_seeds": [],
        }
        for rate, row in zip(grid, scores, strict=True)
    ]
    summary = dict.fromkeys(finished.SUMMARY_KEYS) | {
        "experiment": experiment,
        "changed": [],
        "seeds": NUM_SEEDS,
        "env_steps": 500_000,
        "steps_per_second": 123_456.7,
        "metric": "minus_elbo" if loss else "episode_return",
        "points": points,
        "target": {"value": 475.0, "direction": "min" if loss else "max", "source": SOURCE},
    }
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    steps = np.arange(1, NUM_WINDOWS + 1)
    np.savez(folder / "metrics.npz", update=steps * 10, env_steps=steps * 100_000, curve=curve)
    return folder


def resaved(**arrays):
    """Makes a function that saves other arrays in place of those in a file."""

    def save(path):
        with np.load(path) as old:
            arrays_there = dict(old)
        np.savez(path, **(arrays_there | arrays))

    return save


def edit(folder, change):
    """Changes the summary of a run folder."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    return folder


def write(folders, out):
    return report.write([finished.load(folder) for folder in folders], out)


def table(text):
    """Takes the cells of the table's rows out of a report."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_load_gives_what_was_written(tmp_path):
    folder = make_run(tmp_path / "run", grid=(0.1, 0.2))
    edit(folder, lambda summary: summary["points"][1].update(per_seed=[None] * NUM_SEEDS, iqm=None, ci95=[None, None]))
    run = finished.load(folder)
    assert run.path == folder and run.task == "CartPole-v1" and run.summary["seeds"] == NUM_SEEDS
    np.testing.assert_array_equal(run.points[0].scores, 470.0 + np.arange(6))
    assert np.isnan(run.points[1].scores).all() and np.isnan(run.points[1].iqm)
    assert run.points[0].interval == statistics.interval(run.points[0].scores)
    assert run.curve.shape == (2, NUM_SEEDS, NUM_WINDOWS)
    np.testing.assert_array_equal(run.env_steps, 100_000 * np.arange(1, 6))


def test_an_unlimited_hyperparameter_is_named_as_it_was_given(tmp_path):
    run = finished.load(make_run(tmp_path / "run", grid=(0.5, None)))
    assert [row[2] for row in table(report.markdown([run]))] == ["learning_rate=0.5", "learning_rate=inf"]


def test_markdown_has_a_row_for_each_point(tmp_path):
    dqn = finished.load(make_run(tmp_path / "a", level=468.0))
    ppo = finished.load(make_run(tmp_path / "b", experiment="policy/ppo/CartPole-v1", level=490.0, grid=(0.1, 0.2)))
    text = report.markdown([dqn, ppo])
    first, second, third = table(text)
    low, high = dqn.points[0].interval
    target = f"≥ 475 ({SOURCE})"
    assert first == [
        "a",
        "value/dqn/CartPole-v1",
        "—",
        "6",
        "500,000",
        f"470.5 [{low:.5g}, {high:.5g}]",
        target,
        "no",
        "123,457",
        "—",
    ]
    # Only what varies within an experiment is named; the shared discount is not.
    assert second[2] == "learning_rate=0.1" and third[2] == "learning_rate=0.2"
    assert second[7] == "yes" and third[7] == "yes"
    assert "# Report on 2 runs" in text
    # 468 … 473 against 490 … 495: the second always wins.
    names = "value/dqn/CartPole-v1 does better than one of policy/ppo/CartPole-v1 at their best grid points"
    assert f"{names}: **0.00 [0.00, 0.00]**" in text


def test_runs_of_one_experiment_are_named_by_folder_and_differences(tmp_path):
    runs = [finished.load(make_run(tmp_path / name, grid=(rate,))) for name, rate in (("a", 0.1), ("b", 0.2))]
    text = report.markdown(runs)
    assert [row[:3] for row in table(text)] == [
        ["a", "value/dqn/CartPole-v1", "learning_rate=0.1"],
        ["b", "value/dqn/CartPole-v1", "learning_rate=0.2"],
    ]
    # Equal scores.
    assert "seed of a does better than one of b: **0.50 [" in text


def test_losses_are_better_when_lower(tmp_path):
    low = finished.load(make_run(tmp_path / "low", experiment="generative/vae/mnist", level=100.0, loss=True))
    high = finished.load(
        make_run(tmp_path / "high", experiment="generative/vae/mnist-convolutional", level=480.0, loss=True)
    )
    text = report.markdown([low, high])
    assert "**1.00 [1.00, 1.00]**" in text
    assert [row[6:8] for row in table(text)] == [[f"≤ 475 ({SOURCE})", "yes"], [f"≤ 475 ({SOURCE})", "no"]]


def test_diverged_seeds_are_counted_and_undefined_numbers_dashed(tmp_path):
    folder = make_run(tmp_path / "run", target=None, steps_per_second=None)
    scores = {"per_seed": [470.0] * 4 + [None] * 2, "ci95": [None, 470.0], "diverged_seeds": [5]}
    edit(folder, lambda summary: summary["points"][0].update(scores))
    (row,) = table(report.markdown([finished.load(folder)]))
    assert row[5].endswith("[—, 470], 1 diverged, 1 without a score") and row[6:] == ["—", "—", "—", "—"]


def test_what_is_not_the_catalogues_is_said(tmp_path):
    folder = make_run(tmp_path / "run", changed=["4 of 16 seeds", "config.double=true"])
    (row,) = table(report.markdown([finished.load(folder)]))
    assert row[-1] == "4 of 16 seeds, config.double=true"


def test_runs_of_one_task_are_compared_whatever_their_variant(tmp_path):
    names = ("value/dqn/CartPole-v1-n-step", "value/dqn/CartPole-v1-noisy")
    path = write([make_run(tmp_path / name[-3:], experiment=name) for name in names], tmp_path / "out")
    text = path.read_text()
    assert "Probability that a seed" in text and "Performance profiles of CartPole-v1]" in text
    assert sorted(picture.name for picture in path.parent.glob("*.png")) == ["comparison.png", "profile.png"]
    landers = [make_run(tmp_path / name, experiment=f"{name}/LunarLander") for name in ("policy/ppo", "value/dqn")]
    assert "measure different things" not in report.markdown([finished.load(folder) for folder in landers])
    walks = ("tabular/dynamic_programming/FourByThree", "tabular/dynamic_programming/FourByThree-deterministic")
    others = [make_run(tmp_path / name, experiment=name) for name in walks]
    assert "measure different things" in report.markdown([finished.load(folder) for folder in others])


def test_runs_of_different_tasks_are_not_compared(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", experiment="policy/ppo/Pendulum-v1")]
    path = write(folders, tmp_path / "out")
    assert "measure different things" in path.read_text()
    pictures = ["comparison-2.png", "comparison.png", "profile-2.png", "profile.png"]
    assert sorted(picture.name for picture in path.parent.glob("*.png")) == pictures


def test_write_compares_the_best_points(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots, "comparison", lambda path, *what, **labels: (path.touch(), drawn.append((*what, labels)))
    )
    monkeypatch.setattr(plots, "profile", lambda path, *args, **kwargs: path.touch())
    folders = [
        make_run(tmp_path / "a", level=100.0, grid=(0.1, 0.2), loss=True, experiment="generative/vae/mnist"),
        make_run(tmp_path / "b", level=50.0, loss=True, experiment="generative/vae/mnist-convolutional"),
    ]
    edit(folders[1], lambda summary: summary["points"][0]["per_seed"].__setitem__(0, None))
    edit(folders[1], lambda summary: summary["points"][0]["diverged_seeds"].append(0))
    curve = finished.load(folders[1]).curve
    curve[0, 0, 3:] = np.nan
    resaved(curve=curve)(folders[1] / "metrics.npz")
    path = write(folders, tmp_path / "new" / "out")
    assert path == tmp_path / "new" / "out" / "report.md"
    assert "![Learning curves and final scores of mnist](comparison.png)" in path.read_text()
    ((vae, other), labels), *others = drawn
    assert not others and sorted(path.parent.glob("*.png")) == [path.parent / f"{name}.png" for name in PICTURES]
    # The lower loss is at the second point of the grid.
    assert vae.label == "generative/vae/mnist learning_rate=0.2" and other.label == "generative/vae/mnist-convolutional"
    np.testing.assert_array_equal(vae.scores, 90.0 + np.arange(6))
    # In units of the loss; nan before the first value stays, that of a divergence becomes the worst.
    np.testing.assert_allclose(np.asarray(vae.curves)[0], [np.nan, 90 * 0.625, 90 * 0.75, 90 * 0.875, 90.0])
    np.testing.assert_allclose(np.asarray(other.curves)[0], [np.nan, 50 * 0.625, 50 * 0.75, np.inf, np.inf])
    assert labels["xlabel"] == "environment steps" and labels["ylabel"] == "minus elbo"
    assert labels["target"] == (475.0, SOURCE) and not labels["higher_is_better"]
    # Alone, all points of a run are drawn.
    write(folders[:1], tmp_path / "alone")
    assert [line.label for line in drawn[-1][0]] == ["learning_rate=0.1", "learning_rate=0.2"]


def test_runs_without_environment_steps_are_drawn_by_update(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots, "comparison", lambda path, *what, **labels: (path.touch(), drawn.append((*what, labels)))
    )
    folder = make_run(tmp_path / "run")
    resaved(env_steps=np.zeros(NUM_WINDOWS, int))(folder / "metrics.npz")
    write([folder], tmp_path / "out")
    ((lines, labels),) = drawn
    assert labels["xlabel"] == "updates"
    np.testing.assert_array_equal(lines[0].x, [10, 20, 30, 40, 50])


def test_write_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="needs a run"):
        report.write([], tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing: not a run folder"),
        ("{", "is damaged: Expecting"),
        ("[]", "is damaged: lacks experiment"),
        (lambda summary: summary.pop("target"), "is damaged: lacks target"),
        (lambda summary: summary.update(target={"value": 1.0}), "target lacks direction, source"),
        (lambda summary: summary.update(points=[]), "points is no list, or empty"),
        (lambda summary: summary["points"][0].pop("ci95"), r"points\[0\] lacks ci95"),
        (lambda summary: summary["points"][0]["per_seed"].pop(), "has 5 scores for 6 seeds"),
        (lambda summary: summary["points"][0].update(ci95=[1.0]), "a point holds what is no number"),
        (lambda summary: summary["points"][0].update(iqm="good"), "a point holds what is no number"),
        (lambda summary: summary["points"][0].update(iqm="1"), "a point holds what is no number"),
        (lambda summary: summary["points"][0].update(iqm=10**400), "a point holds what is no number"),
        (lambda summary: summary["points"][0].update(per_seed="123456"), r"points\[0\].per_seed is .* not a list"),
        (lambda summary: summary["points"][0].update(hypers=[]), r"points\[0\].hypers is \[\], and not an object"),
        (lambda summary: summary.update(env_steps="x"), 'env_steps is "x", and not a whole number'),
        (lambda summary: summary.update(experiment=5), "experiment is 5, and not a text"),
        (lambda summary: summary.update(metric=None), "metric is null, and not a text"),
        (lambda summary: summary.update(seeds=True), "seeds is true, and not a whole number of at least 1"),
        (lambda summary: summary.update(steps_per_second={}), "steps_per_second is {}, and not a number"),
        (lambda summary: summary["target"].update(value=None), "target.value is null, and not a number"),
        (lambda summary: summary["target"].update(value=10**400), "target.value is 10+, and not a number"),
        (lambda summary: summary["target"].update(direction=1), "target.direction is 1, and not max or min"),
        (lambda summary: summary["target"].update(source=[]), r"target.source is \[\], and not a text"),
        pytest.param("[" * 100_000, "is damaged: ", id="nested"),
    ],
)
def test_damaged_summaries_are_refused_by_name(tmp_path, content, message):
    folder = make_run(tmp_path / "run")
    path = folder / "summary.json"
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        edit(folder, content)
    with pytest.raises(finished.RunError, match=rf"run/summary\.json .*{message}"):
        finished.load(folder)


def short(path):
    """Cuts a file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bare(path):
    """Puts a single array where a file of named ones should be."""
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def flipped(path):
    """Flips the bytes in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = slice(len(content) * 3 // 5, len(content) * 3 // 5 + 8)
    content[middle] = bytes(byte ^ 255 for byte in content[middle])
    path.write_bytes(content)


def said(byte, offset):
    """Says otherwise in the entry of each array in a zip's list of contents: 8 are its flags, 10 its compression."""

    def damage(path):
        content = bytearray(path.read_bytes())
        start = -1
        while (start := content.find(b"PK\1\2", start + 1)) >= 0:
            content[start + offset] = byte
        path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (said(1, 8), "is damaged: .* is encrypted"),  # a RuntimeError of zipfile's
        (said(99, 10), "is damaged: .* compression method"),  # a NotImplementedError
        (resaved(update=np.int64(3), env_steps=np.int64(3)), r"does not fit summary\.json: update \[\]"),
        (resaved(curve=np.zeros((1, 6, 5), complex)), "is damaged: .* are not all numbers"),
        (short, "is damaged"),
        (flipped, "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "is damaged"),
        (bare, "is damaged"),
        (lambda path: np.savez(path, update=np.arange(3)), "is incomplete: .*env_steps"),
        (resaved(curve=np.array([{}])), "is damaged: Object arrays"),
        (resaved(curve=np.full((1, 6, 5), "x")), "is damaged: .* are not all numbers"),
        (resaved(curve=np.zeros((1, 5, 5))), r"does not fit summary\.json: .*curve \[1, 5, 5\], .* be \[1, 6, 5\]"),
        (resaved(env_steps=np.zeros(4)), r"does not fit summary\.json: .*env_steps \[4\]"),
    ],
)
def test_damaged_metrics_are_refused_by_name(tmp_path, damage, message):
    folder = make_run(tmp_path / "run")
    damage(folder / "metrics.npz")
    with pytest.raises(finished.RunError, match=rf"run/metrics\.npz {message}"):
        finished.load(folder)


def test_of_a_large_grid_the_best_points_are_listed_and_drawn(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "comparison", lambda path, lines, **rest: (path.touch(), drawn.update(rest, lines=lines))
    )
    rates = tuple(float(index) for index in range(1, 61))
    large = make_run(tmp_path / "large", grid=rates)
    edit(large, lambda summary: summary["points"].reverse())  # the best comes last
    run = finished.load(large)
    text = report.markdown([run])
    rows = table(text)
    assert [row[2] for row in rows] == [f"learning_rate={rate:g}" for rate in rates[: report.MAX_ROWS]]
    assert "Of the 60 grid points of value/dqn/CartPole-v1 the best 50 are listed." in text
    write([large], tmp_path)
    assert [line.label for line in drawn["lines"]] == [f"learning_rate={rate:g}" for rate in rates[:8]]
    assert drawn["title"].startswith("value/dqn/CartPole-v1, the best 8 of 60 grid points: ")
    small = make_run(tmp_path / "small", experiment="policy/ppo/CartPole-v1")
    write([large, small], tmp_path)
    assert [len(line.scores) for line in drawn["lines"]] == [6, 6]


def test_neighbours_of_a_grid_are_told_apart(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "profile", lambda path, scores, **rest: (path.touch(), drawn.extend(scores)))
    folder = make_run(tmp_path / "run", grid=(0.001, 0.0010000002))
    path = write([folder], tmp_path / "out")
    names = ["learning_rate=0.001", "learning_rate=0.0010000002"]
    assert drawn == names and [row[2] for row in table(path.read_text())] == names


@pytest.mark.parametrize("failing", PICTURES)
def test_what_a_report_replaces_is_whole_or_as_it_was(tmp_path, monkeypatch, failing):
    folder, out = make_run(tmp_path / "run"), tmp_path / "out"
    write([folder], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def draw(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, failing, draw)
    with pytest.raises(FolderError, match=rf"{failing}\.png could not be written: No space left"):
        write([folder], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_table_is_whole_or_as_it_was(tmp_path, monkeypatch):
    folder, out = make_run(tmp_path / "run"), tmp_path / "out"
    before = write([folder], out).read_bytes()
    write_text = Path.write_text

    def stop(path, text, **how):
        write_text(path, text[:9], **how)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", stop)
    with pytest.raises(FolderError, match=r"report\.md could not be written"):
        write([folder], out)
    assert (out / "report.md").read_bytes() == before
