"""What is shown of texts that come from outside."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from singer_ray.console.terminal import Terminal
from singer_ray.errors import UserError, code, first_line, markdown, printable, root_cause, shown, user_error_in


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("caf\u00e9 \u65e5", "caf\u00e9 \u65e5"),
        ("two\nlines\tand  more", "two lines and more"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bad\udce9name", "bad\\udce9name"),
        ("right\u202eleft", "right\\u202eleft"),
        (["list"], "['list']"),
    ],
)
def test_it_is_one_harmless_line(given: object, shown: str) -> None:
    assert printable(given) == shown


def test_it_is_short() -> None:
    assert len(printable("x" * 10_000_000)) < 320
    assert printable("a" * 200 + "b" * 200, limit=100).startswith("aaa")
    assert printable("a" * 200 + "b" * 200, limit=100).endswith("bbb")


def test_a_value_is_short_however_large_it_is() -> None:
    for value in ("x" * 10_000_000, [["x"] * 1000] * 1000, 10**6000, {n: "y" * 5000 for n in range(1000)}):
        assert len(shown(value)) <= 320
    assert shown("a'\x1b") == '"a\'\\x1b"'


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("a | b\n\n# c", "a \\| b # c"),
        ("[x](http://y)<script>", "\\[x\\](http://y)\\<script\\>"),
        ("**bold** _it_ `code`", "\\*\\*bold\\*\\* \\_it\\_ \\`code\\`"),
        ("# head", "\\# head"),
    ],
)
def test_markdown_shows_it_as_it_is(given: str, kept: str) -> None:
    assert markdown(given) == kept


@pytest.mark.parametrize(
    ("given", "kept"), [("a_b", "`a_b`"), ("a`b", "`` a`b ``"), ("a|b", "`a\u00a6b`"), ("", "`  `"), ("a\nb", "`a b`")]
)
def test_code_ends_where_it_ends(given: str, kept: str) -> None:
    assert code(given) == kept


def test_a_terminal_shows_texts_as_they_are() -> None:
    screen = io.StringIO()
    terminal = Terminal(file=screen, width=80, force_terminal=False)
    table = Table("[/head]", title="[bold]title")
    table.add_row("[red]cell \x1b[2J :smile:")
    terminal.print("runs/[a]/[/x] \x1b]0;title\x07 \u202e", highlight=False)
    terminal.print(table)
    text = screen.getvalue()
    for kept in ("runs/[a]/[/x] \\x1b]0;title\\x07 \\u202e", "[/head]", "[bold]title", "[red]cell \\x1b[2J :smile:"):
        assert kept in text
    assert "\x1b" not in text


class CarriedError(Exception):
    """As Ray's errors are: with what failed elsewhere under `cause`, or by rank."""

    def __init__(self, cause: Exception | None = None, failures: dict[int, Exception] | None = None) -> None:
        super().__init__("Traceback\nof a worker")
        self.cause, self.worker_failures = cause, failures or {}


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        UserError("no images in x"),
        CarriedError(UserError("no images in x")),
        CarriedError(failures={0: CarriedError(ValueError()), 1: CarriedError(UserError("no images in x"))}),
        raised_from(RuntimeError(), raised_from(CarriedError(OSError()), UserError("no images in x"))),
    ],
)
def test_what_a_user_can_mend_is_found_behind_whatever_carried_it(error: Exception) -> None:
    found = user_error_in(error)
    assert type(found) is UserError
    assert str(found) == "no images in x"


def test_an_error_with_nothing_to_mend_behind_it_is_given_back() -> None:
    error = CarriedError(ValueError(), {0: OSError()})
    assert user_error_in(error) is error


def test_the_root_cause_is_what_was_raised_first() -> None:
    first = ValueError("loss is nan")
    assert root_cause(first) is first
    assert root_cause(CarriedError(raised_from(RuntimeError(), first))) is first
    assert root_cause(CarriedError(None, {0: CarriedError(first), 1: OSError()})) is first


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no room.\nTraceback"), "no room"),
        (ValueError("\n  \n  no room at all. \n"), "no room at all"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "'x'"),
    ],
)
def test_the_first_line_of_an_error_says_something(error: Exception, line: str) -> None:
    assert first_line(error) == line
