"""Pictures of a student beside its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import pyplot

from singer_ray.config import Config
from singer_ray.training.checkpoint import to_bytes
from singer_ray.training.context import TrainContext
from singer_ray.training.pictures import draw_student_pictures
from singer_ray.training.trainer import StudentTrainer


@pytest.mark.slow
def test_pictures_show_something_and_change_nothing(small: Config, tmp_path: Path) -> None:
    context = TrainContext(small)
    trainer = StudentTrainer.begin(context, small)
    before = to_bytes(trainer.state())
    written = draw_student_pictures(trainer, tmp_path / "deep" / "pictures")
    assert [path.name for path in written] == ["norm_maps.png", "pca.png"]
    for path in written:
        picture = pyplot.imread(path)[..., :3]
        assert picture.std() > 0.05, f"{path.name} is blank"
        assert picture.shape[0] > 500  # four rows: image, teacher, shown, student
    assert to_bytes(trainer.state()) == before
    assert trainer.distiller.training


@pytest.mark.slow
def test_a_student_without_a_projection_has_no_place_among_the_teachers_components(
    small: Config, tmp_path: Path
) -> None:
    config = small.override({"method.refiner": "relational"})
    norms, components = draw_student_pictures(StudentTrainer.begin(TrainContext(config), config), tmp_path)
    heights = [pyplot.imread(path).shape[0] for path in (norms, components)]
    assert heights[1] == pytest.approx(heights[0] * 3 / 4, rel=0.05)  # three rows of four
