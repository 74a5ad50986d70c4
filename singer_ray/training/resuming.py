"""How a run that was cut off goes on: with which configuration, by which command, with what given again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.config import Config, load_preset, read_yaml_mapping
from singer_ray.config.sources import FROM_PYTHON
from singer_ray.config.tree import ADDRESSES
from singer_ray.errors import UserError, printable
from singer_ray.layout import CHECKPOINT, CONFIG, RAY_TRAIN
from singer_ray.storage.address import absolute, is_folder, own_name

if TYPE_CHECKING:
    from singer_ray.training.launch import Inputs

CHANGEABLE = ("train.trackers", "train.threads", "train.device", "train.workers", "data.loader_workers")
"""Settings that a resume may change: they do not decide what was trained. A batch is one of all workers together."""
AS_BEFORE: Mapping[str, Any] = {"train.trackers": ()}
"""Settings that an older run's config.yaml lacks, and what was done before there were such."""


def config_of_run(folder: Path) -> Config:
    """The configuration of the run in `folder`; what its file lacks means what was done then. Raises UserError."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"There is no run to resume in {printable(folder)}: it has no {CONFIG}. Give the --out of "
            "singer_ray.train, or start a run without --resume."
        )
    config, written = load_preset(str(path)), read_yaml_mapping(path)
    return config.override({name: then for name, then in AS_BEFORE.items() if not _has(written, name)})


def resumed_config(folder: Path, given: Mapping[str, Any], preset: str | None = None) -> Config:
    """The configuration with which the run in `folder` goes on.

    Args:
        given: dotted names and values that were asked for: those of the run, or `CHANGEABLE` ones.
        preset: the preset that was named, if any: `given` on top of it must be the run's configuration.

    Raises UserError when there is no run, or what was asked for contradicts it.
    """
    before = config_of_run(folder)
    # Passwords are not kept in the folder: those given now are the ones that count.
    allowed = (*CHANGEABLE, *ADDRESSES)
    changed = {name: value for name, value in given.items() if name.startswith(allowed) and value is not None}
    kept = before.without_passwords()
    for name, value in before.override(given).without_passwords().differences(kept):
        if not name.startswith(CHANGEABLE) and not _is_same_place(before, name, value):
            raise UserError(
                f"--resume continues the run in {printable(folder)} as it was, with {name} {_shown(before, name)}; "
                f"{_shown_value(value)} is given. Leave --{name} out, or start another run."
            )
    if preset is not None:
        wanted = by_the_same_launcher(folder, load_preset(preset).override(given))
        for name, value in wanted.without_passwords().differences(by_the_same_launcher(folder, kept)):
            if not name.startswith(CHANGEABLE) and not _is_same_place(before, name, value):
                raise UserError(
                    f"--resume continues the run in {printable(folder)} as it was, with {name} {_shown(before, name)}; "
                    f"--preset {printable(preset)} has {_shown_value(value)}. Leave --preset out: the folder knows its "
                    "configuration."
                )
    return by_the_same_launcher(folder, before.override(changed))


def by_the_same_launcher(folder: Path, config: Config) -> Config:
    """`config`, in Ray where the run in `folder` ran there: that is where its checkpoints are, for one worker too."""
    before = config_of_run(folder).train
    if (before.launcher == "ray" or before.workers > 1) and config.train.launcher == "auto":
        return config.override({"train.launcher": "ray"})
    return config


def check_same(folder: Path, config: Config) -> None:
    """Raises UserError when the run in `folder` was not made by `config`, `CHANGEABLE` settings apart."""
    before = by_the_same_launcher(folder, config_of_run(folder)).without_passwords()
    for name, _ in by_the_same_launcher(folder, config).without_passwords().differences(before):
        if not name.startswith(CHANGEABLE):
            raise UserError(
                f"--resume continues the run in {printable(folder)} as it was, but {name} differs from its {CONFIG}. "
                "Give no settings: the folder knows its configuration."
            )


def resume_command(folder: Path, config: Config) -> str | None:
    """What goes on with the run in `folder`; None where no epoch was finished."""
    if not (folder / CHECKPOINT).is_file() and not _in_ray(folder, config):
        return None
    own = own_inputs(config)
    if own:
        return f"singer_ray.distill(resume={str(folder)!r}, {', '.join(f'{name}=...' for name in own)}) in Python"
    return shlex.join(["python", "-m", "singer_ray.train", "--resume", str(folder)])


def own_inputs(config: Config) -> list[str]:
    """What a run or search reads that no configuration can name: arguments of `distill` and `sweep`."""
    given = {
        "teacher": config.teacher.name.startswith("own:"),
        "data": config.data.source == FROM_PYTHON,
        "probe_data": config.evaluation.data.source == FROM_PYTHON,
    }
    return [name for name, own in given.items() if own]


def require_own(folder: Path, config: Config, inputs: Inputs) -> None:
    """Raises UserError where the run had something of one's own that is not given again."""
    own = own_inputs(config)
    missing = [name for name in own if getattr(inputs, name) is None]
    if missing:
        raise UserError(
            f"The run in {printable(folder)} was given its {' and '.join(missing)} in Python, which it needs again. "
            f"Use singer_ray.distill(resume={str(folder)!r}, {', '.join(f'{name}=...' for name in own)})."
        )


def _in_ray(folder: Path, config: Config) -> bool:
    """Whether Ray Train may have a checkpoint of the run: what is in a store elsewhere is not looked up."""
    here = folder / RAY_TRAIN
    storage = config.train.storage
    if storage is not None and not is_folder(storage):
        return config.train.workers > 1 or config.train.launcher == "ray"
    if storage is not None:
        here = Path(absolute(storage)) / own_name(folder)
    return any(True for _ in _checkpoints(here))


def _checkpoints(folder: Path) -> Iterator[Path]:
    return folder.glob("checkpoint_*")


def _is_same_place(before: Config, name: str, value: Any) -> bool:
    """Whether a relative --storage is given again, which a run keeps as it is from any folder."""
    storage = before.train.storage
    return name == "train.storage" and None not in (storage, value) and absolute(str(storage)) == absolute(value)


def _has(tree: Any, dotted: str) -> bool:
    for part in dotted.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _shown(config: Config, name: str) -> str:
    return _shown_value(config.value(name))


def _shown_value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) and value else printable(value, 80)
