"""A trained student beside its teacher, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.evaluation.pictures import TokenSet, draw_norms, draw_pca, sample_images
from singer_ray.layout import NORM_MAPS, PCA
from singer_ray.method.artifacts import normal_mask, patch_norms
from singer_ray.vision.tapped import evaluating

if TYPE_CHECKING:
    from singer_ray.training.trainer import StudentTrainer


def draw_student_pictures(trainer: StudentTrainer, folder: Path) -> tuple[Path, Path]:
    """norm_maps.png and pca.png in `folder`, which is made: teacher, the student's target, student.

    At the last distilled layer, on the images (among 64 of validation, else of training) with the largest artifacts.
    Norm maps are over the image's median, on one scale. In pca.png the student's features are in the teacher's space
    (its own P_l; without one, they are left out); colours are the principal components of the teacher's normal tokens.
    """
    context, teacher, distiller = trainer.context, trainer.teacher, trainer.scored
    images = sample_images(context.suite.sources.get("val", context.train), context.evaluation_view)
    pixels = context.normalize(images.to(context.device))
    layer, student_layer = distiller.layers[-1], distiller.student_layers[-1]
    with evaluating(distiller):
        tokens = teacher.plain(pixels).tokens[layer]
        target = distiller.target(layer, teacher(pixels).tokens[layer])[:, teacher.prefix :]
        seen = distiller.student(pixels).tokens[student_layer]
        projected = distiller.projected(layer, seen) if distiller.refiner.projects else None
    original, name = tokens[:, teacher.prefix :], f"student\nblock {student_layer}"
    both = [
        TokenSet(f"teacher\nblock {layer}", original, distiller.teacher_grid),
        TokenSet("shown to\nthe student", target, distiller.teacher_grid),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    own = TokenSet(name, seen[:, distiller.student.prefix :], distiller.student_grid)
    draw_norms(folder / NORM_MAPS, images, [*both, own])
    normal = original[normal_mask(patch_norms(original))]
    student = [] if projected is None else [TokenSet(name, projected, distiller.student_grid)]
    draw_pca(folder / PCA, images, [*both, *student], normal)
    return folder / NORM_MAPS, folder / PCA
