"""Loader processes of scripts as people write them: no guard, data sets of their own, some that cannot travel."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.views import EvaluationView
from singer_ray.data.wrapped import as_source

SCRIPT = """
import torch
from torch.utils.data import TensorDataset
from singer_ray.data.loader import evaluation_batches
from singer_ray.data.views import EvaluationView
from singer_ray.data.wrapped import as_source

print("the script runs")

class Doubled:
    def __init__(self, inner):
        self.inner = inner
    def __len__(self):
        return len(self.inner)
    def __getitem__(self, i):
        image, label = self.inner[i]
        return self.change(image), label

def local():
    class Local(Doubled):
        change = staticmethod(lambda image: image * 2)
    return Local(TensorDataset(torch.full((6, 3, 8, 8), 30, dtype=torch.uint8), torch.arange(6)))

source = as_source(local())
for batch in evaluation_batches(source, EvaluationView(8, 1.0), batch_size=4, workers=1):
    print(batch["image"].unique().tolist(), batch["label"].tolist())
"""


@pytest.mark.long
def test_a_script_without_a_guard_and_with_a_local_data_set_loads_in_processes(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "the script runs",
        "[60] [0, 1, 2, 3]",
        "[60] [4, 5]",
    ]


def test_a_data_set_that_cannot_travel_is_read_here_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> Any:
            with self.lock:
                return np.full((8, 8, 3), i, np.uint8)

    for _ in range(2):
        batches = evaluation_batches(as_source(Locked()), EvaluationView(8, 1.0), batch_size=2, workers=2)
        assert [batch["image"].amax().item() for batch in batches] == [1, 2]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Locked cannot be sent to loader processes (cannot pickle '_thread.lock' object)" in said
    assert "Open files and connections in __getitem__" in said
