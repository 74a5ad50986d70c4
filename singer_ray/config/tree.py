"""The whole tree of settings, and how it is read from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from singer_ray.config.evaluation import EvaluationConfig
from singer_ray.config.formats import FORMAT, upgraded
from singer_ray.config.inputs import DataConfig, StudentConfig, TeacherConfig
from singer_ray.config.method import MethodConfig
from singer_ray.config.names import did_you_mean
from singer_ray.config.running import ExportConfig, SearchConfig, TrainConfig
from singer_ray.config.sources import implied_source
from singer_ray.errors import UserError, shown
from singer_ray.resources import find_shipped, shipped_names
from singer_ray.settings import Block
from singer_ray.storage import read_yaml, without_credentials, without_password
from singer_ray.storage.address import expanded_as

ADDRESSES = ("search.study", "search.warm_start", "train.storage", "export.to", "export.endpoint")
"""Settings whose values may hold a password."""


class Config(Block):
    """Everything that decides a run."""

    seed: int = Field(0, ge=0)
    """Fixes initial weights, batches, views and the search."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.train.batch_size % self.train.workers:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} cannot be divided among train.workers {self.train.workers}. "
                "Choose a multiple"
            )
        low, high = self.data.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"data.crop_scale is {low} {high}. Allowed: 0 < smallest <= largest <= 1")
        for setting, layers in (("teacher.layers", self.teacher.layers), ("student.layers", self.student.layers)):
            if list(layers) != sorted(set(layers)) or any(n < 0 for n in layers):
                raise ValueError(f"{setting} is {list(layers)}. Allowed: ascending layer numbers from 0, each once")
        if self.method.refiner == "singer":
            self.method.check_variant()
            self.method.check_adapter()
        if self.student.layers and len(self.student.layers) != len(self.teacher.layers):
            raise ValueError(
                f"student.layers names {len(self.student.layers)} layers, teacher.layers {len(self.teacher.layers)}. "
                "Name one student layer for each teacher layer"
            )
        return self

    def override(self, dotted: Mapping[str, Any]) -> Config:
        """A copy with `{"method.rank": 4, ...}` set, checked as a whole. Raises UserError."""
        tree = self.model_dump()
        for name, value in dotted.items():
            _set(tree, name, value)
        return validate(tree, "the configuration")

    def value(self, dotted: str) -> Any:
        """The value of the setting with that dotted name."""
        value: Any = self
        for part in dotted.split("."):
            value = getattr(value, part)
        return value

    def differences(self, other: Config) -> Iterator[tuple[str, Any]]:
        """The dotted names of the settings that differ from `other`, each with its value here."""
        for name in field_names():
            if self.value(name) != other.value(name):
                yield name, self.value(name)

    def without_passwords(self) -> Config:
        """A copy without the passwords in addresses, since others may read what is written."""
        written = {name: self.value(name) for name in ADDRESSES}
        return self.override({n: without_password(v) for n, v in written.items() if isinstance(v, str)})

    def to_yaml(self) -> str:
        """The whole tree as YAML that `--preset` reads back, without passwords (see `without_passwords`)."""
        tree = {"format": FORMAT, **self.without_passwords().model_dump(mode="json")}
        return yaml.safe_dump(tree, sort_keys=False)


def load_preset(name: str) -> Config:
    """The configuration of a shipped preset (`demo`) or of a YAML file. Raises UserError."""
    name = expanded_as(name, "--preset")
    path = find_shipped("presets", name)
    if path is None:
        raise UserError(
            f"--preset {name!r} is neither a file nor a shipped preset. "
            f"Allowed: {', '.join(shipped_names('presets'))}, or the path of a .yaml file."
        )
    where = str(path) if Path(name).exists() else f"preset {name}"
    return config_of_file(_with_sources(read_yaml_mapping(path)), where)


def config_of_file(tree: Mapping[str, Any], where: str) -> Config:
    """The configuration that a YAML file holds, of this version or an earlier one. Raises UserError."""
    return validate(upgraded(tree, where), where)


def _with_sources(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a preset, with the source filled in that its settings imply where it names none."""
    settled = dict(tree)
    for path in (("data",), ("evaluation", "data")):
        block: Any = settled
        for name in path:
            block = block.get(name) if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping) or "source" in block:
            continue
        implied = implied_source([name for name, value in block.items() if value is not None])
        if implied is not None:
            inner = {**block, "source": implied}
            settled = {**settled, path[0]: inner if len(path) == 1 else {**settled[path[0]], path[1]: inner}}
    return settled


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it holds anything else."""
    try:
        content = read_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}. Give a text file in YAML.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}. Allowed: a mapping of names to values.")
    return content


def validate(tree: Mapping[str, Any], where: str) -> Config:
    """A configuration from nested values. Raises UserError, one line about the first error."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, where)) from error


def field_names() -> list[str]:
    """The dotted name of every setting, in the order of the tree."""
    return [name for name, _ in _fields(Config)]


def fields() -> list[tuple[str, FieldInfo]]:
    """The dotted name of every setting with what pydantic knows of it, in the order of the tree."""
    return list(_fields(Config))


def explain(error: ValidationError, where: str) -> str:
    """One line about the first error: the setting, the value given, what is allowed, what to do."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return (
            f"{where} has an unknown name {shown(name)}."
            f"{did_you_mean(name[:100], [*field_names(), *Config.model_fields])} --help-all lists all names."
        )
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"{message}."
    value, kind = without_credentials(shown(first["input"])), allowed(first["type"], message)
    return f"{name} is {value} ({where}). Allowed: {kind}. --help {name} explains it."


def allowed(kind: str, message: str) -> str:
    """The allowed values in words, from the type and message of pydantic's error."""
    text = message.removeprefix("Input should be ")
    plain = {
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text",
        "tuple_type": "a list",
        "model_type": "a block of names and values",
        "finite_number": "a finite number",
    }
    return plain.get(kind, text)


def allowed_by(annotation: Any, info: FieldInfo | None = None) -> str:
    """What a type and the limits of a field allow, in words."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    words = []
    for part in parts:
        if get_origin(part) is Literal:
            words.append(", ".join(map(str, get_args(part))))
        elif get_origin(part) is Annotated:
            words.append(allowed_by(*_annotated(part)))
        elif get_origin(part) is tuple:
            inner = get_args(part)
            count = "any number of values" if inner[-1] is Ellipsis else f"{len(inner)} values"
            words.append(f"{count}, each {allowed_by(inner[0])}")
        else:
            words.append(_IN_WORDS.get(part, "text"))
    limits = [text for limit in (info.metadata if info else ()) for text in _limits(limit)]
    return " or ".join(words) + (f", {' and '.join(limits)}" if limits else "")


_IN_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false (also yes and no, on and off, 1 and 0)",
    str: "text",
    Path: "a path",
    NoneType: "none",
}


def _annotated(part: Any) -> tuple[Any, FieldInfo | None]:
    inner, *metadata = get_args(part)
    return inner, next((each for each in metadata if isinstance(each, FieldInfo)), None)


def _limits(limit: object) -> list[str]:
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    return [f"{words} {getattr(limit, name):g}" for name, words in signs.items() if hasattr(limit, name)]


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    block = tree
    for part in path:
        block = block.get(part) if isinstance(block, dict) else None  # type: ignore[assignment]
    if not isinstance(block, dict) or last not in block or isinstance(block[last], dict):
        hint = did_you_mean(dotted, field_names())
        raise UserError(f"{dotted!r} is not a setting.{hint} --help-all lists all names.")
    block[last] = value
