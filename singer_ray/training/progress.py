"""Lines that say how a run gets on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.training.loop import Metrics

SECONDS_BETWEEN = 10.0
_SHOWN = ("val/miou", "val/linear_top1", "val/depth_rmse")


@contextmanager
def step_progress(what: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Gives a function (step, loss) that shows progress: a bar on a terminal, a line every ten seconds elsewhere."""
    if sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            bar = progress.add_task(what, total=steps, loss="")
            yield lambda step, loss: progress.update(bar, completed=step, loss=f"loss {loss:.3f}")
        return
    last = time.monotonic()

    def advance(step: int, loss: float) -> None:
        nonlocal last
        if step == steps or time.monotonic() - last >= SECONDS_BETWEEN:
            last = time.monotonic()
            print(f"{what}: step {step}/{steps}  loss {loss:.3f}", flush=True)

    yield advance


class EpochLines:
    """One line an epoch, and one every ten seconds inside a long one."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.epochs, self.say = config.train.epochs, say
        self.last = self.begin = time.monotonic()
        self.first_epoch: int | None = None

    def heartbeat(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Called after each step; mostly silent."""
        if time.monotonic() - self.last >= SECONDS_BETWEEN and step < steps:
            self.last = time.monotonic()
            self.say(f"epoch {epoch}/{self.epochs}  step {step}/{steps}  {images_per_second:.0f} images/s")

    def epoch(self, metrics: Metrics) -> None:
        """Called after each epoch."""
        self.last = time.monotonic()
        epoch = int(metrics["epoch"])
        if self.first_epoch is None:
            self.first_epoch = epoch
        losses = "  ".join(f"{name[6:]} {value:.4g}" for name, value in metrics.items() if name.startswith("train/"))
        scores = "  ".join(f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics)
        done = epoch - self.first_epoch + 1
        left = (self.last - self.begin) / done * (self.epochs - epoch)
        self.say(
            f"epoch {epoch}/{self.epochs}  {losses}  {scores}  {metrics['images_per_second']:.0f} images/s, "
            f"{100 * metrics['data_wait_share']:.0f}% waiting for data" + (f", {left:.0f} s left" if left else "")
        )
