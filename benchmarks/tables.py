"""Writes `benchmarks/README.md` from the results that are kept; nothing in it is typed by hand."""

import json
from pathlib import Path
from typing import Any

from benchmarks import ablation, cliffwalk, figures, films, measure, overestimation, scale, sheets, variance

_HEAD = """# Benchmarks

This page is written by `python -m benchmarks tables` from `benchmarks/results/`.

Commands: `python -m benchmarks learning [--only GLOB]`, `python -m benchmarks speed [--checkouts DIR]` after
`scripts/peers NAME`, `python -m benchmarks limits`, `python -m benchmarks memory`, `python -m benchmarks compile`,
`python -m benchmarks replay`, `python -m benchmarks planning`, `python -m benchmarks learners
--python PYTHON`, `python -m benchmarks walks`, `python -m benchmarks scale`, `python -m benchmarks lander`, `python
-m benchmarks ablation`, `python -m benchmarks variance`, `python -m benchmarks overestimation`, `python -m benchmarks
cliffwalk`, `python -m benchmarks film RUN`, `python -m benchmarks sheets RUN`, `python -m benchmarks optimum`, `python
-m benchmarks digits`, `python -m benchmarks tables`.
"""


def _load(kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((measure.RESULTS / kind).glob("*.json"))]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def learning() -> str:
    """IQM and interval of every experiment that was run, beside the target that its row has now."""
    from rlgen.experiments import catalogue  # which imports every algorithm

    rows = []
    for result in _load("learning"):
        summary = result["summary"]
        point, row = measure.ranked(summary)[0], catalogue.EXPERIMENTS[summary["experiment"]]
        target = row.target
        name = f"`{summary['experiment']}`"
        if where := measure.label(summary, point):
            name += f", best of {len(summary['points']):,} points: {where}"
        sign = {"max": "≥", "min": "≤"}[target.direction] if target else ""
        reached = target.reached(float("nan") if point["iqm"] is None else point["iqm"]) if target else None
        low, high = point["ci95"]
        fewer = f", {summary['seeds']} of {row.seeds} seeds" if summary["seeds"] < row.seeds else ""
        rows.append(
            [
                name,
                str(summary["seeds"]),
                f"{summary['env_steps']:,}",
                f"{_number(point['iqm'])} [{_number(low)}, {_number(high)}]",
                f"{sign} {_number(target.value)}" if target else "–",
                {True: "yes", False: "**no**", None: "–"}[reached] + (fewer if target else ""),
                f"{summary['run_seconds']:.0f}",
                f"{summary['steps_per_second']:,.0f}",
            ]
        )
    head = ["experiment", "seeds", "steps a seed", "IQM [95 %]", "target", "reached", "seconds", "steps/s, all seeds"]
    text = (
        "The IQM is of what the trained policies score when all steps are done, mostly without exploring; of bandits,\n"
        "over the whole run.  Curves show the episodes of training, which do explore, and may end well below it.\n\n"
    )
    return "## Learning\n\n" + text + _table(head, rows) + "".join(_best(result) for result in _load("optimum"))


def _best(result: dict[str, Any]) -> str:
    """What no policy can better, on every grid that it was found on."""
    grids = [f"{' × '.join(map(str, point['grid']))}: {point['mean']:.1f}" for point in result["points"]]
    error = result["points"][-1]["standard_error"]
    return (
        f"\nThe best mean return of {result['name']}, by dynamic programming over angles × speeds × torques, then\n"
        f"{result['num_episodes']:,} episodes, standard error {error:.1f}: {'; '.join(grids)}.\n"
    )


def speed() -> str:
    """Medians of alternating runs."""
    parts, rows = ["## Speed\n"], []
    results = _load("speed")
    for result in (result for result in results if "rlgen" in result):
        name = result.get("peer", "purejaxrl")
        ours, peer = result["rlgen"], result[name]
        rows.append(
            [
                result["work"].split(",")[0] + f" ({result['name']})",
                name,
                f"{ours['steps_per_second']:,.0f}",
                f"{peer['steps_per_second']:,.0f}",
                f"**{result['ratio']:.2f}**",
                str(min(ours.get("repeats", 1), peer.get("repeats", 1))),
                f"{ours['lower_seconds'] + ours['compile_seconds']:.1f} / "
                f"{peer['lower_seconds'] + peer['compile_seconds']:.1f}",
                f"{ours['peak_rss_mb']:.0f} / {peer['peak_rss_mb']:.0f}",
                f"{ours['final_return']:.3g} / {peer['final_return']:.3g}{'†' if result.get('scored') else ''}",
            ]
        )
    head = ["work", "peer", "rlgen steps/s", "peer's steps/s", "ratio", "runs", "compile s", "peak MB", "at the end"]
    parts += [
        "Medians of alternating runs in their own processes; pairs are rlgen / peer.  At the end stands what trained"
        " policies earn (†), or rlgen's last episodes of training beside what the peer says of its own; of models of"
        " data the loss at points that they have not seen (†), or that of the end of training.\n",
        _table(head, rows),
    ]
    parts += _behind([result for result in results if "rlgen" in result])
    parts += [_planning(result) for result in results if "sparse" in result]
    parts += [_learners(result) for result in results if "learners" in result]
    parts += [_walks(result) for result in results if "processor_seconds" in result]
    for result in (result for result in results if "microseconds" in result):
        taken = result["microseconds"]
        parts.append(
            f"Replay ({result['work']}): rlgen {taken['rlgen']:.0f} µs, flashbax {taken['flashbax']:.0f} µs,"
            f" ratio **{result['ratio']:.2f}**.\n"
        )
    machines = {json.dumps({**result["machine"], "git": None, "date": None}) for result in results}
    for text in sorted(machines):
        machine = json.loads(text)
        parts.append(f"Measured on {machine['processor']}, {machine['cores']} cores, Python {machine['python']}.\n")
    return "\n".join(parts)


