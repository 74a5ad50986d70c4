"""The floors of the house: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import singer_ray

ROOT = Path(singer_ray.__file__).parent
Floors = Sequence[set[str]]
FLOORS: Floors = [
    {"errors", "layout", "metrics", "resources", "settings"},
    {"images", "refiner_settings", "storage"},
    {"config", "console", "tracking"},
    {"data", "nodes", "options", "vision"},
    {"method"},
    {"evaluation"},
    {"training"},
    {"publishing"},
    {"analysis", "demo", "distillation", "search"},
    {"reporting"},
    {"finalize"},
    {"arguments", "cli"},
    {"api", "measuring"},
    {"analyze", "digits", "evaluate", "export", "report", "teacher", "train", "tune"},
]
"""From the ground up: a unit imports only units of lower floors. The last are the commands."""
WITHIN: Mapping[str, Sequence[str]] = {
    "refiner_settings": (
        "method/refiners/__init__.py",
        "method/refiners/description.py",
        "method/refiners/*/__init__.py",
        "method/refiners/*/settings.py",
    )
}
"""Units that lie in another's folder, by their files: a refiner's settings are below the configuration."""
SEARCH: Floors = [{name} for name in ("space", "study", "strategy", "state", "watch", "workers", "driver")]
"""The rooms of search/, likewise."""
REPORTING: Floors = [{"text"}, {"reading"}, {"page"}]
"""Those of reporting/: what is read knows nothing of the page."""
PAGE: Floors = [
    {"style"},
    {"markup", "points", "sheet"},
    {"parameter_figures", "pareto_figures", "sections", "tables", "trial_figures"},
    {"run_page", "search_page"},
]
ROOF = {"__init__", "__main__"}
CORE = ("images", "data", "vision", "method", "evaluation", "analysis", "tracking", "demo")
WITH_RAY = ("launch.py", "messages.py")
"""Of training/."""


def sources(folder: Path) -> list[Path]:
    """All Python files below a folder. There is no rule for an empty one: that is a mistake in the rule."""
    found = sorted(folder.rglob("*.py"))
    assert found, f"{folder} holds no Python files"
    return found


def imports(path: Path, *, typing_too: bool = True) -> set[str]:
    """Names of the modules that a file imports, in functions too; if asked, without those of type checkers."""

    def visit(node: ast.AST) -> Iterator[str]:
        if not typing_too and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return set(visit(ast.parse(path.read_text())))


def unit_of(path: Path, within: Mapping[str, Sequence[str]]) -> str:
    """Of a file, or of a module as a path without suffix, both relative to the package."""
    inner = [name for name, patterns in within.items() if any(path.match(pattern) for pattern in patterns)]
    return inner[0] if inner else path.parts[0].removesuffix(".py")


def arrows_up(folder: Path, package: str, floors: Floors, within: Mapping[str, Sequence[str]] = {}) -> list[str]:
    """What is wrong with the units (files and folders) of a package, in words."""
    level = {name: n for n, names in enumerate(floors) for name in names}
    files = {path.relative_to(folder) for path in sources(folder)}

    def unit(module: str) -> str:
        """Of what is imported: a module, a package, or a name in one of them."""
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            for path in (Path(*parts[:end]).with_suffix(".py"), Path(*parts[:end], "__init__.py")):
                if path in files:
                    return unit_of(path, within or {})
        return parts[0]

    there = {unit_of(path, within or {}) for path in files} - ROOF
    wrong = [f"{name} has no floor" for name in there - set(level)]
    wrong += [f"{name} is not there any more" for name in set(level) - there]
    for path in sources(folder):
        here = unit_of(path.relative_to(folder), within or {})
        below = [m.removeprefix(f"{package}.") for m in imports(path, typing_too=False) if m.startswith(f"{package}.")]
        for other in {unit(module) for module in below} - {here}:
            if here in level and other in level and level[other] >= level[here]:
                wrong.append(f"{path.relative_to(folder)} imports {other}, which is not below {here}")
    return sorted(wrong)


def circles(folder: Path, package: str) -> list[str]:
    """Modules that import each other, in words; the imports of functions count, those of type checkers do not."""
    known = {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sources(folder)
    }
    graph = {name: imports(path, typing_too=False) & set(known) - {name} for name, path in known.items()}
    wrong, done = [], set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            wrong.append(" -> ".join((*way[way.index(name) :], name)))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return wrong


def test_arrows_point_down() -> None:
    assert not arrows_up(ROOT, "singer_ray", FLOORS, WITHIN)


def test_the_rooms_of_the_search_import_only_those_above_them_in_the_list() -> None:
    assert not arrows_up(ROOT / "search", "singer_ray.search", SEARCH)


def test_what_is_read_for_a_report_knows_nothing_of_the_page() -> None:
    assert not arrows_up(ROOT / "reporting", "singer_ray.reporting", REPORTING)
    assert not arrows_up(ROOT / "reporting" / "page", "singer_ray.reporting.page", PAGE)


def test_no_modules_import_each_other() -> None:
    assert not circles(ROOT, "singer_ray")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, []),
        ({"low/a.py": "from house.high import b"}, ["low/a.py imports high, which is not below low"]),
        ({"low/a.py": "def f():\n    import house.high.b"}, ["low/a.py imports high, which is not below low"]),
        ({"low/deep/er.py": "from house.high.b import x"}, ["low/deep/er.py imports high, which is not below low"]),
        ({"side.py": "from house.high.b import x"}, ["side.py imports high, which is not below side"]),
        ({"attic/a.py": ""}, ["attic has no floor"]),
        ({"attic.py": "from house.low import a"}, ["attic has no floor"]),
        ({"side.py": None}, ["side is not there any more"]),
        ({"low/a.py": "if TYPE_CHECKING:\n    from house.high import b"}, []),
    ],
)
def test_each_fault_is_seen(tmp_path: Path, files: dict[str, str | None], said: list[str]) -> None:
    house = {"__init__.py": "", "low/a.py": "", "high/b.py": "from house.low import a", "side.py": "import house.low.a"}
    build(tmp_path, house | files)
    assert arrows_up(tmp_path, "house", [{"low"}, {"high", "side"}]) == said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.py": "from house.b import x", "b.py": ""}, 0),
        ({"a.py": "from house.b import x", "b.py": "import house.a"}, 1),
        ({"a.py": "from house.b import x", "b.py": "from house import c", "c.py": "def f():\n    import house.a"}, 1),
        ({"room/a.py": "from house.room import b", "room/b.py": "from house.room.a import x"}, 1),
        ({"a.py": "from house.b import x", "b.py": "if TYPE_CHECKING:\n    import house.a"}, 0),
    ],
)
def test_circles_are_seen(tmp_path: Path, files: dict[str, str], said: int) -> None:
    build(tmp_path, files)
    assert len(circles(tmp_path, "house")) == said


def test_a_rule_for_a_folder_that_is_empty_or_gone_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="holds no Python files"):
        sources(tmp_path / "search")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, []),
        ({"low.py": "from house.high.room import names"}, []),
        ({"low.py": "from house.high.room.a import refiner"}, ["low.py imports high, which is not below low"]),
        ({"low.py": "from house.high import base"}, ["low.py imports high, which is not below low"]),
        (
            {"high/room/a/settings.py": "from house.low import x"},
            ["high/room/a/settings.py imports low, which is not below ground"],
        ),
        (
            {"high/room/a/settings.py": "import house.high.base"},
            ["high/room/a/settings.py imports high, which is not below ground"],
        ),
    ],
)
def test_a_unit_within_the_folder_of_another_has_its_own_floor(
    tmp_path: Path, files: dict[str, str], said: list[str]
) -> None:
    house = {
        "low.py": "from house.high.room.a.settings import x",
        "high/__init__.py": "",
        "high/base.py": "",
        "high/room/__init__.py": "",
        "high/room/a/__init__.py": "",
        "high/room/a/settings.py": "",
        "high/room/a/refiner.py": "from house.low import x\nfrom house.high import base",
    }
    build(tmp_path, house | files)
    within = {"ground": ("high/room/__init__.py", "high/room/*/__init__.py", "high/room/*/settings.py")}
    assert arrows_up(tmp_path, "house", [{"ground"}, {"low"}, {"high"}], within) == said


def build(folder: Path, files: Mapping[str, str | None]) -> None:
    for name, text in files.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


@pytest.mark.parametrize(
    "path",
    [
        *(path for room in CORE for path in sources(ROOT / room)),
        *(path for path in sources(ROOT / "training") if path.name not in WITH_RAY),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_core_does_not_name_ray(path: Path) -> None:
    assert not {module for module in imports(path) if module.split(".")[0] == "ray"}


@pytest.mark.parametrize(
    "path",
    [*sources(ROOT / "search"), *sources(ROOT / "nodes"), *(ROOT / "training" / name for name in WITH_RAY)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_ray_code_holds_no_loss_maths(path: Path) -> None:
    assert not {m for m in imports(path) if m.startswith(("singer_ray.method", "torch.nn.functional"))}


@pytest.mark.slow
def test_the_core_runs_with_torch_and_timm_alone() -> None:
    """Ray, pydantic and what else the commands need are hidden; a step is trained."""
    program = """
