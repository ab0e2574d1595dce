"""The command line: `rlgen list | show | sweep | resume | evaluate | report | play`.

Only the form of each command is written here; what they do is in `rlgen.lab.commands`, which is imported once the line
has been understood, so that `rlgen --help` does not wait for JAX.

Exit codes: 0 done, 1 failed, 2 asked for something impossible, 130 interrupted.
"""

import contextlib
import dataclasses
import difflib
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

FAILED, WRONG, INTERRUPTED = 1, 2, 130

try:
    import tyro
    from tyro.conf import Positional, UseAppendAction, arg, subcommand
    from tyro.constructors import PrimitiveConstructorSpec
except KeyboardInterrupt:
    sys.stderr.write("rlgen: interrupted\n")
    sys.exit(INTERRUPTED)


def _read_whole(text: str) -> int:
    try:
        value = float(text)  # so that 1e6 is a number of steps
    except ValueError:
        value = -1.0
    if value < 0 or not value.is_integer():
        raise ValueError(f"{text!r} is no whole number from 0 on")
    return int(value)


def _read_count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (count := _read_whole(text)) > 0:
            return count
    raise ValueError(f"{text!r} is no whole number from 1 on")


def _read_positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # JSON, in which a run is written down, knows no infinity, and no thread waits for longer.
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{text!r} is no number above 0 and up to {threading.TIMEOUT_MAX:.2g}")
    return value


def _read_auto_or_count(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    with contextlib.suppress(ValueError):
        return _read_count(text)
    raise ValueError(f"{text!r} is neither 'auto' nor a whole number from 1 on")


def _read_coordinator(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text != "auto" and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"{text!r} is neither 'auto' nor an address and a port such as first-host:7531")
    return text


def _said(read: Callable[[str], Any], metavar: str) -> tuple[Any, Any]:
    """Describes a value of one word, or none, to tyro; its help says itself what the default is."""
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    )
    return spec, arg(help_behavior_hint="")


Whole = Annotated[int | None, *_said(_read_whole, "N")]
Count = Annotated[int | None, *_said(_read_count, "N")]
Seconds = Annotated[float | None, *_said(_read_positive, "SECONDS")]
AutoOrCount = Annotated[int | Literal["auto"] | None, *_said(_read_auto_or_count, "auto|N")]
Coordinator = Annotated[str | None, *_said(_read_coordinator, "auto|HOST:PORT")]
Name = Positional[Annotated[str, arg(metavar="NAME")]]
Folder = Positional[Annotated[Path, arg(metavar="DIR")]]


@dataclasses.dataclass(frozen=True)
class List:
    """List the experiments.

    Attributes:
        json: as a JSON array, for programs
    """

    json: bool = False


@dataclasses.dataclass(frozen=True)
class Show:
    """Show an experiment: what can be set, its budget, its target and what its algorithm is.

    Attributes:
        name: of the experiment, or any part that no other has
    """

    name: Name


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train seeds × a grid of hyperparameters in one compiled program.

    Attributes:
        name: of the experiment, or any part that no other has
        seeds: how many; by default as many as its target is stated for
        steps: budget of each seed, in environment steps or examples; by default the experiment's
        seed: number that all randomness comes from; by default 0
        set: hypers.NAME=VALUE or config.NAME=VALUE; fixes an axis of the experiment's own grid, which then has no such
            axis
        grid: hypers.NAME=VALUE,VALUE,...; several span their product; one replaces the experiment's own grid as a whole
        out: run folder; by default a new one under runs/
        devices: how many to spread the seeds over; by default every core or accelerator
        chunk: most seeds × grid points at a time, to save memory, or auto for as many as fit; by default as the
            experiment says, or all
        checkpoint_seconds: between two checkpoints; by default 60
        stall_seconds: without an answer, after which a device counts as stalled; by default 600
        windows: points on the learning curves; by default 256
        coordinator: where several processes that share the sweep meet: address and port of the first one, or auto for
            what SLURM or MPI says
        processes: how many they are
        process_id: number of this one, from 0
        tensorboard: write TensorBoard event files too
        wandb: log to Weights & Biases too
        quiet: print the result only
    """

    name: Name
    seeds: Count = None
    steps: Count = None
    seed: Whole = 0
    set: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")]] = ()
    grid: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME=VALUE,VALUE")]] = ()
    out: Annotated[Path | None, *_said(Path, "DIR")] = None
    devices: Annotated[int | Literal["auto"], *_said(_read_auto_or_count, "auto|N")] = "auto"
    chunk: AutoOrCount = None
    checkpoint_seconds: Seconds = None
    stall_seconds: Seconds = None
    windows: Count = None
    coordinator: Coordinator = None
    processes: Count = None
    process_id: Whole = None
    tensorboard: bool = False
    wandb: bool = False
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with an interrupted sweep, to the same bits as if it had never stopped.

    Attributes:
        folder: of the run
        devices: from now on; by default as before
        checkpoint_seconds: between two checkpoints from now on; by default as before
        stall_seconds: without an answer, after which a device counts as stalled from now on; by default as before
        coordinator: as for a sweep
        processes: how many share what is left, no matter how many there were
        process_id: number of this one, from 0
    """

    folder: Folder
    devices: AutoOrCount = None
    checkpoint_seconds: Seconds = None
    stall_seconds: Seconds = None
    coordinator: Coordinator = None
    processes: Count = None
    process_id: Whole = None


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score the trained policies of a run again, with fresh random numbers.

    Attributes:
        folder: of the run
        episodes: how many whole episodes a policy; by default as many as the sweep scored it by
    """

    folder: Folder
    episodes: Whole = None


@dataclasses.dataclass(frozen=True)
class Report:
    """Compare finished runs: a Markdown table, learning curves, performance profiles.

    Attributes:
        folders: of the runs
        out: folder to write into; by default the folder of a single run, else report/
    """

    folders: Positional[Annotated[tuple[Path, ...], arg(metavar="DIR [DIR ...]")]]
    out: Annotated[Path | None, *_said(Path, "DIR")] = None


@dataclasses.dataclass(frozen=True)
class Play:
    """Make a film of a trained policy (GIF), or samples of a trained generator (PNG).

    Attributes:
        folder: of the run
        seed: which one, from 0; by default the one with the best score
        point: which point of the grid, from 0; by default that of the best score
        episodes: how many to show; by default 1
        out: file to write; by default one in the run folder
    """

    folder: Folder
    seed: Whole = None
    point: Whole = None
    episodes: Annotated[int, *_said(_read_whole, "N")] = 1
    out: Annotated[Path | None, *_said(Path, "FILE")] = None


Command = (
    Annotated[List, subcommand("list")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Play, subcommand("play")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: its words; None for those of the process.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no ≥
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        _complain("interrupted")
        if _has_others():
            _leave(INTERRUPTED)
        return INTERRUPTED


def _main(arguments: Sequence[str]) -> int:
    """Reads a command line and does what it says."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command = tyro.cli(
                Command,
                prog="rlgen",
                description="Reinforcement learning and generative models as vectorised seed sweeps in JAX.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code:
            summary = summary_of(complaint.getvalue())
            # A word that is missing was taken for an option, though the option is perhaps only misspelt.
            missing = summary.startswith("Missing value for argument '") and "'-" not in summary
            _complain((missing and _misspelt(arguments)) or summary)
        return WRONG if stop.code else 0
    return _run(command)