def _behind(results: list[dict[str, Any]]) -> list[str]:
    """Where a peer compiles sooner, takes less memory or runs faster, by more than a twentieth."""
    sides = [(result, result["rlgen"], result[result["peer"]]) for result in results if "peer" in result]
    lines = []
    for what, quantity in (
        ("compile sooner", lambda side: side["lower_seconds"] + side["compile_seconds"]),
        ("take less memory", lambda side: side["peak_rss_mb"]),
        ("run faster", lambda side: 1 / side["steps_per_second"]),
    ):
        behind = [(result, quantity(ours) / quantity(theirs)) for result, ours, theirs in sides]
        behind = sorted(((ratio, result["name"]) for result, ratio in behind if ratio > 1.05), reverse=True)
        named = ", ".join(f"{name} {ratio:.2f}" for ratio, name in behind)
        lines.append(f"In {len(behind)} of {len(sides)} rows peers {what}, by these factors: {named or 'none'}.\n")
    return lines


def limits() -> str:
    """Rows beside what the machine allows."""
    rows = [
        [
            result["name"],
            f"{result['steps_per_second']:,.0f}",
            f"{result['flops_per_step'] / 1e3:,.0f}",
            f"{result['flops_per_second'] / 1e9:.1f}",
            f"{result['share_of_peak']:.0%}",
            f"{result['share_of_products']:.0%}",
            f"{ceiling:,.0f}" if (ceiling := result["ceiling_steps_per_second"]) else "–",
        ]
        for result in _load("limits")
    ]
    if not rows:
        return ""
    peaks = sorted(result["peak_flops_per_second"] / 1e9 for result in _load("limits"))
    head = ["work", "steps/s", "kFLOP a step", "GFLOP/s", "of the peak", "in products", "random policy, steps/s"]
    text = (
        "Speed once every update learns; what matrix products it computes; their share of the peak of large products"
        f" ({peaks[len(peaks) // 2]:.0f} GFLOP/s in the median), and of the run's time if each took as long as it does"
        " alone; and the speed of the environments when actions are drawn at random and nothing is learned."
    )
    return f"## Limits\n\n{text}\n\n{_table(head, rows)}"


def memory() -> str:
    """What sweeps hold, counted and measured."""
    rows = [
        [
            f"`{result['experiment']}`",
            str(sweep["seeds"]),
            f"{sweep['counted_bytes'] / 2**20:.2f}",
            f"{sweep['state_bytes'] / 2**20:.2f}",
            f"{sweep['temporary_mb']:.2f}",
            f"{sweep['peak_rss_mb']:.0f}",
        ]
        for result in _load("memory")
        for sweep in result["sweeps"]
    ]
    head = ["experiment", "seeds", "state counted, MiB", "state held, MiB", "an update's own, MiB", "process, MiB"]
    return "## Memory\n\n" + _table(head, rows) if rows else ""


def compilation() -> str:
    """What a run costs before its first update."""
    results = _load("compile")
    rows = [
        [
            f"`{result['experiment']}`",
            str(result["seeds"]),
            *(f"{result[key]:.1f}" for key in ("lower_seconds", "compile_seconds", "cached_seconds")),
        ]
        for result in results
        if "experiment" in result
    ]
    if not rows:
        return ""
    imports = ", ".join(
        f"`{module}` {seconds:.1f} s" for result in results for module, seconds in result.get("imports", {}).items()
    )
    head = ["experiment", "seeds", "tracing, s", "compiling, s", "compiled before, s"]
    text = f"Processor time of a fresh Python that imports: {imports}."
    return f"## Compiling\n\n{text}\n\n{_table(head, rows)}"


def lander() -> str:
    """What a policy comes to in our LunarLander and in the original."""
    results = _load("lander")
    heuristic, trained = ([r for r in results if kind in r] for kind in ("kind", "experiment"))
    rows = [
        [
            f"{side}, {result['kind']}",
            f"{told['mean_return']:.1f} ± {told['deviation']:.1f}",
            f"{told['share_landed']:.1%}",
            f"{told['mean_length']:.1f}",
            f"{told['steps_per_second']:,.0f}",
        ]
        for result in heuristic
        for side, told in ((side, result[side]) for side in ("rlgen", "gymnasium"))
    ]
    if not rows:
        return ""
    agree = "; ".join(
        f"{result['kind']}: returns {result['p']['return']:.2f}, lengths {result['p']['length']:.2f}"
        for result in heuristic
    )
    head = ["LunarLander", "return", "at least 200", "steps", "steps/s"]
    text = f"Gymnasium's heuristic policy, {heuristic[0]['episodes']:,} episodes each. p of two-sample"
    parts = [f"## LunarLander\n\n{text} Kolmogorov-Smirnov tests: {agree}.\n\n{_table(head, rows)}"]
    return "\n".join([*parts, *map(_transfer, trained)])


