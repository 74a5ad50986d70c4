"""One distillation from start to finish: train, evaluate, write the student."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.config import field_names
from singer_ray.config.effect import remarks as without_effect
from singer_ray.console.outputs import claim, guarded
from singer_ray.console.runlog import note
from singer_ray.evaluation.linear_head import linear_head
from singer_ray.layout import CHECKPOINT, CONFIG, PICTURES, RESULT, STUDENT
from singer_ray.publishing.package import InputSpec, write_student
from singer_ray.publishing.result import build_result, scrubbed, write_json
from singer_ray.storage import write_whole
from singer_ray.storage.address import absolute
from singer_ray.tracking.run_record import COMPLETE, FAIL, STOPPED, RunRecord
from singer_ray.tracking.trackers import TRAIN, check_trackers
from singer_ray.training import checkpoint
from singer_ray.training.launch import Inputs, launch_here, launch_in_ray, runs_in_ray
from singer_ray.training.resuming import by_the_same_launcher, check_same, require_own, resume_command
from singer_ray.training.trainer import StudentTrainer

if TYPE_CHECKING:
    from rich.console import Console

    from singer_ray.config import Config
    from singer_ray.training.loop import Metrics

_SHOWN = ("val/miou", "val/linear_top1", "test/miou", "test/linear_top1")
"""Metrics that a run is shown with."""


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

    def __repr__(self) -> str:
        shown = [f"{name}={value:.4g}" for name, value in self.metrics.items() if name in _SHOWN]
        return f"Distilled({', '.join([repr(str(self.out)), *shown])})"


def run_distillation(
    config: Config,
    out: Path,
    *,
    inputs: Inputs | None = None,
    resume: bool = False,
    given: Collection[str] = (),
    prepare: Callable[[], object] = lambda: None,
    log: Callable[[str], None] = print,
    console: Console | None = None,
) -> Distilled:
    """Trains by `config` and fills OUT. `prepare` readies the folder, once the configuration has proved buildable.
    `given` names the settings set by hand: of those that have no effect it says so.

    With `resume` the run in OUT goes on after its last finished epoch; `config` must be its own (see
    `resumed_config`). A terminal `console` shows a bar. Raises UserError for what the user can mend; a run that fails
    before its first epoch leaves no folder behind, and Ctrl-C says how to go on.
    """
    storage = config.train.storage
    if storage is not None and not resume:  # a resume may be typed in another folder
        config = config.override({"train.storage": absolute(storage)})
    with guarded(lambda folder: resume_command(folder, config)):
        session = _Run(config, out, inputs or Inputs(), resume=resume, given=given, log=log, console=console)
        return session.run(prepare)


class _Run:
    """One session of a run."""

    def __init__(
        self,
        config: Config,
        out: Path,
        inputs: Inputs,
        *,
        resume: bool,
        given: Collection[str],
        log: Callable[[str], None],
        console: Console | None,
    ) -> None:
        self.config, self.out, self.inputs, self.resume = config, out, inputs, resume
        self.given, self.log, self.console = given, log, console

    def run(self, prepare: Callable[[], object]) -> Distilled:
        """From start to finish."""
        out = self.out
        if self.resume:
            check_same(out, self.config)
            self.config = by_the_same_launcher(out, self.config)
        config, by_ray = self.config, runs_in_ray(self.config)
        if self.resume:
            require_own(out, config, self.inputs)
            if not by_ray and not (out / CHECKPOINT).is_file():
                checkpoint.load(out)  # says what is missing, before anything is written
            claim(out, existed=True, resumed=True)
        check_trackers(config.train.trackers, TRAIN)
        begin = time.perf_counter()
        # Built before anything is written: whatever is wrong shows now. The driver of a Ray run leaves GPUs alone.
        context = self.inputs.context(config.override({"train.device": "cpu"}) if by_ray else config)
        trainer = StudentTrainer(context, config, resumed=self.resume)
        remarks = trainer.remarks
        if self.resume and not by_ray:
            checkpoint.load(out)  # refused before anything is written
        for line in remarks:
            self.log(f"note: {line}")
        for line in without_effect(self.given, [config], "train", context.suite.annotations_shared()):
            self.log(f"note: {line}")
        self._note("built teacher, data and student", begin)
        if not self.resume and not out.exists():
            claim(out, existed=False, resumed=False)
        prepare()
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, config.to_yaml())
        begin = time.perf_counter()
        metrics = self._train(trainer, by_ray=by_ray)
        self._note("trained", begin)
        remarks += [line for line in context.suite.notes if line not in remarks]
        seconds = time.perf_counter() - begin
        result = build_result(config.model_dump(mode="json"), metrics, seconds, remarks)
        begin = time.perf_counter()
        self._write_student(trainer, result)
        write_json(out / RESULT, result)
        self._note("drew pictures and wrote the student", begin)
        return Distilled(out, result)

    def _train(self, trainer: StudentTrainer, *, by_ray: bool) -> Metrics:
        """Brings `trainer` through its last epoch, here or in workers; returns what that epoch reported."""
        config, out, state = self.config, self.out, FAIL
        record = RunRecord(out, told_parameters(config), config.train.trackers, log=self.log)
        try:
            if by_ray:
                metrics, weights = launch_in_ray(
                    config, self.inputs, out, resume=self.resume, log=self.log, record=record
                )
                trainer.restore(weights)
            else:
                metrics = launch_here(
                    trainer, out, resume=self.resume, log=self.log, record=record, console=self.console
                )
            state = COMPLETE
        except KeyboardInterrupt:
            state = STOPPED
            raise
        finally:
            record.end(state)
        return metrics

    def _write_student(self, trainer: StudentTrainer, result: Mapping[str, Any]) -> None:
        from singer_ray.training.pictures import draw_student_pictures  # loads Matplotlib, which refusals do not need

        config, out = self.config, self.out
        (out / STUDENT / PICTURES).mkdir(parents=True, exist_ok=True)
        for picture in draw_student_pictures(trainer, out / PICTURES):
            shutil.copyfile(picture, out / STUDENT / PICTURES / picture.name)
        head = linear_head(trainer.context.suite, trainer.reader())
        spec = InputSpec(config.data.image_size, config.data.crop_pct, trainer.context.normalize)
        write_student(out / STUDENT, trainer.student_model.eval(), spec, result, head)

    @staticmethod
    def _note(what: str, begin: float) -> None:
        note(f"{what} in {time.perf_counter() - begin:.1f} s")


def told_parameters(config: Config) -> dict[str, Any]:
    """What trackers show of a run's configuration: whatever decides its result, by dotted name."""
    told = ("seed", "teacher.name", "teacher.layers", "student.", "method.", "train.", "data.image_size")
    aside = ("train.trackers", "train.storage", "train.launcher", "train.device", "train.threads")
    names = (name for name in field_names() if name.startswith(told) and name not in aside)
    values = {name: config.value(name) for name in names}
    written = {n: " ".join(map(str, v)) if isinstance(v, tuple) else v for n, v in values.items() if v is not None}
    return {name: scrubbed(value) for name, value in written.items()}