def _misspelt(arguments: Sequence[str]) -> str:
    """Says which option of a command line its command does not have, and what was perhaps meant; nothing if none."""
    kinds = {kind.__origin__.__name__.lower(): kind.__origin__ for kind in get_args(Command)}
    known = [field.name.replace("_", "-") for field in dataclasses.fields(kinds[arguments[0]])]
    options = [word[2:].partition("=")[0].replace("_", "-") for word in arguments[1:] if word.startswith("--")]
    unknown = [option for option in options if option not in known]
    if not unknown:
        return ""
    near = difflib.get_close_matches(unknown[0], known, n=1)
    return f"Unrecognized options: --{unknown[0]}{f'. Perhaps you meant --{near[0]}' if near else ''}"


def summary_of(box: str) -> str:
    """Brings the box in which tyro says what is wrong with a command line to one line.

    Args:
        box: as printed, with or without colours; drawn with lines, or with spaces and hyphens for what is not UTF-8.

    Returns:
        What is wrong, and what was perhaps meant.
    """
    from rich.text import Text

    parts: list[list[str]] = [[]]
    for line in Text.from_ansi(box).plain.splitlines():
        content = line.strip("│╭╮╰╯ ")
        if content and not content.strip("─-"):
            parts.append([])
        elif content and not line.startswith(("╭", "╰")):
            parts[-1].append(content)
    if "╭" not in box:
        del parts[0]  # the title, which is else in the frame
    first, *others = (" ".join(part) for part in parts)
    hints = []
    for part in others:
        if part.startswith("Available subcommands: "):
            typed = first.partition(": ")[2].split(", ")[0]
            near = difflib.get_close_matches(typed, part.partition(": ")[2].split(", "), n=1)
            hints.append(f"Perhaps you meant {near[0]}" if near else part)
        if part.startswith("Perhaps you meant"):
            options = dict.fromkeys(re.findall(r"(?<= )--(?!help)[a-z-]+", part))
            hints.append(f"Perhaps you meant {' or '.join(options)}")
    return ". ".join(part.rstrip(".") for part in (first, *hints) if part)


def _run(command: Any) -> int:
    """Does what a command says; what it does not expect keeps its traceback."""
    # XLA calls it an error that programs of its own cache carry two tuning flags that are no features of a processor.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _leaving_at_once():
        importlib.import_module("numpy" if isinstance(command, Report) else "jax")  # which a report has no use for
        from rlgen.lab import commands
    try:
        commands.run(command)
    except Exception as error:
        code = commands.exit_code(error)
        if code is None:
            if not _has_others():
                raise
            traceback.print_exc()
        else:
            _complain(commands.said(error))
        # An ordinary end would wait for a device that has stopped, or for other processes, which wait for this one.
        if commands.is_stuck(error) or _has_others():
            _leave(FAILED if code is None else code)
        return FAILED if code is None else code
    return 0


def _has_others() -> bool:
    """Tells whether other processes share the work; they are given a while to leave as well."""
    processes = sys.modules.get("rlgen.lab.processes")
    return processes is not None and processes.part()


def _leave(code: int) -> NoReturn:
    """Ends the process at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """A context in which Ctrl-C ends the process: raised within an import of compiled code it would be a crash."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # where it is ignored, as in the background, or is somebody else's
        return

    def leave(*_: object) -> None:
        _complain("interrupted")
        _leave(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _complain(message: str) -> None:
    """Says what is wrong, on one line."""
    sys.stderr.write(f"rlgen: {' '.join(message.split())}\n")
