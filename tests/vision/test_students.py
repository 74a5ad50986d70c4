"""Students by configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from singer_ray import distill
from singer_ray.vision import models
from tests.conftest import SMALL

BRIEF = {**SMALL, "train.epochs": 1, "train.steps_per_epoch": 1, "method.prefit.steps": 1}


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_builds_its_student_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool) -> None:
    out = tmp_path / "out"
    if resumed:
        distill(out=out, settings=BRIEF)
    built: list[str] = []
    create = models._create

    def counted(name: str, setting: str, **arguments: Any) -> Any:
        model = create(name, setting, **arguments)
        if setting == "student.name":
            built.append(next(model.parameters()).device.type)
        return model

    monkeypatch.setattr(models, "_create", counted)
    run = distill(resume=out) if resumed else distill(out=out, settings=BRIEF)
    assert [device for device in built if device != "meta"] == ["cpu"]
    assert (run.student / "model.safetensors").is_file()
