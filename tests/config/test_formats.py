"""Files of settings that earlier versions wrote mean what they meant then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from singer_ray.config import Config, load_preset
from singer_ray.config.formats import FORMAT
from singer_ray.errors import UserError


def first_format(**method: Any) -> dict[str, Any]:
    """A config.yaml of the first format: the whole tree, without number and without what came later."""
    tree: dict[str, Any] = Config().model_dump(mode="json")
    del tree["method"]["freeze"]
    tree["method"] |= {"linearization": "auto", "prefit": {"steps": 200, "lr": 5e-3, "batch_size": 32}, **method}
    return tree


def written(folder: Path, tree: dict[str, Any]) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_what_is_written_says_its_format_and_is_read_as_it_was(tmp_path: Path) -> None:
    config = load_preset("demo").override({"method.rank": 5})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert yaml.safe_load(config.to_yaml())["format"] == FORMAT
    assert load_preset(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("variant", "start"), [("recommended", "attention_mlp"), ("paper", "auto"), ("official", "auto")]
)
def test_a_run_of_the_first_format_is_fitted_and_trained_on_as_it_was(tmp_path: Path, variant: str, start: str) -> None:
    method = load_preset(written(tmp_path, first_format(variant=variant))).method
    assert (method.linearization, method.freeze, method.prefit_steps) == (start, False, 200)
    assert method.start_from == {"recommended": "attention_mlp", "paper": "attention_mlp", "official": "mlp"}[variant]


def test_what_it_named_itself_stays(tmp_path: Path) -> None:
    assert load_preset(written(tmp_path, first_format(linearization="pca"))).method.linearization == "pca"


def test_a_preset_written_by_hand_has_todays_defaults(tmp_path: Path) -> None:
    method = load_preset(written(tmp_path, {"method": {"linearization": "auto"}, "train": {"epochs": 3}})).method
    assert (method.start_from, method.freeze) == ("spectral", True)


@pytest.mark.parametrize("number", [0, FORMAT + 1, "two"])
def test_an_unknown_format_is_refused_by_name(tmp_path: Path, number: object) -> None:
    with pytest.raises(UserError, match=rf"has the format '?{number}'?; this version reads 1 to {FORMAT}\. Use the"):
        load_preset(written(tmp_path, {"format": number, **first_format()}))
