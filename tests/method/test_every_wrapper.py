"""What every teacher wrapper must do, the shipped ones and any that is added: the list is the registry's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import singer_ray.method.wrappers as package
from singer_ray.config import Config
from singer_ray.config.effect import EFFECTS, has_effect
from singer_ray.config.tree import fields
from singer_ray.method import refiners
from singer_ray.method.wrappers.base import TeacherWrapper
from singer_ray.method.wrappers.registry import WRAPPERS
from singer_ray.vision.tapped import TappedViT
from tests.method.planted import DIM, LAYERS, images, planted, wrap

every = pytest.mark.parametrize("name", WRAPPERS)


@pytest.fixture(scope="module")
def model() -> Any:
    return planted()[0]


def ready(model: Any, name: str) -> TeacherWrapper:
    wrapper = wrap(model, name)
    with torch.no_grad():
        wrapper.observe(images())
    return wrapper


def test_the_registry_has_the_wrappers_of_the_product_and_both_halves_of_each() -> None:
    assert {"none", "registers", "shift_average"} <= set(WRAPPERS)
    assert list(WRAPPERS) == list(package.described())
    assert all(issubclass(kind, TeacherWrapper) for kind in WRAPPERS.values())
    own = {name for name, each in package.described().items() if each.block is not None}
    assert own.isdisjoint(refiners.names())  # both have their blocks in `method`


@every
def test_the_help_names_it_and_its_own_settings_have_an_effect_with_it_alone(name: str) -> None:
    assert re.search(rf"\b{name}\b", dict(fields())["method.wrapper"].description or "")
    own = [setting for setting in EFFECTS if setting.startswith(f"method.{name}.")]
    block = package.described()[name].block
    assert len(own) == (0 if block is None else len(block.model_fields))
    for other in WRAPPERS:
        config = Config().override({"method.wrapper": other})
        assert all(has_effect(setting, config) == (other == name) for setting in own)


@every
def test_others_read_the_network_as_before(name: str, model: Any) -> None:
    other, shown = TappedViT(model, range(4)), images(3, seed=5)
    before = other(shown).tokens
    wrapper = ready(model, name)
    read = wrapper(shown)
    wrapper.replay(3, read.tokens[2], read)
    with pytest.raises(RuntimeError):
        wrapper(torch.zeros(1, 5, 24, 24))  # a pass that fails midway
    after = other(shown).tokens
    assert all(torch.equal(tokens, after[n]) for n, tokens in before.items())
    hooked = [module for module in model.modules() if module._forward_pre_hooks or module._forward_hooks]
    assert not hooked
    assert all(torch.equal(tokens, before[n]) for n, tokens in wrapper.plain(shown).tokens.items())


@every
def test_batches_of_any_size_give_the_same_features_of_the_usual_shape(name: str, model: Any) -> None:
    wrapper, shown = ready(model, name), images(7, seed=6)
    whole = wrapper(shown).tokens
    assert {n: tuple(tokens.shape) for n, tokens in whole.items()} == dict.fromkeys(LAYERS, (7, 1 + 36, DIM))
    for part in (shown.split(1), shown.split(4)):
        tokens = [wrapper(some).tokens for some in part]
        for n in LAYERS:
            assert torch.allclose(torch.cat([each[n] for each in tokens]), whole[n], rtol=1e-4, atol=1e-4)


@every
def test_another_that_takes_what_was_found_gives_the_same_bits(name: str, model: Any) -> None:
    first, second, shown = ready(model, name), wrap(model, name), images(5, seed=7)
    second.take(first.found())
    assert first.key == second.key
    read, again = first(shown).tokens, second(shown).tokens
    assert all(torch.equal(tokens, again[n]) for n, tokens in read.items())
    assert first.at([3])(shown).tokens[3].equal(read[3])
    assert (first.plain is first) == (name == "none")


@every
def test_the_next_block_run_again_gives_the_next_features_where_it_says_so(name: str, model: Any) -> None:
    wrapper, shown = ready(model, name), images(4, seed=8)
    features = wrapper(shown)
    again = wrapper.replay(3, features.tokens[2], features)
    assert again.shape == features.tokens[3].shape
    assert torch.allclose(again, features.tokens[3], rtol=1e-4, atol=1e-4) == wrapper.replays
    few = features.first(2)
    assert torch.allclose(wrapper.replay(3, few.tokens[2], few), again[:2], rtol=1e-4, atol=1e-4)
    tokens = features.tokens[2].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(wrapper.replay(3, tokens, features).square().sum(), tokens)
    assert torch.isfinite(gradient).all()
    assert bool((gradient != 0).any())


@pytest.mark.slow
@pytest.mark.long
def test_the_sketch_of_the_readme_is_found_configured_and_passes_these_tests(tmp_path: Path) -> None:
    readme = (Path(package.__file__).parent / "README.md").read_text()
    written, described = re.findall(r"```python\n(.*?)```", readme, re.DOTALL), tmp_path / "found" / "mirror"
    described.mkdir(parents=True)
    for name, text in zip(("__init__.py", "settings.py", "wrapper.py"), ("", *written), strict=True):
        (described / name).write_text(text)
    (tmp_path / "dropped.py").write_text(
        "import sys\n"
        "import singer_ray.method.wrappers as package\n"
        f"package.__path__.append({str(described.parent)!r})\n"
        "import singer_ray.config\n"
        "assert 'torch' not in sys.modules, 'settings need torch'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    program = "import dropped, sys; from singer_ray.__main__ import main; sys.exit(main(sys.argv[1:]))"
    dry = run(
        "-c", program, "train", "--dry-run", "--method.refiner", "clip", "--method.wrapper", "mirror",
        "--method.mirror.share", "0.25",
    )  # fmt: skip
    assert "share: 0.25" in dry
    assert "every teacher pass is 2 passes (method.wrapper mirror)" in dry
    tests = run("-m", "pytest", "-q", "-p", "dropped", "-p", "no:cacheprovider", __file__, "-k", "mirror")
    assert re.search(r"^5 passed", tests, re.MULTILINE)
