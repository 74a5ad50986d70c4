"""What a configuration would build, checked without weights, memory or a pass over data: for --dry-run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from singer_ray.data.source import Source
from singer_ray.data.splits import open_splits
from singer_ray.data.views import EvaluationView
from singer_ray.errors import UserError
from singer_ray.evaluation.suite import ProbeSuite
from singer_ray.method.layers import default_layers
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.method.wrappers.registry import check_wrapper
from singer_ray.training.context import pick_device
from singer_ray.training.launch import runs_in_ray
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import outline, outline_student
from singer_ray.vision.students import build_student, check_start, check_student, student_layers_of
from singer_ray.vision.tapped import TappedViT, check_layers

if TYPE_CHECKING:
    from torch import nn

    from singer_ray.config import Config


@dataclass(frozen=True)
class Blueprint:
    """Teacher and image sets of a configuration, as far as they can be known without reading them."""

    teacher: nn.Module
    """On the meta device."""
    suite: ProbeSuite
    images: int
    """Of the training set."""

    @classmethod
    def of(cls, config: Config) -> Blueprint:
        """Raises UserError for whatever a run of `config` would refuse before its first step."""
        sources = open_splits(config.data)
        own = config.evaluation.data
        probed: Mapping[str, Source] = sources if own.source == "same" else open_splits(own, "evaluation.data")
        settings, size = config.teacher, config.data.image_size
        teacher = outline(
            settings.name, "teacher.name", size, pretrained=settings.pretrained, checkpoint=settings.checkpoint
        )
        check_fit(teacher, f"teacher {settings.name}", size)
        view = EvaluationView(size, config.data.crop_pct)
        suite = ProbeSuite(probed, view, config.evaluation, pick_device("cpu"))
        return cls(teacher, suite, len(sources["train"]))

    @property
    def annotations(self) -> Collection[str]:
        """What the probes can be fitted on and scored by."""
        return self.suite.annotations_shared()

    def check(self, configs: Sequence[Config]) -> None:
        """Raises UserError for the first of `configs` (of this teacher and these images) that cannot be built."""
        students: dict[str, int] = {}
        for config in configs:
            self._check(config, students)

    def _check(self, config: Config, students: dict[str, int]) -> None:
        name = f"teacher {config.teacher.name}"
        depth = TappedViT(self.teacher, [0], name=name).depth
        layers = config.teacher.layers or default_layers(depth)
        kind = refiner_class(config.method)
        tapped = TappedViT(self.teacher, [*layers, *kind.extra_layers(layers, depth)], name=name)
        kind.check(tapped, layers, config.method)
        check_wrapper(tapped, config.method, config.data.image_size)
        student_name, kept = f"student {config.student.name}", config.student.model_dump_json(exclude={"layers"})
        if kept not in students:  # most corners of a space have the same one
            student = build_student(config, outline_student)
            students[kept] = TappedViT(student, [0], name=student_name).depth
            check_student(student, student_name, config.data.image_size)
            check_start(config, TappedViT(student, [0], name=student_name), tapped)
        mapped = student_layers_of(config, layers, depth, students[kept], kind.map_layers)
        check_layers(mapped, students[kept], student_name)


def check_run(config: Config) -> Blueprint:
    """The blueprint of one distillation. Raises UserError for whatever it would refuse before its first step."""
    if not runs_in_ray(config):
        pick_device(config.train.device)
    plan = Blueprint.of(config)
    plan.check([config])
    return plan


def check_search(config: Config, corners: Sequence[Config]) -> Blueprint:
    """The blueprint of a search whose space reaches `corners`. Raises UserError."""
    plan = Blueprint.of(config)
    plan.check([config])
    try:
        plan.check(corners)
    except UserError as error:
        raise UserError(f"The search space reaches what cannot be built: {error}") from error
    return plan
