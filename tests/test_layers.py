"""The floors of the house: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import singer_ray

ROOT = Path(singer_ray.__file__).parent
FLOORS = [
    {
        "cluster_limits",
        "errors",
        "outputs",
        "prices",
        "printing",
        "resources",
        "storage",
        "terminal",
        "wording",
    },
    {"config", "tracking"},
    {"data", "vision"},
    {"method", "evaluation"},
    {"publishing", "training", "ray_cluster", "ray_start"},
    {"distillation", "search", "analysis"},
    {"reporting"},
    {"conclusion"},
    {"options"},
    {"cli"},
    {"api", "arguments", "measuring"},
]
"""From the ground up; the commands stand above all."""
CORE = ("data", "vision", "method", "evaluation", "analysis", "tracking")
RAY_FREE = [
    *(p for folder in CORE for p in sorted((ROOT / folder).rglob("*.py"))),
    *(p for p in sorted((ROOT / "training").glob("*.py")) if p.name not in ("launch.py", "messages.py")),
]


def imports(path: Path, *, typing_too: bool = True) -> set[str]:
    """Names of the modules that a file imports; without those that only type checkers see when asked."""
    tree = ast.parse(path.read_text())
    if not typing_too:
        tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor(name: str) -> int:
    return next((n for n, modules in enumerate(FLOORS) if name in modules), len(FLOORS))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if home == "__init__":
        return
    for module in imports(path, typing_too=False):
        parts = module.split(".")
        if parts[0] == "singer_ray" and len(parts) > 1 and parts[1] != home and parts[1] != "__version__":
            assert floor(parts[1]) <= floor(home), f"{path.relative_to(ROOT)} reaches up to {module}"


@pytest.mark.parametrize("path", RAY_FREE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_does_not_name_ray(path: Path) -> None:
    assert not {module for module in imports(path) if module.split(".")[0] == "ray"}


def test_ray_code_holds_no_loss_maths() -> None:
    for path in [
        *ROOT.glob("search/*.py"),
        *ROOT.glob("ray_*.py"),
        *(ROOT / "training" / f"{n}.py" for n in ("launch", "messages")),
    ]:
        assert not {m for m in imports(path) if m.startswith(("singer_ray.method", "torch.nn.functional"))}, path


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
from singer_ray.method.refiners import REFINERS
from singer_ray.vision.models import load_teacher
from singer_ray.vision.tapped import TappedViT
teacher = TappedViT(load_teacher("demo", 32), [3, 4, 5])  # 4: the next block of 3, which the adapter must not disturb
student = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3)
student = TappedViT(student, [1, 2])
loss = Settings(kd=1.0, outlier=0.1, info=50.0)
method = Settings(rank=4, strength=1.0, gate=0.0, radial=False, outlier_quantile=0.95, linearization="auto")
method.jacobian_probes = 8
method.loss = loss
refiner = REFINERS["singer"](teacher, (3, 5), method)
distiller = Distiller(student, (1, 2), teacher, (3, 5), refiner, (teacher.grid(32), student.grid(32)),
                      kd_weight=1.0, detach=True)
pixels = torch.randn(2, 3, 32, 32)
taps = teacher(pixels)
refiner.calibrate({3: 1.0, 5: 1.0})
loss = distiller(pixels, taps, teacher.replay)["loss"]
loss.backward()
print(float(loss))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
