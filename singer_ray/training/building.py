"""What a configuration trains, built but not yet started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from singer_ray.data.views import derive
from singer_ray.method.distiller import Distiller
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.vision.students import build_student, check_student, student_layers_of
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import Config


def build_distiller(config: Config, teacher: TappedViT, layers: tuple[int, ...]) -> Distiller:
    """Student, projections and refiner for the distilled `layers` of `teacher`, with random weights.

    Raises UserError where they do not fit each other.
    """
    size = config.data.image_size
    model: Any = build_student(config)
    name = f"student {config.student.name}"
    depth = TappedViT(model, [0], name=name).depth
    kind = refiner_class(config.method)
    student_layers = student_layers_of(config, layers, teacher.depth, depth, kind.map_layers)
    student = TappedViT(model, student_layers, name=name)
    check_student(model, name, size)
    with torch.random.fork_rng(devices=[]):  # student and projections start alike whatever the refiner draws
        torch.manual_seed(derive(config.seed, 3))
        refiner = kind(teacher, layers, config.method)
    return Distiller(
        student,
        student_layers,
        teacher,
        layers,
        refiner,
        (teacher.grid(size), student.grid(size)),
        (teacher.covered(size), student.covered(size)),
        projector=config.method.projector,
        kd_weight=config.method.loss.kd,
        detach=config.method.detach_target and not kind.joint,
        target=config.method.target,
        momentum=config.method.standardize.momentum,
        gram_weight=config.method.loss.gram,
    )
