"""What an export reads: the folder of a search or of a run, local or in S3, and the students that it holds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from singer_ray.errors import UserError, printable
from singer_ray.layout import (
    BEST,
    CARD,
    CHECKPOINT,
    CONFIG,
    JOURNAL,
    LEADERBOARD,
    LEADERBOARD_CSV,
    MANIFEST,
    MODEL_CONFIG,
    RECORD,
    REPORT,
    RESULT,
    SPACE,
    STUDENT,
    TRIALS,
    WEIGHTS,
)
from singer_ray.publishing.package import InputSpec, seal, write_student
from singer_ray.publishing.packages.local_writer import is_draft
from singer_ray.publishing.packages.manifest import Manifest, entry_of
from singer_ray.publishing.result import build_result, parsed, scrubbed, write_json
from singer_ray.publishing.selection import SelectedStudent, Selection, chosen
from singer_ray.publishing.table import cleaned, plain, read_table, trial_in
from singer_ray.storage import TIMEOUT, Folder, read_yaml
from singer_ray.storage.address import is_plain

if TYPE_CHECKING:
    from singer_ray.config import Config

COLUMNS = ("rank", "id", "state", "epochs", "seconds", "fault")
"""Columns of every leaderboard."""
_ANOTHER = "Restore it from a copy, or name another trial."
RUN_ID = "000"
"""Used as the trial id where there was no search."""

Metrics = Callable[[str], Mapping[str, Any]]
"""Trial id -> all metrics of its last epoch, as far as they are known."""


class Experiment:
    """The folder of a search (leaderboard.parquet, best/, trials/) or of a run (result.json, student/).

    `metrics_of` gives metrics that the leaderboard lacks, for students that are built from a checkpoint. Raises
    UserError when the folder is neither.
    """

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        *,
        timeout: float = TIMEOUT,
        metrics_of: Metrics = lambda trial: {},
    ) -> None:
        self.folder = Folder(address, endpoint, setting="EXPERIMENT", timeout=timeout, writable=False)
        self.address, self.metrics_of = self.folder.address, metrics_of
        content = self.folder.read(LEADERBOARD)
        self.is_search = content is not None
        self.table = (
            read_table(content, f"{self.address}/{LEADERBOARD}", COLUMNS) if content is not None else pd.DataFrame()
        )
        if not self.is_search:
            self._check_run()

    @cached_property
    def search(self) -> Mapping[str, Any]:
        """search.json; empty where there is none."""
        return parsed(self.folder.read(RECORD), f"{self.address}/{RECORD}")

    @property
    def name(self) -> str:
        """The study's name, else the folder's. Raises UserError when it cannot be a folder name."""
        name = str(self.search.get("name") or self.folder.name)
        if not is_plain(name) or "/" in name or is_draft(name):
            raise UserError(
                f"{self.address}: the name {printable(name)!r} cannot be a folder's name. Correct it in {RECORD}, or "
                "copy the experiment to a folder with another name."
            )
        return name

    @property
    def objectives(self) -> list[str]:
        """Each as NAME:max or NAME:min. Raises UserError when search.json is damaged."""
        objectives = self.search.get("objectives", [])
        if not isinstance(objectives, list):
            raise UserError(f"{self.address}/{RECORD} has no list of objectives. Restore it from a copy.")
        return [str(name) for name in objectives]

    @cached_property
    def identity(self) -> str:
        """Distinguishes this experiment from others of the same name; a resumed search keeps it."""
        own = self.search.get("id")
        parts = [str(own).encode()] if own else [self.folder.read(CONFIG) or b"", self.folder.read(SPACE) or b""]
        return hashlib.sha256(b"\0".join([self.name.encode(), *parts])).hexdigest()

    def choose(self, selection: Selection) -> list[SelectedStudent]:
        """The selected students, the best first. Raises UserError when there are none, or an unknown one is named."""
        if not self.is_search:
            if selection.metric or selection.front or selection.trials:
                raise UserError(f"{self.address} is one run with one student: leave out --trial, --metric, --front.")
            return [SelectedStudent(1, RUN_ID)]
        return chosen(self.table, selection, self.address)

    def rank_of(self, trial: str) -> int | None:
        """A trial's rank in the leaderboard; None where there is no leaderboard or no such trial."""
        if not self.is_search:
            return None
        ranks = list(self.table[self.table["id"] == trial]["rank"])
        return int(ranks[0]) if ranks else None

    def source_of(self, choice: SelectedStudent) -> str | None:
        """The subfolder that holds the student; None when there is only the trial's checkpoint.

        Raises UserError for a student with files that cannot be published.
        """
        source: str | None = STUDENT
        if self.is_search:
            folders = [name.rpartition("/")[2] for name in self.folder.folders(BEST)]
            source = next((f"{BEST}/{name}" for name in folders if trial_in(name) == choice.trial), None)
        if source is not None:
            inner = self.folder.below(source)
            for name in inner.names():
                if not is_plain(name):
                    raise UserError(
                        f"{inner.address} holds the file {printable(name)!r}, under whose name nothing can be "
                        "published. Change its name, or remove it."
                    )
                inner.require(name)
        return source

    def stage(
        self, choice: SelectedStudent, target: Path, *, license: str | None = None, selected_by: str | None = None
    ) -> None:
        """Writes the student into the new folder `target`: from best/ (or student/), else from the trial's checkpoint.

        `selected_by` is the metric that it was selected by, when not by rank.

        Raises UserError when its files were changed after their manifest, or there is no checkpoint.
        """
        source = self.source_of(choice)
        if source is not None:
            self._copy(source, target)
        else:
            self._build(choice, target)
        result = parsed((target / RESULT).read_bytes(), f"{self.address}: {RESULT} of {choice.name}")
        result["experiment"] = self.identity
        if self.is_search:
            result["search"] = self._provenance(choice) | ({"selected_by": selected_by} if selected_by else {})
        if license is not None:
            result["license"] = license
        write_json(target / RESULT, scrubbed(result))
        seal(target)

    def export_settings(self) -> dict[str, Any]:
        """The export.* settings of its own configuration, by dotted name. Raises UserError when it is damaged."""
        try:
            tree = read_yaml(self.folder.read(CONFIG) or b"", f"{self.address}/{CONFIG}", "Restore it.")
        except UserError as error:
            raise UserError(f"{self.address}/{CONFIG} is damaged: {error}") from error
        own = (tree.get("export") if isinstance(tree, dict) else None) or {}
        known = type(self)._known_settings()
        return {f"export.{name}": value for name, value in own.items() if name in known and value is not None}

    @staticmethod
    def _known_settings() -> set[str]:
        from singer_ray.config import ExportConfig

        return set(ExportConfig.model_fields)

    def study_files(self) -> dict[str, bytes]:
        """The experiment's own files to publish: name below the experiment -> content, without credentials."""
        places = {
            f"study/{CONFIG}": CONFIG,
            f"study/{SPACE}": SPACE,
            f"study/{RECORD}": RECORD,
            f"study/{JOURNAL}": JOURNAL,
            f"study/{LEADERBOARD_CSV}": LEADERBOARD_CSV,
            LEADERBOARD: LEADERBOARD,
            f"report/{REPORT}": REPORT,
        }
        if not self.is_search:
            places = {f"study/{CONFIG}": CONFIG, f"study/{RESULT}": RESULT}
        contents = {place: self.folder.read(name) for place, name in places.items()}
        return {p: cleaned(p, content) for p, content in contents.items() if content is not None}

    def _check_run(self) -> None:
        content = self.folder.read(f"{STUDENT}/{MODEL_CONFIG}")
        if content is not None and self.folder.read(RESULT) is not None:
            return
        if self.folder.read(CONFIG) is not None and self.folder.read(SPACE) is not None:
            raise UserError(
                f"{self.address} is a search without {LEADERBOARD}: it has not ended. Go on with it (--resume) first."
            )
        raise UserError(
            f"{self.address} is neither a search (no {LEADERBOARD}) nor a run (no {RESULT} and {STUDENT}/). Give the "
            "--out folder of singer_ray.tune or singer_ray.train."
        )

    def _copy(self, source: str, target: Path) -> None:
        inner = self.folder.below(source)
        names = inner.names()
        missing = [name for name in (MODEL_CONFIG, WEIGHTS, RESULT) if name not in names]
        if missing:
            raise UserError(f"{inner.address} has no {missing[0]}: the student is incomplete. Give another experiment.")
        for name in names:
            inner.fetch(name, target / name)
        path = target / MANIFEST
        if path.is_file():
            made = Manifest.parse(path.read_bytes(), f"{inner.address}/{MANIFEST}")
            error = made.error({n: entry_of(target / n) for n in made.files if (target / n).is_file()})
            if error:
                raise UserError(
                    f"{inner.address} was changed after its {MANIFEST} was written: {error}. Restore that file; or "
                    f"remove {MANIFEST} there to publish the folder as it is now."
                )
            path.unlink()
        (target / CARD).unlink(missing_ok=True)

    def _build(self, choice: SelectedStudent, target: Path) -> None:
        """Builds a student that the search did not package, from its trial's checkpoint."""
        from singer_ray.training import checkpoint
        from singer_ray.vision.students import MisfitError, student_of

        content = self.folder.read(f"{TRIALS}/{choice.trial}/{CHECKPOINT}")
        if not content:
            raise UserError(
                f"{self.address}/{TRIALS}/{choice.trial} has no {CHECKPOINT}: nothing is left of this trial. "
                "Name another trial, or train it again with its parameters from leaderboard.csv."
            )
        own = self._config().override(_parameters(choice.row))
        known = {
            n: float(v)
            for n, v in {**choice.row, **self.metrics_of(choice.trial)}.items()
            if isinstance(v, (int, float)) and math.isfinite(v) and "/" in n
        }
        where = f"{self.address}/{TRIALS}/{choice.trial}/{CHECKPOINT}"
        try:
            model, scaling = student_of(own, checkpoint.from_bytes(content, where, advice=_ANOTHER))
        except MisfitError as error:
            raise UserError(f"{where} {error}. {_ANOTHER}") from error
        counts = {"epoch": float(choice.row.get("epochs") or 0), "images_per_second": 0.0}
        seconds, remarks = float(choice.row.get("seconds") or 0.0), self.search.get("remarks") or ()
        result = build_result(own.model_dump(mode="json"), known | counts, seconds, remarks)
        del result["images_per_second"]
        write_student(target, model, InputSpec(own.data.image_size, own.data.crop_pct, scaling), result)

    def _config(self) -> Config:
        from singer_ray.config.tree import config_of_file

        content = self.folder.read(CONFIG)
        if content is None:
            raise UserError(f"{self.address} has no {CONFIG}. Give the whole --out folder of singer_ray.tune.")
        where = f"{self.address}/{CONFIG}"
        return config_of_file(read_yaml(content, where, "Restore it."), where)

    def _provenance(self, choice: SelectedStudent) -> dict[str, Any]:
        seeds, mean, spread = (plain(choice.row.get(name)) for name in ("seeds", "mean", "spread"))
        return {
            "name": self.name,
            "trial": choice.trial,
            "rank": choice.rank,
            "trials": len(self.table),
            "state": choice.row["state"],
            "objectives": self.objectives,
            "parameters": _parameters(choice.row),
            "seeds": int(seeds) if seeds else 1,
            "mean": mean,
            "spread": spread,
        }


def _parameters(row: Mapping[str, Any]) -> dict[str, Any]:
    """The searched settings in a row of the leaderboard, as plain values; absent ones left out."""
    from singer_ray.config import field_names

    settings = field_names()
    values = {name: plain(value) for name, value in row.items() if name in settings}
    return {name: value for name, value in values.items() if value is not None}
