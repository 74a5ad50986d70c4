"""The READMEs: their commands are accepted, their links lead somewhere, their figures are those that were measured."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from singer_ray import __main__ as front
from singer_ray import __version__
from singer_ray.cli import run_command
from singer_ray.config import Config, load_preset
from singer_ray.options.parsing import parse
from singer_ray.search.space.space import load_space
from tests.benchmarks import efficiency, refiners, severity

ROOT = Path(__file__).parents[1]
READMES = sorted(
    [
        ROOT / "README.md",
        *(p for top in ("clusters", "singer_ray", "tests", "tune_spaces") for p in (ROOT / top).rglob("README.md")),
    ]
)
ROOMS = ("clusters", "singer_ray/method", "singer_ray/publishing", "tests/benchmarks", "tune_spaces")
LONGEST = 140
"""Lines of the README that a newcomer reads."""


def text_of(readme: Path) -> str:
    return readme.read_text(encoding="utf-8")


def said_in(folder: str) -> str:
    """The README of a folder as one line."""
    return " ".join(text_of(ROOT / folder / "README.md").split())


def test_the_first_readme_is_short_and_leads_to_every_room() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) <= LONGEST
    assert f"singer_ray-{__version__}-py3-none-any.whl" in text
    assert [room for room in ROOMS if f"]({room}/README.md" not in text] == []


# Links


def slugs(readme: Path) -> set[str]:
    """The anchors that GitHub makes of a README's headings."""
    headings = re.findall(r"^#+ +(.+)$", without_blocks(text_of(readme)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_blocks(text: str) -> str:
    """A README without its fenced blocks: these hold Python, YAML and their comments."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_blocks(text_of(readme)))
    local = [link for link in links if not link.startswith(("https://", "http://"))]
    assert local or readme.parent.name not in {Path(room).name for room in ROOMS}
    for link in local:
        place, _, anchor = link.partition("#")
        target = (readme.parent / place).resolve() if place else readme
        assert target.exists(), link
        assert ROOT in target.parents, link
        assert not anchor or anchor in slugs(target), link


# Commands


def commands(readme: Path) -> Iterator[str]:
    """Command lines: of indented blocks, and in backquotes."""
    text = without_blocks(text_of(readme)).replace("\\\n", " ")
    block = re.compile(r"^ {4,}(\S.*)$", re.MULTILINE)
    yield from (" ".join(line.split()) for line in block.findall(text))
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", block.sub("", text)))


def unique(start: str) -> list[str]:
    """The commands of all READMEs that begin so, each once."""
    return sorted({line for readme in READMES for line in commands(readme) if line.startswith(start)})


def product_commands() -> list[str]:
    """Those of singer_ray, also where one is handed to a cluster in quotes."""
    handed = re.findall(r"'(python -m singer_ray[^']*)'", "\n".join(unique("ray exec")))
    return sorted({*unique("python -m singer_ray"), *handed})


DRY = ("train", "tune", "analyze", "teacher", "digits")


@pytest.fixture
def own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_tree: Callable[..., Path]
) -> Callable[[str], Path]:
    """The working directory of a user who is about to type a command: images, a space, and what was made before."""

    def prepare(line: str) -> Path:
        for split in ("train", "val"):
            image_tree(f"IMAGES/{split}", {"cat": 3, "dog": 3})
        (tmp_path / "my_space.yaml").write_text(own_space())
        if "--preset digits" in line:
            for split in ("train", "val", "test"):
                image_tree(f"runs/digits/{split}", {"0": 2, "1": 2})
            if "teacher" not in line:
                made = tmp_path / "runs" / "digits-teacher" / "clean"
                (teacher,) = ROOT.glob("singer_ray/*/demo_teacher/clean")
                shutil.copytree(teacher, made)
        if "runs/vitt/config.yaml" in line:
            folders = {"data.train": "IMAGES/train", "data.val": "IMAGES/val"}
            config = load_preset("imagenet-vitl-vitt").override(folders)
            (tmp_path / "runs" / "vitt").mkdir(parents=True)
            (tmp_path / "runs" / "vitt" / "config.yaml").write_text(config.to_yaml())
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize("line", product_commands())
def test_commands_are_accepted(
    line: str, own_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --dry-run where neither an earlier run nor S3 is needed, else as far as the command line is read."""
    own_folder(line)
    _, _, module, *words = shlex.split(line, comments=True)
    package, _, name = module.partition(".")
    assert package == "singer_ray"
    if not name:
        assert front.main(words) == 0
        return
    door: Any = importlib.import_module(module)
    # A dry run asks an address in S3 whether it can be written: no test may.
    if name in DRY and not {"--resume", "--status"} & set(words) and "s3://" not in line:
        assert run_command(door.COMMAND, door.main, [*words, "--dry-run"]) == 0, capsys.readouterr().err
        assert "# would" in capsys.readouterr().out
    else:
        config, _ = parse(door.COMMAND, words)
        assert isinstance(config, Config)


def test_there_are_commands_to_check() -> None:
    doors = {re.split(r"[ .]", line)[3] for line in product_commands() if line.startswith("python -m singer_ray.")}
    assert doors == {*front.COMMANDS}
    assert len(unique("python -m tests.")) >= 10
    assert len(unique("make ")) >= 3
    assert len(unique("ray ")) >= 4


@pytest.mark.parametrize("line", unique("python -m tests."))
def test_benchmarks_exist_with_their_options(line: str) -> None:
    _, _, module, *words = shlex.split(line)
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    assert f"python -m {module}" in source
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []


def test_make_has_what_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {line.split()[1] for line in unique("make ")}
    assert named <= targets


def test_clusters_are_started_from_files_that_exist() -> None:
    files = {word for line in unique("ray ") for word in line.split() if word.endswith(".yaml")}
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


# Search spaces of one's own


def own_space() -> str:
    """The example of tune_spaces/README.md."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text_of(ROOT / "tune_spaces" / "README.md"), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_example_space_shows_every_key(tmp_path: Path) -> None:
    file = tmp_path / "my_space.yaml"
    file.write_text(own_space())
    space = load_space(str(file), load_preset("demo"), frozenset())
    shown = yaml.safe_load(own_space())
    assert {value["type"] for value in shown.values() if isinstance(value, dict) and "type" in value} == {
        "choice",
        "int",
        "uniform",
        "loguniform",
    }
    assert space.fixed
    assert len(space.enqueue) == len(shown["enqueue"])
    keys = {key for value in shown.values() if isinstance(value, dict) for key in value}
    assert {"when", "step", "log", "low", "high", "values"} <= keys
    assert all(f"`{key}`" in said_in("tune_spaces") for key in ("fixed", "enqueue", "values", "low", "high"))


def test_every_shipped_space_is_described() -> None:
    names = {file.stem for file in (ROOT / "tune_spaces").glob("*.yaml")}
    first_cells = {row[0].split()[0].strip("`") for row in table(text_of(ROOT / "tune_spaces" / "README.md"))}
    assert len(names) >= 6
    assert names <= first_cells


# Figures


def raw(name: str) -> Any:
    return json.loads((ROOT / "tests" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def figures(name: str) -> Any:
    return raw(name)["metrics"]


def short(number: float, digits: int = 2) -> str:
    """A number of at most so many decimals, without the zero before the point."""
    return re.sub(r"^0\.", ".", f"{number:.{digits}f}")


def brief(number: float) -> str:
    return short(number).rstrip("0").rstrip(".")


def table(text: str) -> list[list[str]]:
    """The rows of all tables in a text, cell by cell."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows]


def remedy_row(name: str) -> list[str]:
    """test mIoU, linear probe and depth RMSE at 300 steps, and mIoU at 900 where it was measured."""
    by_seed = figures("refiners").values()

    def cell(run: str, metric: str) -> str:
        values = [metrics[run][f"test/{metric}"] for metrics in by_seed]
        return f"{short(statistics.mean(values), 3)} ± {short(statistics.stdev(values), 3)}"

    row = [cell(f"{name} 300", metric) for metric in ("miou", "linear_top1", "depth_rmse")]
    return [*row, cell(f"{name} 900", "miou")] if all(f"{name} 900" in metrics for metrics in by_seed) else row


def test_the_table_of_remedies_is_what_was_measured() -> None:
    rows = [[cell for cell in row[1:] if cell] for row in table(text_of(ROOT / "tests" / "benchmarks" / "README.md"))]
    measured = {run.rpartition(" ")[0] for metrics in figures("refiners").values() for run in metrics}
    assert len(measured) >= 12
    for name in measured:
        assert remedy_row(name) in rows, name
    headline = [row[1:] for row in table(text_of(ROOT / "README.md"))]
    for name in ("none", "clip", "layernorm", "singer fitted, trained on", "oracle"):
        assert remedy_row(name) in headline, name


def test_the_gap_that_is_closed_is_what_was_measured() -> None:
    by_seed = figures("refiners").values()
    shares = {n: [100 * refiners.gap_closed(m, "singer fitted, trained on", n) for m in by_seed] for n in (300, 900)}
    at = {n: f"{statistics.mean(v):.0f} ± {statistics.stdev(v):.0f} %" for n, v in shares.items()}
    assert f"closes {at[300]} of the gap to the clean teacher ({at[900]} at 900 steps" in said_in(".")
    assert f"closes {at[300]} of the gap between plain distillation" in said_in("tests/benchmarks")
    assert f"at 300 steps, and {at[900]} at 900 (validation mIoU)" in said_in("tests/benchmarks")
    assert f"closes {at[300]} of the gap" in said_in("singer_ray/method")


def test_the_table_of_kinds_of_artifacts_is_what_was_measured() -> None:
    rows = table(text_of(ROOT / "tests" / "benchmarks" / "README.md"))
    columns = ("none", "clip", "layernorm", "singer fitted, no radial part", "singer fitted")
    for share, units in severity.CELLS:
        cell = figures("severity")[f"{share:g}-{units}"]
        name = f"{share:.0%} of the background, {units} direction{'s' * (units > 1)}"
        assert [name, *(short(cell[column]["test/miou"]) for column in columns)] in rows


def test_the_tables_of_acceptance_and_linearizations_are_what_was_measured() -> None:
    rows = table(text_of(ROOT / "tests" / "benchmarks" / "README.md"))
    accepted: Mapping[str, Mapping[str, float]] = raw("acceptance")["figures"]
    for seed, found in accepted.items():
        gains = [short(found[name], 3) for name in ("miou_gain", "linear_gain", "depth_ratio")]
        ratios = f"{found['teacher_max_median']:.1f}, {found['refined_max_median']:.1f}"
        assert [seed, *gains, ratios, short(found["gap_closed"])] in rows
    ratios_by_seed = raw("linearizations")["ratios"].values()
    for kind in ("mlp", "attention_mlp", "jacobian", "pca"):
        cells = [short(statistics.mean(s[f"{kind} {rank}"] for s in ratios_by_seed)) for rank in (4, 16, 32)]
        assert [row for row in rows if row[0].startswith(f"`{kind}`") and row[1:] == cells], kind


def test_what_a_refiner_changes_is_what_was_measured() -> None:
    text, kept = said_in("singer_ray/method"), raw("linearizations")["kept"]
    fitted, clip = kept["singer, recommended: fitted"], kept["clip: start"]
    assert f"by {short(fitted['branch_change/3'])} (relative, layer 3; `clip` {short(clip['branch_change/3'])})" in text
    normal, gram = ([short(fitted[f"{name}_change/{n}"]) for n in (3, 5)] for name in ("normal", "gram"))
    assert f"by {normal[0]} of their size at layer 3, {normal[1]} at the last" in text
    assert f"changes by {gram[0]} and {gram[1]}" in text


def test_what_a_search_costs_is_what_was_measured() -> None:
    overhead, simulated, text = figures("overhead")["figures"], figures("simulated"), said_in("tests/benchmarks")
    assert f"a host's first trial takes {overhead['first']:.0f} s more than the bare loop (imports)" in text
    assert f"each later one {brief(round(overhead['later'], 1))} s more" in text
    start, forecast = overhead["start_up"], overhead["forecast"]
    assert f"Ray starts for {start:.0f} s and a few steps are timed for {forecast:.0f} s" in text
    assert f"packages and report take {overhead['after_the_last_trial']:.0f} s" in text
    tpe, gp = (simulated["suggestions"][f"{name} 500"]["median"] for name in ("tpe", "gp"))
    assert f"a TPE suggestion takes {1000 * tpe:.0f} ms, one of GP {brief(gp)} s" in text
    assert f"book-keeping adds {1000 * simulated['added']['added']:.0f} ms a trial" in text


def test_what_a_search_gains_is_what_was_measured() -> None:
    measured = json.loads(efficiency.RAW.read_text(encoding="utf-8"))["metrics"]
    assert efficiency.as_markdown(measured) in text_of(ROOT / "tests" / "benchmarks" / "README.md")


def test_what_publishing_was_put_through_is_what_was_measured() -> None:
    text, faults, s3rver = said_in("tests/benchmarks"), figures("publish_faults")["all"], figures("s3rver")
    assert f"goes up at {brief(figures('upload')['store']['share_of_boto3'])} of the speed of boto3's own" in text
    assert f"After {faults['seeds']} seeded faults" in text
    assert s3rver["rounds_by_winners"] == {"1": s3rver["rounds"]}
    assert f"exactly one won, {s3rver['rounds']} times out of {s3rver['rounds']}" in text
    differences = figures("elsewhere")["differences"]
    assert max(value for name, value in differences.items() if "onnx" in name) < 3e-6
    assert {value for name, value in differences.items() if "onnx" not in name} == {0.0}
