"""The files in clusters/, as the tests of this folder read them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "clusters").glob("*.yaml"))
COMMAND_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
_VARIANT = re.compile(r"^(\s*)#\| ", re.MULTILINE)


def provider_of(file: Path) -> str:
    """The provider's name: `aws`, `local`, ..."""
    return str(load(file)["provider"]["type"])


def load(file: Path) -> dict[str, Any]:
    """The file as Ray reads it."""
    return parse(file.read_text(encoding="utf-8"))


def load_with_variants(file: Path) -> dict[str, Any]:
    """The file with every `#|` line switched on."""
    return parse(_VARIANT.sub(r"\1", file.read_text(encoding="utf-8")))


def parse(text: str) -> dict[str, Any]:
    content = copy.deepcopy(_parsed(text))
    assert isinstance(content, dict)
    return content


@cache
def _parsed(text: str) -> object:
    return yaml.safe_load(text)


AWS_FILES = [file for file in FILES if provider_of(file) == "aws"]


def node_types(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name; machines of one's own have no types, others some: what is asked of each is asked of something."""
    types = dict(config.get("available_node_types", {}))
    assert types or config["provider"]["type"] == "local"
    return types


def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The node types that are not the head's."""
    return {name: kind for name, kind in node_types(config).items() if name != config["head_node_type"]}


def is_spot(node_config: dict[str, Any]) -> bool:
    return bool(node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot")


def commands(config: dict[str, Any]) -> Iterator[str]:
    """Every shell command that the file sends to a node."""
    for part in (config, *node_types(config).values()):
        for name in COMMAND_LISTS:
            yield from part.get(name, [])


def command_scalars(text: str) -> Iterator[yaml.ScalarNode]:
    """The same commands as they stand in the text, with the way they are quoted."""

    def walk(node: yaml.Node | None, name: str) -> Iterator[yaml.ScalarNode]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from walk(value, key.value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item, name)
        elif isinstance(node, yaml.ScalarNode) and name in COMMAND_LISTS:
            yield node

    yield from walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
