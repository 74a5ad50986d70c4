"""Pictures of a student beside its teacher."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot

from singer_ray.config import Config
from singer_ray.training.checkpoint import to_bytes
from singer_ray.training.member import Member
from singer_ray.training.pictures import draw_student_pictures
from singer_ray.training.workbench import Workbench


def test_pictures_show_something_and_change_nothing(small: Config, tmp_path: Path) -> None:
    bench = Workbench(small)
    member = Member.begin(bench, small)
    before = to_bytes(member.state())
    written = draw_student_pictures(member, tmp_path / "deep" / "pictures")
    assert [path.name for path in written] == ["norm_maps.png", "pca.png"]
    for path in written:
        picture = pyplot.imread(path)[..., :3]
        assert picture.std() > 0.05, f"{path.name} is blank"
        assert picture.shape[0] > 500  # four rows: image, teacher, shown, student
    assert to_bytes(member.state()) == before
    assert member.distiller.training
