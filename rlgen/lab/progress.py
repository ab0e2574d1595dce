"""What a run shows while it runs: its phase, a bar over the updates, speed, the IQM so far and the time left.

On a terminal it is one live line.  Elsewhere it is a plain line now and then, and nothing where quiet was asked for.
"""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SHARE = 0.1  # of the run between two plain lines
SPACING = 5.0  # seconds between two plain lines at least


class Progress:
    """A context that shows a run's progress."""

    def __init__(self, console: Console, *, total: int, quiet: bool):
        """Prepares to show.

        Args:
            console: where.
            total: updates of all groups of lanes.
            quiet: whether to show nothing.
        """
        self._console, self._total, self._quiet = console, total, quiet
        self._phase = ""
        self._begun = self._done_before = 0.0
        self._next_share, self._next_time = SHARE, 0.0
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("updates · {task.fields[speed]} steps/s · IQM {task.fields[iqm]} ·"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        live = console.is_terminal and not quiet
        self._bar = Bar(*columns, console=console, transient=True) if live else None
        self._task = self._bar.add_task("", total=total, speed="–", iqm="–") if self._bar is not None else None

    def __enter__(self) -> "Progress":
        """Begins to show."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        """Clears the live line away."""
        if self._bar is not None:
            self._bar.stop()

    def phase(self, name: str, done: int = 0) -> None:
        """Begins a phase.

        Args:
            name: such as `"training"`.
            done: updates done already.
        """
        self._phase, self._begun, self._done_before = name, time.monotonic(), done
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, description=name, completed=done)
        else:
            self.say(name)

    def update(self, done: int, steps: int, iqm: float) -> None:
        """Shows how far the run is.

        Args:
            done: updates done, of all groups.
            steps: environment steps (or examples) since the phase began, of all seeds.
            iqm: of the curve so far; nan while there is none.
        """
        now = time.monotonic()
        speed = f"{steps / max(now - self._begun, 1e-9):,.0f}"
        shown = "–" if math.isnan(iqm) else f"{iqm:.5g}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, speed=speed, iqm=shown)
        elif done / self._total >= self._next_share and now >= self._next_time:
            self._next_share, self._next_time = done / self._total + SHARE, now + SPACING
            left = (now - self._begun) * (self._total - done) / max(done - self._done_before, 1)
            share = f"{self._phase}: {done:,} of {self._total:,} updates"
            self.say(f"{share}, {speed} steps/s, IQM {shown}, {left:.0f} s left")

    def say(self, message: str) -> None:
        """Prints a line, unless quiet."""
        if not self._quiet:
            self._console.print(message, highlight=False, markup=False, soft_wrap=True)
