"""How far a search has come that runs elsewhere, or has ended."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.search.home import CONFIG, RECORD
from singer_ray.search.progress import SearchProgress, duration
from singer_ray.search.study import JOURNAL, REPEATS, RUNNING, load_study, objectives_of, own_rows, storage_of
from singer_ray.storage import Folder

SILENT = 60.0
"""Seconds without a word after which a running search's driver is taken for dead."""


def show_status(address: str, endpoint: str | None, console: Console) -> None:
    """Prints the table and summary of the search in a folder or at STORAGE/NAME. Changes nothing there.

    Raises UserError when there is no search.
    """
    source = Folder(address, endpoint, knob="--status")
    content = source.read(RECORD)
    if content is None:
        raise UserError(f"There is no search in {address}: it has no {RECORD}. Give the --out of a search, or s3://...")
    record = json.loads(content)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)  # a copy: the journal's own locks stay with the search
        for name in (CONFIG, JOURNAL):
            (folder / name).write_bytes(source.read(name) or b"")
        config = load_preset(str(folder / CONFIG))
        storage = storage_of(record["study"], folder)
        study = load_study(storage, record["name"])
        objectives = objectives_of(study)
        spent = sum(session["end"] - session["begin"] for session in record["sessions"])
        wanted, epochs = config.search.trials, config.train.epochs
        progress = SearchProgress(console, objectives, epochs=epochs, wanted=wanted, spent=spent)
        progress.read(study)
        console.print(progress.table())
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
