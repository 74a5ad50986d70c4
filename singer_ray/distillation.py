"""One distillation from start to finish: train, evaluate, write the student."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.errors import UserError
from singer_ray.publishing.head import linear_head
from singer_ray.publishing.package import InputSpec, write_student
from singer_ray.publishing.result import build_result, write_json
from singer_ray.training.launch import Inputs, launch_here, launch_in_ray, runs_in_ray
from singer_ray.training.member import Member, student_of
from singer_ray.training.pictures import draw_student_pictures

if TYPE_CHECKING:
    from singer_ray.config import Config

STUDENT, CONFIG, RESULT, PICTURES = "student", "config.yaml", "result.json", "pictures"


@dataclass(frozen=True)
class Distilled:
    """A finished run."""

    out: Path
    """Its folder: result.json, config.yaml, student/, pictures/."""
    result: Mapping[str, Any]
    """What result.json holds."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """`val/...`, `test/...`, `teacher/...`, `refined/...`, `student/...`, `train/...`"""
        metrics: Mapping[str, float] = self.result["metrics"]
        return metrics

    @property
    def student(self) -> Path:
        """The folder that `timm.create_model("local-dir:...", pretrained=True)` loads."""
        return self.out / STUDENT


def run_distillation(
    config: Config,
    out: Path,
    *,
    inputs: Inputs | None = None,
    resume: bool = False,
    prepare: Callable[[], object] = lambda: None,
    say: Callable[[str], None] = print,
) -> Distilled:
    """Trains by `config` and fills OUT. `prepare` readies the folder, once the configuration has proved buildable.

    Raises UserError for what the user can mend; a run that fails before its first epoch leaves no folder behind.
    """
    inputs = inputs or Inputs()
    if resume:
        config = _config_to_resume(config, out)
    by_ray = runs_in_ray(config)
    # Built here, before anything is written: whatever is wrong shows now. The driver of a Ray run leaves GPUs alone.
    bench = inputs.workbench(config.override({"train.device": "cpu"}) if by_ray else config)
    Member(bench, config)
    began_empty = not out.exists() or resume
    prepare()
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    begin = time.perf_counter()
    try:
        if by_ray:
            trained = launch_in_ray(config, inputs, out, say=say)
        else:
            trained = launch_here(config, bench, out, resume=resume, say=say)
    except UserError:
        if not resume and not (out / "checkpoint.pt").exists():
            shutil.rmtree(out, ignore_errors=began_empty)
        raise
    result = build_result(config.model_dump(mode="json"), trained.metrics, time.perf_counter() - begin)
    model, scaling = student_of(config, trained.state)
    member = Member.begin(bench, config, trained.state)
    (out / STUDENT / PICTURES).mkdir(parents=True, exist_ok=True)
    for picture in draw_student_pictures(member, out / PICTURES):
        shutil.copyfile(picture, out / STUDENT / PICTURES / picture.name)
    spec = InputSpec(config.data.image_size, config.data.crop_pct, scaling)
    write_student(out / STUDENT, model, spec, result, linear_head(member))
    write_json(out / RESULT, result)
    return Distilled(out, result)


def _config_to_resume(config: Config, out: Path) -> Config:
    from singer_ray.config import load_preset

    path = out / CONFIG
    if not path.is_file():
        raise UserError(f"--out {out} has no {CONFIG}: there is no run to resume. Start one without --resume.")
    before = load_preset(str(path))
    changed = _first_difference(before.model_dump(), config.model_dump())
    if changed:
        raise UserError(
            f"--resume continues the run in {out} as it was, but {changed} differs from its {CONFIG}. "
            f"Use {shlex.join(['--preset', str(path)])} and no other setting."
        )
    return before


def _first_difference(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> str | None:
    for name, value in first.items():
        if isinstance(value, dict):
            found = _first_difference(value, second[name], f"{prefix}{name}.")
            if found:
                return found
        elif value != second[name]:
            return prefix + name
    return None
