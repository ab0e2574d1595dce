"""Pictures of what trained models of data make, drawn from what is kept of it.

Of a model of images its sheets are kept: samples or what it makes of images, reconstructions, walks between them and
its first weights; of a model of points what the points become.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import figures, measure
from rlgen.experiments.planes import PlaneTask
from rlgen.lab import film, planes, runner, walks

KEPT = measure.RESULTS / "sheets"
_SHOWN = 0  # seed of what is drawn


def run(folder: Path) -> None:
    """Keeps what the model of a run's first seed makes.

    Args:
        folder: of a run that was trained to its end.

    Raises:
        UsageError: if there is nothing to show.
    """
    learned = film.lane(runner.restore(folder), 0)
    name = learned.experiment.name
    if isinstance(learned.experiment.task, PlaneTask):
        print(keep_points(name, film.points(learned, learned.experiment.task)))
    else:
        print(keep(name, walks.drawn(learned, jax.random.key(_SHOWN))))


def keep(experiment: str, drawn: dict[str, walks.Sheet]) -> Path:
    """Writes the sheets of an experiment and says where; grey ones as one number a pixel."""
    about, arrays = {}, {}
    for name, sheet in drawn.items():
        grey = (sheet.images == sheet.images[..., :1]).all()
        arrays[f"images_{name}"] = sheet.images[..., :1] if grey else sheet.images
        about[name] = {"num_columns": sheet.num_columns, "headings": sheet.headings}
    return _write(experiment, {"sheets": about}, arrays)


def keep_points(experiment: str, stations: dict[str, np.ndarray]) -> Path:
    """Writes what points of a plane become, `[N, 2]` by heading, and says where."""
    arrays = {f"points_{index}": points.astype(np.float32) for index, points in enumerate(stations.values())}
    return _write(experiment, {"stations": list(stations)}, arrays)


def _write(experiment: str, about: dict[str, Any], arrays: dict[str, Any]) -> Path:
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{experiment.replace('/', '_')}.npz"
    told = json.dumps({"experiment": experiment, **about, "machine": measure.machine()})
    np.savez_compressed(path, about=np.array(told), **arrays)
    return path


def titles() -> dict[str, str]:
    """The pictures that are kept: the name of each and its title."""
    named = {}
    for kept in sorted(KEPT.glob("*.npz")):
        about, first = _about(kept), Path(f"{kept.stem}-made.png")
        for name in about.get("sheets", [""]):
            what = name or ("points on their way" if "stations" in about else "what it makes")
            named[walks.place(first, name).stem] = f"{about['experiment']}: {what}"
    return named


def draw() -> list[Path]:
    """Draws what is kept and says where."""
    paths = []
    for kept in sorted(KEPT.glob("*.npz")):
        about, first = _about(kept), figures.FIGURES / f"{kept.stem}-made.png"
        title = about["experiment"]
        with np.load(kept) as arrays:
            if "stations" in about:
                stations = {heading: arrays[f"points_{index}"] for index, heading in enumerate(about["stations"])}
                planes.way(first, stations, title=title, apart=(film.SAMPLES,))
                paths.append(first)
                continue
            for name, how in about["sheets"].items():
                images = np.broadcast_to(arrays[f"images_{name}"], (*arrays[f"images_{name}"].shape[:3], 3))
                paths.append(walks.place(first, name))
                walks.Sheet(images, how["num_columns"], tuple(how["headings"])).draw(paths[-1], title)
    return paths


def _about(kept: Path) -> dict[str, Any]:
    with np.load(kept) as arrays:
        return json.loads(str(arrays["about"]))
