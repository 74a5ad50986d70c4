"""How far a search has come that runs elsewhere, or has ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage
from rich.console import Console

from singer_ray.config import load_preset
from singer_ray.console.terminal import log
from singer_ray.errors import printable
from singer_ray.layout import CONFIG
from singer_ray.search.state.resume_rules import own_inputs, resume_command
from singer_ray.search.state.store import END, FINISHED, bring_study
from singer_ray.search.strategy.cost import Spending, duration
from singer_ray.search.strategy.stopping import Budget
from singer_ray.search.study.opening import load_study, require_own, storage_of
from singer_ray.search.study.schema import REPEATS, objectives_of
from singer_ray.search.watch.eta import Estimate
from singer_ray.search.watch.progress import SearchProgress

if TYPE_CHECKING:
    from singer_ray.config import Config

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
        storage = storage_of(record["study"], folder, "read")
        study, again = load_study(storage, record["name"]), _repeats(storage, record)
        require_own(study, address)
        objectives, spent = objectives_of(study), Spending.of(record["sessions"])
        left = None if record.get(FINISHED) else _left(config, record, study, again)

        def show(rows: optuna.Study, wanted: int, left: float | None = None) -> None:
            progress = SearchProgress(
                console, objectives, epochs=config.train.epochs, wanted=wanted, spent=spent.seconds, left=lambda: left
            )
            progress.read(rows)
            console.print(progress.table())

        show(study, config.search.trials, left)
        if again is not None:
            show(again, len(again.trials))
        log(console, f"used: {spent}" + (f"; {printable(record[END])}" if record.get(END) else ""))
        if not record.get(FINISHED):
            _doubt(record, resume_command(address, own_inputs(config)), console)


def _repeats(storage: BaseStorage, record: Mapping[str, Any]) -> optuna.Study | None:
    name = f"{record['name']}{REPEATS}"
    known = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    return load_study(storage, name) if name in known else None


def _left(config: Config, record: Mapping[str, Any], study: optuna.Study, again: optuna.Study | None) -> float | None:
    """Seconds until a search that runs will end; None while that cannot be told."""
    if not record["sessions"]:
        return None
    session, price = record["sessions"][-1], record.get("price_per_node_hour")
    most = Budget.of(config.search).seconds_left(
        Spending.of(record["sessions"]),
        gpus=session["gpus"],
        dollars_per_hour=price * session["nodes"] if price and session["nodes"] else None,
    )
    estimate = Estimate.of(config, concurrent=max(1, session["concurrent"]), gpus=session["gpus"])
    return estimate.update(study, again, no_more_trials=END in record, most=most)


def _doubt(record: Mapping[str, Any], command: str, console: Console) -> None:
    """Says so when the driver of a search that has not ended may be dead."""
    silent = time.time() - record["sessions"][-1]["end"] if record["sessions"] else None
    if silent is not None and silent <= SILENT:
        return
    what = "has not begun" if silent is None else f"has been silent for {duration(silent)}"
    log(console, f"Its driver {what}. If it is dead: {command}")
