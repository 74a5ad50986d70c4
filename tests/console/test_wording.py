"""Commands survive being copied into a shell, and functions speak of their arguments."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from singer_ray import distill, sweep
from singer_ray.console.wording import command, in_python
from singer_ray.errors import UserError
from singer_ray.nodes.submit import how_to
from singer_ray.search.state.resume_rules import resume_command

PLACES = ["runs/search", "/a b/c  d", "it's [here]", "~/x", "möbel 日", 'a$HOME`b`"c"', "s3://bucket/try#2?x=1&y"]


@pytest.mark.parametrize("place", PLACES)
def test_a_command_is_read_by_a_shell_as_it_was_meant(place: str) -> None:
    for line in (resume_command(place, ()), command("export", "--pull", place, "DIR")):
        words = subprocess.run(
            ["sh", "-c", f"set -- {line}; printf '%s\\n' \"$@\""], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert words == shlex.split(line)
        assert place in words
    follow, stop = how_to("http://head:8265/a b", "my job").removeprefix("Follow it: ").split("   Stop it: ")
    assert shlex.split(follow) == ["ray", "job", "logs", "--follow", "--address", "http://head:8265/a b", "my job"]
    assert shlex.split(stop) == ["ray", "job", "stop", "--address", "http://head:8265/a b", "my job"]


@pytest.mark.parametrize("place", PLACES)
def test_in_python_a_search_goes_on_by_a_call(place: str) -> None:
    said = in_python(f"interrupted. Go on with: {resume_command(place, ())}")
    assert said == f"interrupted. Go on with: singer_ray.sweep(resume={place!r})"
    assert in_python(f"Mend it ({resume_command(place, ())}).") == f"Mend it (singer_ray.sweep(resume={place!r}))."


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "--out /x y is not empty. Give another folder, or --overwrite to replace the result in it.",
            "`out` /x y is not empty. Give another folder, or `overwrite=True` to replace the result in it.",
        ),
        (
            "Lower --concurrent, --workers or search.cpus_per_trial.",
            "Lower `search.concurrent`, `train.workers` or search.cpus_per_trial.",
        ),
        ("model.onnx needs ...; or --export.onnx no.", "model.onnx needs ...; or export.onnx no."),
        ("Allowed: --search.trials, --search.time_budget.", "Allowed: search.trials, search.time_budget."),
        ("`python -m singer_ray.tune --help` lists all.", "`python -m singer_ray.tune --help` lists all."),
        ("a -- b, non--option, x--y", "a -- b, non--option, x--y"),
    ],
)
def test_options_become_arguments_and_settings(said: str, meant: str) -> None:
    assert in_python(said) == meant


def test_functions_name_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"^`out` .* is not empty\. .* `overwrite=True`"):
        distill(out=tmp_path)
    with pytest.raises(UserError, match=r"^`out` .* will not delete them|^`out`.*`overwrite=True` will not") as caught:
        sweep(out=tmp_path, overwrite=True)
    assert "--" not in str(caught.value)
    with pytest.raises(UserError, match=r"^`preset` 'dmo' is neither"):
        distill(out=tmp_path / "new", preset="dmo")


def test_the_words_need_no_torch() -> None:
    check = "import sys, singer_ray.console.wording, singer_ray.console.terminal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
