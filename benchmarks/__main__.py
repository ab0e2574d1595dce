"""Command line of the benchmarks."""

import sys
from pathlib import Path

import tyro

from benchmarks import (
    ablation,
    cliffwalk,
    compiling,
    digits,
    figures,
    films,
    judges,
    lander,
    learners,
    learning,
    limits,
    memory,
    optimum,
    overestimation,
    planning,
    replay,
    scale,
    sheets,
    speed,
    tables,
    variance,
    walks,
)
from rlgen.lab.errors import UsageError

app = tyro.extras.SubcommandApp()


@app.command(name="learning")
def _learning(only: str = "*", out: Path | None = None, seeds: int | None = None) -> None:
    """Run experiments of the catalogue at their full budget and keep their summaries.

    Args:
        only: pattern of experiment names.
        out: folder for the run folders; a temporary one if left out.
        seeds: how many; those of each row if left out.
    """
    learning.run(only, out, seeds)


@app.command(name="speed")
def _speed(
    peers: Path = Path(".peers"), checkouts: Path | None = None, repeats: int = 3, only: str = "*", peer: str = "*"
) -> None:
    """Time rlgen beside its peers, in turn.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        checkouts: folder of purejaxrl, purejaxql, stoix, cleanrl and jaxmarl, which are on no registry or not as a
            whole, each checked out under that name; rows of absent ones are left out.
        repeats: alternating runs of each side.
        only: pattern of row names.
        peer: pattern of the names of peers.
    """
    speed.run(peers, checkouts, repeats, only, peer)


@app.command(name="scale")
def _scale(only: str = "*", counts: tuple[int, ...] = ()) -> None:
    """Measure how speed, compilation and memory grow with seeds and environments.

    Args:
        only: pattern of experiment names.
        counts: how many seeds or environments; those of each curve if left out.
    """
    scale.run(only, counts)


@app.command(name="limits")
def _limits(only: str = "*") -> None:
    """Measure how close the rows of the speed table come to what the machine allows.

    Args:
        only: pattern of row names.
    """
    limits.run(only)


@app.command(name="memory")
def _memory(only: str = "*") -> None:
    """Measure what sweeps hold beside what is counted before they are compiled.

    Args:
        only: pattern of experiment names.
    """
    memory.run(only)


@app.command(name="compile")
def _compile(only: str = "*", repeats: int = 3) -> None:
    """Measure imports, tracing, and compiling with and without the kept cache.

    Args:
        only: pattern of experiment names.
        repeats: of the imports.
    """
    compiling.run(only, repeats)


@app.command(name="replay")
def _replay(seeds: int = 16, repeats: int = 7) -> None:
    """Time the replay ring beside flashbax.

    Args:
        seeds: vmapped seeds.
        repeats: timings of each side.
    """
    replay.run(seeds, repeats)


@app.command(name="planning")
def _planning(repeats: int = 7) -> None:
    """Time value iteration beside NumPy and pymdptoolbox.

    Args:
        repeats: timings of each side.
    """
    planning.run(repeats)


@app.command(name="learners")
def _learners(python: Path, repeats: int = 3) -> None:
    """Time many tabular learners beside loops in NumPy and numba.

    Args:
        python: the Python that has NumPy and numba.
        repeats: alternating runs of each side.
    """
    learners.run(python, repeats)


@app.command(name="walks")
def _walks(repeats: int = 3) -> None:
    """Time a hundred thousand runs of n-step TD whose walks are shared.

    Args:
        repeats: timings.
    """
    walks.run(repeats)


@app.command(name="lander")
def _lander(episodes: int = 1_000, run: Path | None = None) -> None:
    """Compare LunarLander with the Box2D original, under a heuristic or under what was trained.

    Args:
        episodes: in each, and of each seed.
        run: folder of a run that was trained in ours; the heuristic if left out.
    """
    if run is None:
        lander.run(episodes)
    else:
        lander.transfer(run, episodes)


@app.command(name="judges")
def _judges(only: str = "") -> None:
    """Train the classifiers whose features measure generated images, and keep them with the package.

    Args:
        only: name of one.
    """
    judges.run(only)


@app.command(name="digits")
def _digits(peers: Path = Path(".peers"), seeds: int = 2, images: int | None = None) -> None:
    """Judge the digits of a public DCGAN as those of our own models are judged.

    Args:
        peers: folder of the environments that `scripts/peers` makes.
        seeds: how many.
        images: to learn from; as many as our GAN if left out.
    """
    digits.run(peers, seeds, images)


@app.command(name="ablation")
def _ablation(seeds: int = 16, only: str = "") -> None:
    """Take the details of PPO, the parts of Rainbow and the choices of DDPG's preset away one at a time.

    Args:
        seeds: of each variant.
        only: part of the names of the tasks to run.
    """
    ablation.run(seeds, only)


@app.command(name="variance")
def _variance() -> None:
    """Measure the variance of policy gradient estimates at equal batches."""
    variance.run()


@app.command(name="overestimation")
def _overestimation(seeds: int = 16) -> None:
    """Measure how far DQN and double DQN over-estimate.

    Args:
        seeds: of each.
    """
    overestimation.run(seeds)


@app.command(name="cliffwalk")
def _cliffwalk(seeds: int = 16, most: int = 12) -> None:
    """Count the updates that prioritised replay saves where one in thousands of episodes is paid.

    Args:
        seeds: of each kind of replay and length of the cliff.
        most: states of the longest.
    """
    cliffwalk.run(seeds, most)


@app.command(name="optimum")
def _optimum() -> None:
    """Find the best mean return that Pendulum allows, by dynamic programming."""
    optimum.run()


@app.command(name="film")
def _film(folder: tyro.conf.Positional[Path], episodes: int = 5) -> None:
    """Play the policy of a run's first seed and keep its episodes, for a film.

    Args:
        folder: the run folder.
        episodes: how many.
    """
    films.run(folder, episodes)


@app.command(name="sheets")
def _sheets(folder: tyro.conf.Positional[Path]) -> None:
    """Keep what the model of a run's first seed makes: sheets of images, or points on their way.

    Args:
        folder: the run folder.
    """
    sheets.run(folder)


@app.command(name="tables")
def _tables() -> None:
    """Write benchmarks/README.md and its figures from the results that are kept."""
    for path in [
        *figures.write(),
        *ablation.draw(),
        variance.draw(),
        *overestimation.draw(),
        *cliffwalk.draw(),
        *scale.draw(),
        *films.draw(),
        *sheets.draw(),
        tables.write(),
    ]:
        print(path)


if __name__ == "__main__":
    try:
        app.cli()
    except UsageError as error:  # of a folder, a file or a name that was given
        sys.exit(f"benchmarks: {error}")