def _transfer(result: dict[str, Any]) -> str:
    """What policies that were trained in ours come to in both."""
    rows = [[str(row["seed"]), f"{row['rlgen']:.1f}", f"{row['gymnasium']:.1f}"] for row in result["seeds"]]
    text = f"Policies of `{result['experiment']}`, trained in ours: mean return of {result['episodes']} episodes"
    return f"{text} in each.\n\n{_table(['seed', 'rlgen', 'gymnasium'], rows)}"


def digits() -> str:
    """What the judge of digits makes of a public DCGAN's, beside ours and those that both learned from."""
    parts = []
    for result in _load("digits"):
        ours = [told["summary"] for told in _load("learning") if told["summary"]["experiment"] == result["experiment"]]
        rows = [[f"`{told['experiment']}`", _numbers(told["points"][0]["per_seed"])] for told in ours]
        rows += [
            [result["work"], _numbers(result["distances"])],
            ["training digits", _number(result["training_digits"])],
        ]
        text = "Fréchet distances to the held-out digits by the features of one classifier of MNIST, seed by seed."
        parts.append(f"## Generated digits\n\n{text}\n\n{_table(['digits', 'distance'], rows)}")
    return "\n".join(parts)


def _numbers(values: list[float]) -> str:
    return ", ".join(map(_number, values))


def _planning(result: dict[str, Any]) -> str:
    """Value iteration, in words."""
    sparse, dense = result["sparse"], result["dense"]
    sides = ", ".join(
        f"{name.replace('_double', ' in float64')} {seconds * 1e6:,.0f} µs"
        for name, seconds in dense["seconds_a_sweep"].items()
    )
    return (
        f"Value iteration, {sparse['work']}: {sparse['seconds_a_sweep'] * 1e3:.0f} ms a sweep,"
        f" {sparse['bytes_held'] / 1e6:.0f} MB held and {sparse['bytes_temporary'] / 1e6:.0f} MB besides,"
        f" {sparse['share_of_bandwidth']:.0%} of the memory bandwidth"
        f" ({sparse['machine_bytes_per_second'] / 1e9:.1f} GB/s).\n\n"
        f"Value iteration, {dense['work']}, a sweep: {sides}.\n"
    )


def _learners(result: dict[str, Any]) -> str:
    """Independent learners beside loops, as a table."""
    ours = result["learners"]["rlgen"]["steps_per_second"]
    rows = [
        [name.replace("_", " "), f"{side['steps_per_second']:,.0f}", f"{ours / side['steps_per_second']:.2f}"]
        for name, side in result["learners"].items()
    ]
    limit = result["bytes_per_second"] / result["bytes_per_step"]
    return (
        f"{result['work']}; moving only what a step must, {result['bytes_per_step']} bytes, the memory bandwidth of"
        f" {result['bytes_per_second'] / 1e9:.1f} GB/s would allow {limit:,.0f} steps/s:\n\n"
        + _table(["side", "steps/s", "rlgen's speed over it"], rows)
    )


def _walks(result: dict[str, Any]) -> str:
    """Shared walks, in words."""
    return (
        f"{result['work']}, walks shared by all grid points: {result['runs']:,} runs in {result['seconds']:.1f} s,"
        f" {result['processor_seconds']:.1f} s of processor, after {result['compile_seconds']:.1f} s of compiling.\n"
    )


def pictures() -> str:
    """The pictures that hold several results."""
    titles = {name: title for name, (title, *_) in figures.TOGETHER.items()}
    titles |= {"bandit-study": figures.STUDY_TITLE, variance.FIGURE: variance.TITLE}
    titles |= {
        overestimation.FIGURE: overestimation.TITLE,
        cliffwalk.FIGURE: cliffwalk.TITLE,
        scale.FIGURE: scale.TITLE,
    }
    titles |= {study.figure: study.title for study in ablation.STUDIES}
    drawn = {f"{name}.png": title for name, title in titles.items() if (figures.FIGURES / f"{name}.png").exists()}
    drawn |= {f"{name}.gif": f"{title}: a film of the trained policy" for name, title in films.titles().items()}
    drawn |= {f"{name}.png": title for name, title in sheets.titles().items()}
    return "## Pictures\n\n" + "\n".join(f"![{title}](figures/{name})\n" for name, title in drawn.items())


def write() -> Path:
    """Writes the page and says where."""
    path = Path(__file__).parent / "README.md"
    path.write_text(
        "\n".join([_HEAD, learning(), pictures(), lander(), digits(), speed(), limits(), memory(), compilation()])
    )
    return path
