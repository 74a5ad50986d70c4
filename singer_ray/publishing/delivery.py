"""Publishes an experiment's best students to a store, with the study, the report and an index.

PREFIX/index.json                              all experiments there
PREFIX/EXPERIMENT/experiment.json              its students
PREFIX/EXPERIMENT/leaderboard.parquet
PREFIX/EXPERIMENT/study/ report/
PREFIX/EXPERIMENT/students/RANK-TRIAL/         packages
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.errors import UserError, printable
from singer_ray.layout import EXPERIMENT, INDEX, ONNX, PROGRAM, RESULT, STUDENTS
from singer_ray.publishing.experiment import Experiment
from singer_ray.publishing.formats import onnx_available, write_onnx, write_program
from singer_ray.publishing.package import seal
from singer_ray.publishing.packages.manifest import FORMAT, Manifest, OtherFormatError
from singer_ray.publishing.packages.store import Published, Store
from singer_ray.publishing.result import parsed
from singer_ray.publishing.selection import SelectedStudent, Selection
from singer_ray.publishing.table import trial_in
from singer_ray.storage.address import is_plain

if TYPE_CHECKING:
    from singer_ray.config import ExportConfig


def check_formats(settings: ExportConfig) -> None:
    """Raises UserError when export.onnx insists on ONNX and the extra is not installed."""
    if settings.onnx == "yes" and not onnx_available():
        raise UserError(
            "export.onnx is 'yes', but the extra onnx is not installed. Install it: pip install 'singer-ray[onnx]'; or "
            "--export.onnx auto."
        )


def deliver(
    experiment: Experiment,
    store: Store,
    settings: ExportConfig,
    selection: Selection,
    *,
    replace: bool = False,
    log: Callable[[str], None] = print,
) -> list[Published]:
    """Publishes the selected students, then the experiment's own files, then the lists; existing packages stay.

    Raises UserError when another experiment of that name or another package is there (unless `replace`), and for
    anything else that the user can fix; students published by then stay.
    """
    check_formats(settings)
    choices = experiment.choose(selection)
    files = experiment.study_files()  # what cannot be published is refused before anything is written
    for choice in choices:
        experiment.source_of(choice)
    _reserve(experiment, store, replace=replace)
    published = []
    with tempfile.TemporaryDirectory(prefix="singer-ray-export-") as drafts:
        for choice in choices:
            place = Path(drafts) / choice.name
            done = _deliver_student(experiment, choice, store, settings, selection, place, replace=replace)
            log(f"{'exported' if done.new else 'was there already:'} {done}, {done.size / 1e6:.1f} MB{_differs(done)}")
            published.append(done)
    if replace:  # only now that the new ones have arrived
        _remove_strangers(experiment, store)
    for name, content in files.items():
        store.write(f"{experiment.name}/{name}", content)
    store.write_listing(f"{experiment.name}/{EXPERIMENT}", lambda: _listed_experiment(experiment, store))
    store.write_listing(INDEX, lambda: _listed_all(store))
    return published


def listed_packages(store: Store) -> dict[str, str]:
    """Name -> digest of all packages in the lists (experiment.json) below a store's address. Raises UserError."""
    digests = {}
    for name in store.folder.names():
        if not f"/{name}".endswith(f"/{EXPERIMENT}"):
            continue
        where = f"{store.address}/{name}"
        try:
            for student in parsed(store.read(name), where).get("students", []):
                path = str(student["path"]).partition("/")[2]
                if not is_plain(path):
                    raise ValueError(f"{path!r} is no package's name")
                digests[f"{name.removesuffix(EXPERIMENT)}{path}"] = str(student["package"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{printable(where)} is damaged ({type(error).__name__}: {printable(error, 60)}). Publish the "
                "experiment again."
            ) from error
    return digests


def _deliver_student(
    experiment: Experiment,
    choice: SelectedStudent,
    store: Store,
    settings: ExportConfig,
    selection: Selection,
    folder: Path,
    *,
    replace: bool,
) -> Published:
    try:
        experiment.stage(choice, folder, license=settings.license, selected_by=selection.metric)
        own = Manifest.of(folder)
        wanted = {ONNX} if settings.onnx == "yes" or (settings.onnx == "auto" and onnx_available()) else set()
        wanted |= {PROGRAM} if settings.program else set()
        name = f"{experiment.name}/{STUDENTS}/{choice.name}"
        others = []
        for there in store.packages(f"{experiment.name}/{STUDENTS}"):
            if trial_in(there.rpartition("/")[2]) != choice.trial:
                continue
            manifest = _readable_manifest(store, there)
            if manifest is not None and manifest.student == own.student and manifest.formats >= wanted and not replace:
                differs = there != name or manifest.files.get(RESULT) != own.files[RESULT]
                return Published(f"{store.address}/{there}", False, manifest.size, other=differs)
            if there != name:
                others.append(there)
        if others and not replace:
            raise UserError(
                f"{store.address}/{others[0]} contains another student of trial {choice.trial}. Use --replace to put "
                "this one in its place, or give another address."
            )
        if ONNX in wanted:
            write_onnx(folder)
        if PROGRAM in wanted:
            write_program(folder)
        seal(folder)
    except OSError as error:
        why = f"{folder} could not be written: {error.strerror}."
        raise UserError(f"{why} Free some space there, or set TMPDIR.") from error
    done = store.put(folder, name, replace=replace)
    for other in others:
        store.remove(other)
    return done


def _reserve(experiment: Experiment, store: Store, *, replace: bool) -> None:
    """Claims the experiment's name before its first package: two of one name must not mix. Raises UserError."""
    mine = {"format": FORMAT, "name": experiment.name, "identity": experiment.identity, "students": []}
    if replace or store.create(experiment.name, EXPERIMENT, _json(mine)):
        return
    where = f"{store.address}/{experiment.name}"
    there = parsed(store.read(f"{experiment.name}/{EXPERIMENT}"), f"{where}/{EXPERIMENT}")
    if there.get("identity") != experiment.identity:
        raise UserError(
            f"{where} holds another experiment of the same name. Use --replace to put this one in its place, or give "
            "another address."
        )


def _remove_strangers(experiment: Experiment, store: Store) -> None:
    """Removes the packages of another experiment that had this one's name."""
    for name in store.packages(f"{experiment.name}/{STUDENTS}"):
        result = parsed(store.read(f"{name}/{RESULT}"), f"{store.address}/{name}/{RESULT}")
        if result.get("experiment") != experiment.identity:
            store.remove(name)


def _differs(done: Published) -> str:
    return " (the same student, with another rank, card or format: --replace renews it)" if done.other else ""


def _readable_manifest(store: Store, name: str) -> Manifest | None:
    """The manifest of a package that this version can read."""
    try:
        return store.find(name)
    except OtherFormatError:
        return None


def _listed_experiment(experiment: Experiment, store: Store) -> bytes:
    students = []
    for name in store.packages(f"{experiment.name}/{STUDENTS}"):
        trial = trial_in(name.rpartition("/")[2])
        if trial is None:  # somebody else's
            continue
        manifest = _readable_manifest(store, name)
        result = parsed(store.read(f"{name}/{RESULT}"), f"{store.address}/{name}/{RESULT}")
        if manifest is None or result.get("experiment") != experiment.identity:
            continue
        rank = name.rpartition("/")[2].partition("-")[0]
        rank = str(experiment.rank_of(trial) or rank)  # trials added since may rank before it
        scores = {
            metric: value
            for metric, value in result.get("metrics", {}).items()
            if metric.startswith(("val/", "test/")) and "after_norm" not in metric
        }
        students.append(
            {
                "path": name,
                "rank": int(rank),
                "trial": trial,
                "package": manifest.digest,
                "bytes": manifest.size,
                "metrics": scores,
            }
        )
    return _json(
        {
            "format": FORMAT,
            "name": experiment.name,
            "identity": experiment.identity,
            "objectives": experiment.objectives,
            "students": sorted(students, key=lambda s: (s["rank"], s["trial"])),
        }
    )


def _listed_all(store: Store) -> bytes:
    experiments = [
        parsed(store.read(f"{name}/{EXPERIMENT}"), f"{store.address}/{name}/{EXPERIMENT}") for name in store.folders()
    ]
    return _json({"format": FORMAT, "experiments": [e for e in experiments if e]})


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=1) + "\n").encode()
