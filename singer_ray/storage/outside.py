"""JSON and YAML from outside: read within limits, or refused in one line.

A file of a few hundred bytes may expand to gigabytes (YAML aliases), crash the interpreter (100,000 brackets) or raise
errors of a dozen kinds (dates, numbers of 5,000 digits). What passes here is small, shallow and plain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from singer_ray.errors import UserError, printable

LARGEST_JSON, LARGEST_YAML = 64 << 20, 4 << 20
"""Bytes. YAML is parsed by Python code, a hundred times slower."""
DEEPEST = 50
"""Levels of nested lists and mappings."""
MOST_VALUES = 200_000
"""Values in a YAML file, aliases expanded."""
LONGEST_NUMBER = 1024
"""Bits of an integer."""
_MEND = "Mend or replace the file."


def read_json(content: bytes | str, where: str, advice: str = _MEND) -> Any:
    """Parses a JSON text. Raises UserError, which names `where` and ends with `advice`."""
    if len(content) > LARGEST_JSON:
        raise _refused(where, f"has {len(content)} bytes; {LARGEST_JSON} at most", advice)
    try:
        tree = json.loads(content)
    except RecursionError as error:
        raise _refused(where, f"is nested more than {DEEPEST} levels deep", advice) from error
    except ValueError as error:  # truncated, not UTF-8, numbers of thousands of digits
        raise _refused(where, f"is not valid JSON: {_why(error)}", advice) from error
    _check(tree, where, advice)
    return tree


def read_json_mapping(content: bytes | str, where: str, advice: str = _MEND) -> dict[str, Any]:
    """Parses a JSON mapping. Raises UserError as `read_json` does, and when the text holds anything else."""
    tree = read_json(content, where, advice)
    if not isinstance(tree, dict):
        raise _refused(where, f"holds {_kind(tree)}, not a mapping", advice)
    return tree


def read_yaml(content: bytes | str, where: str, advice: str = "Fix it there.") -> Any:
    """Parses a YAML text; None for an empty one. Raises UserError as `read_json` does."""
    if len(content) > LARGEST_YAML:
        raise _refused(where, f"has {len(content)} bytes; {LARGEST_YAML} at most", advice)
    loader = None
    try:
        loader = _Loader(content.decode("utf-8") if isinstance(content, bytes) else content)
        node = loader.get_single_node()
        if node is None:
            return None
        _Sizes(where, advice).of(node)
        tree = loader.construct_document(node)
    except UserError:
        raise
    except RecursionError as error:
        raise _refused(where, f"is nested more than {DEEPEST} levels deep", advice) from error
    except UnicodeDecodeError as error:
        raise _refused(where, f"cannot be read: {_why(error)}", "Give a text file in YAML.") from error
    except Exception as error:  # from the parser, and from Python's own dates, numbers and keys
        raise _refused(where, f"is not valid YAML: {_why(error)}", advice) from error
    finally:
        if loader is not None:
            loader.dispose()
    _check(tree, where, advice)
    return tree


class _Loader(yaml.SafeLoader):
    """Stops at a depth that no file of ours reaches, before the parser hits Python's recursion limit."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise RecursionError
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Sizes:
    """Counts the values in a node, aliases expanded."""

    def __init__(self, where: str, advice: str) -> None:
        self.where, self.advice = where, advice
        self.known: dict[int, int] = {}
        self.open: set[int] = set()

    def of(self, node: Any) -> int:
        key = id(node)
        if key in self.known:
            return self.known[key]
        if key in self.open:
            raise _refused(self.where, "holds itself by an alias", self.advice)
        self.open.add(key)
        size = 1 + sum(self.of(inner) for inner in _inner(node))
        self.open.discard(key)
        if size > MOST_VALUES:
            raise _refused(
                self.where, f"stands for more than {MOST_VALUES} values, aliases counted as what they name", self.advice
            )
        self.known[key] = size
        return size


def _inner(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _check(tree: Any, where: str, advice: str) -> None:
    """Raises UserError for nesting that is too deep, or a number too large to be written."""
    level = [tree]
    for _ in range(DEEPEST + 1):
        if not level:
            return
        further: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                further += value.keys()
                further += value.values()
            elif isinstance(value, (list, tuple, set)):
                further += value
            elif isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
                raise _refused(where, "holds a whole number of more than 300 digits", advice)
        level = further
    raise _refused(where, f"is nested more than {DEEPEST} levels deep", advice)


def _refused(where: str, why: str, advice: str) -> UserError:
    return UserError(f"{printable(where)} {why}. {advice}")


def _why(error: Exception) -> str:
    text = str(error).replace('in "<unicode string>", ', "")
    return printable(text).rstrip(".") or type(error).__name__


def _kind(tree: Any) -> str:
    kinds = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        type(None): "null",
    }
    return kinds.get(type(tree), f"a {type(tree).__name__}")
