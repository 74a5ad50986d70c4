"""Lines that say how a run gets on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singer_ray.metrics import headline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from singer_ray.config import Config
    from singer_ray.training.loop import Metrics

SECONDS_BETWEEN = 10.0


def bar_on(console: Console | None) -> Progress | None:
    """A bar with the time left, where `console` is a terminal that shows something."""
    if console is None or not console.is_terminal or console.quiet:
        return None
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # who has a terminal has loaded Rich

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


@contextmanager
def step_progress(what: str, steps: int, console: Console | None = None) -> Iterator[Callable[[int, float], None]]:
    """Gives a function (step, loss) that shows progress: a bar on a terminal, a line every ten seconds elsewhere.

    Both say how much time is left.
    """
    from singer_ray.console.terminal import Terminal

    console = console or Terminal()
    if (progress := bar_on(console)) is not None:
        with progress:
            bar = progress.add_task(what, total=steps, note="")
            yield lambda step, loss: progress.update(bar, completed=step, note=f"loss {loss:.3f}")
        console.print(f"{what}: {steps} steps done", highlight=False, markup=False)
        return
    begin = last = time.monotonic()

    def advance(step: int, loss: float) -> None:
        nonlocal last
        now = time.monotonic()
        if step == steps or now - last >= SECONDS_BETWEEN:
            last = now
            left = (now - begin) / step * (steps - step)
            told = f", {duration(left)} left" if step < steps else ""
            console.print(f"{what}: step {step}/{steps}  loss {loss:.3f}{told}", highlight=False, markup=False)

    yield advance


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class EpochLines:
    """One line an epoch, and one every ten seconds inside a long one; a bar instead of those where `console` has it."""

    def __init__(self, config: Config, log: Callable[[str], None], console: Console | None = None) -> None:
        self.epochs, self.log = config.train.epochs, log
        self.last = self.begin = time.monotonic()
        self.first_epoch: int | None = None
        self.progress = bar_on(console)
        self.bar: TaskID | None = None

    def __enter__(self) -> EpochLines:
        if self.progress is not None:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def heartbeat(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Called after each step; mostly silent."""
        if self.progress is not None:
            done, total = (epoch - 1) * steps + step, self.epochs * steps
            if self.bar is None:  # where a resume begins: what came before took none of this time
                self.bar = self.progress.add_task("training", total=total, completed=done - 1, note="")
            note = f"epoch {epoch}/{self.epochs}, {images_per_second:.0f} images/s"
            self.progress.update(self.bar, completed=done, note=note)
        elif time.monotonic() - self.last >= SECONDS_BETWEEN and step < steps:
            self.last = time.monotonic()
            self.log(f"epoch {epoch}/{self.epochs}  step {step}/{steps}  {images_per_second:.0f} images/s")

    def epoch(self, metrics: Metrics) -> None:
        """Called after each epoch."""
        self.last = time.monotonic()
        epoch = int(metrics["epoch"])
        if self.first_epoch is None:
            self.first_epoch = epoch
        losses = "  ".join(f"{name[6:]} {value:.4g}" for name, value in metrics.items() if name.startswith("train/"))
        shown = [name for score in headline() if (name := f"val/{score}") in metrics]
        scores = "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)
        done = epoch - self.first_epoch + 1
        left = (self.last - self.begin) / done * (self.epochs - epoch)
        self.log(
            f"epoch {epoch}/{self.epochs}  {losses}  {scores}  {metrics['images_per_second']:.0f} images/s, "
            f"{100 * metrics['data_wait_share']:.0f}% waiting for data" + (f", {duration(left)} left" if left else "")
        )
