"""How far a search has come that runs elsewhere, or has ended."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from rich.console import Console

from singer_ray.config import load_preset
from singer_ray.search.budget import Spending, duration
from singer_ray.search.estimate import Estimate
from singer_ray.search.home import CONFIG, bring_study
from singer_ray.search.progress import SearchProgress
from singer_ray.search.study import REPEATS, RUNNING, load_study, objectives_of, own_rows, storage_of

SILENT = 60.0
"""Seconds without a word after which a running search's driver is taken for dead."""


def show_status(address: str, endpoint: str | None, console: Console) -> None:
    """Prints the table and summary of the search in a folder or at STORAGE/NAME. Changes nothing there.

    Raises UserError when there is no search.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        record = bring_study(address, endpoint, folder)
        config = load_preset(str(folder / CONFIG))
        storage = storage_of(record["study"], folder)
        study = load_study(storage, record["name"])
        objectives = objectives_of(study)
        spent = Spending.of(record["sessions"])
        wanted, epochs, session = config.search.trials, config.train.epochs, record["sessions"][-1]
        estimate = Estimate.of(config, concurrent=session["concurrent"], gpus=session["gpus"])
        progress = SearchProgress(
            console, objectives, epochs=epochs, wanted=wanted, spent=spent.seconds, left=lambda: estimate.update(study)
        )
        progress.read(study)
        console.print(progress.table())
        console.print(f"used: {spent}" + (f"; {record['end']}" if record.get("end") else ""), highlight=False)
        if own_rows(study, [RUNNING]):
            silent = time.time() - record["sessions"][-1]["end"]
            if silent > SILENT:
                console.print(
                    f"Its driver has said nothing for {duration(silent)}. If it is dead: "
                    f"python -m singer_ray.tune --resume {address}", highlight=False,
                )  # fmt: skip
        if config.search.repeats > 1 and f"{record['name']}{REPEATS}" in _names(storage):
            again = load_study(storage, f"{record['name']}{REPEATS}")
            seeds = SearchProgress(console, objectives, epochs=epochs, wanted=len(again.trials))
            seeds.read(again)
            console.print(seeds.table())


def _names(storage: object) -> list[str]:
    import optuna

    return [summary.study_name for summary in optuna.get_all_study_summaries(storage)]  # type: ignore[arg-type]
