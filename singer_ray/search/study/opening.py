"""Creates, opens and removes studies in their storage: a journal file or a database."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from singer_ray.errors import UserError, printable, shown
from singer_ray.layout import JOURNAL
from singer_ray.search.study.database import Access, database
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import REPEATS, SEARCH, STOP_METRIC, STOP_MODE
from singer_ray.search.study.screened import Screened
from singer_ray.storage import lacks_password, with_password, without_credentials

MISSING_PASSWORD = (
    "Passwords are not kept in a search's files: set PGPASSWORD, write it to ~/.pgpass, or set SINGER_RAY_STUDY_URL to "
    "the whole address. "
)


def storage_of(address: str | None, folder: Path, access: Access = "create") -> BaseStorage:
    """The database at `address`, else FOLDER/study.journal.

    Args:
        access: "create" makes what is missing; "write" continues what exists; "read" changes nothing, whatever the
            address names.

    Raises UserError when it cannot be reached, or is not there.
    """
    try:
        if address is not None:
            return database(with_password(address), access)
        if access != "create":
            _check_journal(folder / JOURNAL, access)
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    except UserError:
        raise
    except Exception as error:
        where = printable(without_credentials(address or str(folder / JOURNAL)))
        raise UserError(
            f"The study at {where} cannot be opened: {printable(without_credentials(str(error))).rstrip('.')}. "
            + (MISSING_PASSWORD if address is not None and lacks_password(address) else "")
            + "Correct search.study (for example sqlite:////absolute/path.db), start the database, or leave it out."
        ) from error


def _check_journal(path: Path, access: Access) -> None:
    """Raises UserError when the journal is missing, or is a link that would be written through."""
    if not path.is_file():
        raise UserError(f"{path} is missing: nothing is known of the search's trials. Restore it from a copy.")
    if access == "write" and path.is_symlink():
        raise UserError(f"{path} is a link: --resume would write through it. Put the file itself there.")


def create_study(storage: BaseStorage, name: str, objectives: Objectives, **attributes: Any) -> optuna.Study:
    """A new, empty study. Raises UserError when the storage holds one of that name."""
    try:
        study = optuna.create_study(study_name=name, storage=storage, directions=objectives.directions)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UserError(
            f"There is a study {name!r} at that address already. Use --resume to go on with it, or another --out."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives.names))
    known = {STOP_METRIC: objectives.stop_metric, STOP_MODE: objectives.stop_mode, **attributes}
    for key, value in known.items():
        study.set_user_attr(key, value)
    return study


def remove_study(storage: BaseStorage, name: str, earlier: Collection[str]) -> None:
    """Deletes the study of that name and that of its repeats, if they exist.

    Raises UserError when it does not belong to one of the searches with the ids `earlier`.
    """
    studies = {summary.study_name: summary for summary in optuna.get_all_study_summaries(storage)}
    if name in studies and studies[name].user_attrs.get(SEARCH) not in earlier:
        raise UserError(
            f"There is a study {name!r} at that address already, of another search than the one in --out: --overwrite "
            "will not delete it. Use another --out (its name is the study's), or delete it: optuna delete-study."
        )
    for each in (name, f"{name}{REPEATS}"):
        if each in studies:
            optuna.delete_study(study_name=each, storage=storage)


def load_study(storage: BaseStorage, name: str) -> optuna.Study:
    """The study of that name, with unknown attributes hidden (see `Screened`). Raises UserError when there is none."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        study._storage = Screened(study._storage)  # type: ignore[assignment]
        return study
    except KeyError as error:
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        raise UserError(
            f"There is no study {shown(name)} there. Found: {printable(', '.join(names) or 'none')}. Correct "
            "search.study, or restore the study."
        ) from error


def require_own(study: optuna.Study, where: object) -> None:
    """Raises UserError for a study that was not written by a search."""
    if not study.metric_names or {STOP_METRIC, STOP_MODE} - study.user_attrs.keys():
        raise UserError(
            f"The study {printable(repr(study.study_name))} of {printable(where)} was not written by singer_ray.tune. "
            "Give its --out."
        )
    if len(study.metric_names) != len(study.directions):
        raise UserError(
            f"The study of {printable(where)} names {len(study.metric_names)} objectives, and has "
            f"{len(study.directions)}. Restore it from a copy."
        )