import sys
for name in ("ray", "pydantic", "optuna", "rich", "pandas", "pyarrow", "boto3"):
    sys.modules[name] = None
import torch
from types import SimpleNamespace as Settings
import timm
from singer_ray.method.distiller import Distiller
from singer_ray.method.refiners.registry import REFINERS
from singer_ray.vision.models import load_teacher
from singer_ray.vision.tapped import TappedViT
teacher = TappedViT(load_teacher("demo", 32), [3, 4, 5])  # 4: the next block of 3, which the adapter must not disturb
student = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3)
student = TappedViT(student, [1, 2])
loss = Settings(kd=1.0, outlier=0.1, info=50.0)
method = Settings(rank=4, strength=1.0, gate=0.0, radial=False, outlier_quantile=0.95, start_from="attention_mlp")
method.freeze, method.adapter_learns = False, True
method.jacobian_probes = 8
method.loss = loss
refiner = REFINERS["singer"](teacher, (3, 5), method)
distiller = Distiller(student, (1, 2), teacher, (3, 5), refiner, (teacher.grid(32), student.grid(32)),
                      kd_weight=1.0, detach=True)
pixels = torch.randn(2, 3, 32, 32)
features = teacher(pixels)
distiller.calibrate({3: 1.0, 5: 1.0})
loss = distiller(pixels, features, teacher.replay)["loss"]
loss.backward()
print(float(loss))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
