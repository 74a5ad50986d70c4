"""The Python example of README, run as a script."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[1]


SMALL_THINGS = """
import timm
import torch
from torch.utils.data import TensorDataset

def own():
    class Stripes:
        def __init__(self, count, seed):
            draw = torch.Generator().manual_seed(seed)
            self.labels = torch.randint(0, 2, (count,), generator=draw)
            self.noise = torch.rand((count, 3, 32, 32), generator=draw) / 4

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, i):
            stripes = (torch.arange(32) // 4 % 2 * 0.7).expand(3, 32, 32)
            return (stripes if self.labels[i] else stripes.mT) + self.noise[i], self.labels[i]

    return {"train": Stripes(32, 0), "val": Stripes(20, 1), "test": Stripes(20, 2)}

torch.manual_seed(0)
my_teacher = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=4)
data = own()
common = {"preset": "demo", "settings": SETTINGS}
space = {"method.rank": {"type": "int", "low": 1, "high": 8}}
trials = 1
print("the script runs")
"""


def python_example() -> tuple[str, str]:
    """What is the user's own in README's example, and what is done with it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yours, mark, rest = block.partition("\n# What you can do with it")
    assert mark
    return yours, f"{mark}{rest}"


def assigned(program: str) -> set[str]:
    """The names that a program's outermost statements set."""
    targets = [t for node in ast.parse(program).body if isinstance(node, ast.Assign) for t in node.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_python_example_runs_as_a_script(tmp_path: Path) -> None:
    """As it stands, on small things of one's own: floating-point images, labels without names, a local class."""
    yours, done_with_it = python_example()
    settings = {name: value for name, value in SMALL.items() if "scenes" not in name} | {
        "train.epochs": 1,
        "train.batch_size": 4,
        "teacher.layers": [2, 3],
        "evaluation.fit_images": 32,
    }
    small = SMALL_THINGS.replace("SETTINGS", repr(settings))
    assert assigned(yours) == assigned(small)
    script = tmp_path / "mine.py"
    script.write_text(small + done_with_it)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1
    assert done.stdout.count("Stripes: images have floating-point values, taken as 0 (black) to 1 (white)") >= 1
    assert "label classes are named 0 to 1" in done.stdout
    assert re.search(r"^val/linear_top1 +[01]\.\d+ +[01]\.\d+$", done.stdout, re.MULTILINE)  # of the last table
    assert not re.search(r"Traceback|Error", done.stdout + done.stderr)
    found = json.loads((tmp_path / "runs" / "mine" / "result.json").read_text())
    assert "test/linear_top1" in found["metrics"]
    assert len(list((tmp_path / "runs" / "search" / "best").iterdir())) == 2
