"""The best students of a search, as packages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd

from singer_ray.layout import BEST, CHECKPOINT, PICTURES
from singer_ray.search.state.store import REMARKS
from singer_ray.search.study.leaderboard import FRONT
from singer_ray.search.study.schema import COMPLETE, FAIL, SECONDS, last_result, own_rows

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.state.store import SearchStore
    from singer_ray.search.workers.pool import HostPool


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that can win, the best first: finished trials, or stopped ones where none finished."""
    usable = table[table["state"] != FAIL]
    return usable[usable["state"] == COMPLETE] if (usable["state"] == COMPLETE).any() else usable


def package_best(
    table: pd.DataFrame, study: optuna.Study, config: Config, pool: HostPool, store: SearchStore
) -> tuple[Path, ...]:
    """Writes the `export.top` best students (with several objectives also the rest of the front) to OUT/best."""
    from singer_ray.publishing.package import InputSpec, write_student
    from singer_ray.publishing.result import build_result
    from singer_ray.search.state.trial_checkpoint import read_saved
    from singer_ray.training import checkpoint
    from singer_ray.vision.students import student_of

    ranked, remarks = chosen(table), store.read_record().get(REMARKS) or ()
    front = int(ranked[FRONT].sum()) if FRONT in ranked.columns else 0
    rows = {row.number: row for row in own_rows(study)}
    folders: list[Path] = []
    if (store.out / BEST).is_symlink():  # students would be written through it
        (store.out / BEST).unlink()
    shutil.rmtree(store.out / BEST, ignore_errors=True)
    for place in ranked.head(max(config.export.top, front)).to_dict("records"):
        label = str(place["id"])
        row = rows[int(label)]
        content = read_saved(store.trials, label)
        if content is None:
            continue
        metrics: dict[str, Any] = dict(last_result(row))
        state = checkpoint.from_bytes(content, f"{store.trials.address}/{label}/{CHECKPOINT}")
        if place["state"] != COMPLETE:  # its checkpoint may be an epoch ahead of what was reported when it was stopped
            metrics |= state["metrics"] | pool.ask("final_metrics", label, row.params)
        own = config.override(row.params)
        model, scaling = student_of(own, state)
        target = store.out / BEST / f"{place['rank']}-{label}"
        pictures, head = pool.ask("accessories", label, row.params)
        (target / PICTURES).mkdir(parents=True)
        for name, picture in pictures.items():
            (target / PICTURES / name).write_bytes(picture)
        write_student(
            target,
            model,
            InputSpec(own.data.image_size, own.data.crop_pct, scaling),
            build_result(own.model_dump(mode="json"), metrics, float(row.user_attrs.get(SECONDS, 0.0)), remarks),
            head,
        )
        folders.append(target)
    return tuple(folders)
