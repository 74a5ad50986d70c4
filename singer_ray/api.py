"""The commands as functions, for a teacher or data of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.arguments import resolve
from singer_ray.config.sources import FROM_PYTHON
from singer_ray.console.outputs import check_out, default_out, given_folder, prepare_out
from singer_ray.console.wording import speaks_python
from singer_ray.errors import UserError
from singer_ray.storage.address import expanded_as

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from singer_ray.config import Config
    from singer_ray.distillation import Distilled
    from singer_ray.search.driver.searched import Searched
    from singer_ray.training.launch import Inputs


@speaks_python
def distill(
    teacher: nn.Module | str | None = None,
    data: Any = None,
    *,
    out: str | Path | None = None,
    preset: str = "demo",
    settings: Mapping[str, Any] | None = None,
    probe_data: Any = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
) -> Distilled:
    """Distils one student: `python -m singer_ray.train` from Python.

    Args:
        teacher: a timm-like Vision Transformer (a module with `.blocks`), or a name as for `teacher.name`.
        data: data sets under "train", "val" and "test" (the first is needed; one data set alone is "train"), instead
            of `data.source`: anything with `len` and `[i]`, such as those of torch, torchvision and Hugging Face. An
            item is an image, (image, label), (image, mask), or a mapping with `image` and any of `label`, `mask`,
            `depth`. Images are PIL images, or uint8 or floating-point values from 0 to 1, [3, height, width] or
            [height, width, 3], not normalised. Classes are named by the data set's `classes` (`mask_classes`), or by
            number.
        out: folder for the result; runs/train-DATE-TIME when None.
        preset: what the configuration starts from: a shipped name or a YAML file.
        settings: dotted names and values on top of it, `{"method.rank": 8, "train.epochs": 20}`.
        probe_data: annotated data sets for the probes, when `data` is not annotated.
        resume: goes on with the run in this folder after its last finished epoch. Teacher and data are given again
            where they were given at first; the folder knows the rest.
        overwrite: replace an earlier result in `out`.

    Raises UserError for whatever can be mended, with a message that says how.
    """
    from singer_ray.distillation import run_distillation
    from singer_ray.finalize import finalize_run

    if resume is not None:
        kept = {"out": out is None, "preset": preset == "demo", "overwrite": not overwrite}
        done = _resumed_run(
            given_folder(resume, "resume"),
            settings or {},
            resolve(teacher, data, probe_data, preset, None),
            teacher=teacher if isinstance(teacher, str) else None,
            refused=[n for n, same in kept.items() if not same],
        )
    else:
        config, inputs = resolve(teacher, data, probe_data, preset, settings)
        folder = given_folder(out) if out is not None else default_out("train")
        check_out(folder, overwrite=overwrite)
        done = run_distillation(
            config,
            folder,
            inputs=inputs,
            given=tuple(settings or ()),
            prepare=lambda: prepare_out(folder, overwrite=overwrite),
        )
    finalize_run(done, print)
    return done


def _resumed_run(
    folder: Path,
    settings: Mapping[str, Any],
    resolved: tuple[Config, Inputs],
    *,
    teacher: str | None,
    refused: Sequence[str],
) -> Distilled:
    from singer_ray.distillation import run_distillation
    from singer_ray.training.resuming import resumed_config

    if refused:
        raise UserError(f"distill(resume=...) goes on with the run as it was: leave out {', '.join(refused)}.")
    given, inputs = resolved
    sources = {name: given.value(name) for name in ("data.source", "evaluation.data.source")}
    own = {name: source for name, source in sources.items() if source == FROM_PYTHON}
    if inputs.teacher is not None or teacher is not None:
        own["teacher.name"] = given.teacher.name
    config = resumed_config(folder, {**own, **settings})
    return run_distillation(config, folder, inputs=inputs, resume=True)


@speaks_python
def sweep(
    space: str | Mapping[str, Any] | None = None,
    teacher: nn.Module | str | None = None,
    data: Any = None,
    *,
    out: str | Path | None = None,
    preset: str = "demo",
    settings: Mapping[str, Any] | None = None,
    probe_data: Any = None,
    trials: int | None = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
) -> Searched:
    """Searches for the best student: `python -m singer_ray.tune` from Python.

    Args:
        space: a shipped name, a YAML file, or a mapping: `{"method.rank": {"type": "int", "low": 2, "high": 16}}`;
            `search.space` of the configuration when None.
        trials: how many; `search.trials` of the configuration when None.
        resume: goes on with the search in this folder, or at STORAGE/NAME, as it was set up. Teacher and data are given
            again where they were given at first; `settings` may hold what `--resume` may change (budgets, resources,
            export).

    The other arguments are those of `distill`. Raises UserError.
    """
    from singer_ray.console.terminal import PythonConsole, log
    from singer_ray.finalize import finalize_search
    from singer_ray.search.driver.search import run_search

    console = PythonConsole()
    count = {} if trials is None else {"search.trials": trials}
    if resume is not None:
        kept = {"space": space is None, "preset": preset == "demo", "teacher": not isinstance(teacher, str)}
        done = _resumed(
            resume,
            out,
            {**(settings or {}), **count},
            resolve(teacher, data, probe_data, preset, None, sent=True)[1],
            refused=[name for name, same in kept.items() if not same] + ["overwrite"] * overwrite,
            console=console,
        )
        finalize_search(done, partial(log, console))
        return done
    config, inputs = resolve(teacher, data, probe_data, preset, {**(settings or {}), **count}, sent=True)
    folder = given_folder(out) if out is not None else default_out("tune")
    check_out(folder, overwrite=overwrite)
    done = run_search(
        config,
        folder,
        space=space,
        given=[*(settings or {}), *count],
        inputs=inputs,
        overwrite=overwrite,
        console=console,
    )
    finalize_search(done, partial(log, console))
    return done


def _resumed(
    address: str | Path,
    out: str | Path | None,
    changes: Mapping[str, Any],
    inputs: Inputs,
    *,
    refused: Sequence[str],
    console: Console,
) -> Searched:
    from singer_ray.search.driver.search import resume_search

    if refused:
        raise UserError(f"sweep(resume=...) goes on with the search as it was: leave out {', '.join(refused)}.")
    folder = None if out is None else given_folder(out)
    endpoint = changes.get("export.endpoint")
    place = expanded_as(str(address), "resume")
    return resume_search(place, out=folder, endpoint=endpoint, changes=changes, inputs=inputs, console=console)
