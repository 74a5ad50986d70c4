"""A server, a bucket, packages to bring there, and the folder of a search."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml

from singer_ray import export
from singer_ray.cli import run_command
from singer_ray.config import load_preset
from singer_ray.distillation import Distilled, run_distillation
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.search.study.schema import METRICS
from tests.conftest import SMALL
from tests.publishing.faults import make_package

NO_ONNX = ("--export.onnx", "no")
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a manifest."""
    make_package(tmp_path / "made", 0, large=False)
    return tmp_path / "made"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A small student, trained."""
    return run_distillation(load_preset("demo").override(SMALL), tmp_path_factory.mktemp("package") / "run")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Export:
    """The command: its exit status, and what it wrote to stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run_command(export.COMMAND, export.main, [str(a) for a in arguments])
        said = capfd.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def search(run: Distilled, tmp_path: Path) -> Path:
    """The folder of a search of four trials: best/ holds the first, trials/ the checkpoints of two, one failed."""
    out = tmp_path / "search"
    shutil.copytree(run.student, out / "best" / "1-002")
    for trial in ("000", "002"):
        (out / "trials" / trial).mkdir(parents=True)
        shutil.copyfile(run.out / "checkpoint.pt", out / "trials" / trial / "checkpoint.pt")
    config = yaml.safe_load((run.out / "config.yaml").read_text())
    config["search"]["study"] = "postgresql://me:secret@host/db"
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    (out / "space.yaml").write_text("method.strength: {type: uniform, low: 0.1, high: 1.0}\n")
    (out / "search.json").write_text(
        json.dumps(
            {"name": "search", "study": None, "objectives": ["val/miou:max"], "id": "a", "sessions": [{"begin": 1.5}]}
        )
    )
    rows = [
        ("002", "COMPLETE", 0.9, 0.30, 0.31, 2, None, 3, 0.29, 0.02),
        ("000", "COMPLETE", 0.5, 0.20, 0.33, 2, None, 1, None, None),
        ("003", "PRUNED", 0.4, 0.10, None, 1, None, None, None, None),
        ("001", "FAIL", 0.3, None, None, 0, "no connection to postgresql://me:secret@host/db", None, None, None),
    ]
    columns = ["id", "state", "method.strength", "val/miou", "test/miou", "epochs", "fault", "seeds", "mean", "spread"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "rank", range(1, 5))
    table.insert(3, "front", [True, True, False, False])
    table["seconds"] = 12.5
    table.to_parquet(out / "leaderboard.parquet")
    table.to_csv(out / "leaderboard.csv")
    study = create_study(storage_of(None, out), "search", Objectives(("val/miou",), ("max",), "val/miou", "max"))
    for _ in range(4):
        row = study.ask({"method.strength": optuna.distributions.FloatDistribution(0.1, 1.0)})
        row.set_user_attr(METRICS, {"val/miou": 0.2, "val/after_norm/miou": 0.19, "student/max_median_norm/2": 1.5})
        study.tell(row, 0.2)
    return out
