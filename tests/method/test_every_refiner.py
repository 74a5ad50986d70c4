"""What every refiner must do, the shipped ones and any that is added: the list is the registry's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import timm
import torch
from hypothesis import given, settings

import singer_ray.method.refiners as package
from singer_ray.config import Config, MethodConfig
from singer_ray.config.effect import EFFECTS, has_effect
from singer_ray.config.tree import fields
from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.registry import REFINERS, VARIANTS, refiner_class
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import TappedViT

PATCHES, DIM = 16, 8
CASES: dict[str, dict[str, Any]] = {
    **{name: {"refiner": name} for name in REFINERS},
    "singer fitted": {"linearization": "attention_mlp", "freeze": False, "prefit": {"steps": 3, "batch_size": 8}},
    **{
        f"{name} {variant}": {"refiner": name, "variant": variant}
        for name, classes in VARIANTS.items()
        for variant, kind in classes.items()
        if kind is not REFINERS[name]
    },
}
"""Every refiner, its other variants, and the adapter that is fitted: settings within `method`."""
every = pytest.mark.parametrize("case", CASES)
seeds = st.integers(0, 2**31)
few = settings(max_examples=10, deadline=None, derandomize=True)


def dotted(settings: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def refiner(case: str, seed: int = 0) -> Refiner:
    """On layers 0 and 1 of a teacher of width 8, its weights moved from where they start."""
    torch.manual_seed(seed % 1000)
    make: Any = timm.create_model
    model = make("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=DIM, depth=3, num_heads=2, num_classes=0)
    method = MethodConfig.model_validate({**CASES[case], "rank": 3})
    made = refiner_class(method)(TappedViT(model.eval().requires_grad_(False), [0, 1]), (0, 1), method)
    made.lay_out((4, 4))
    made.calibrate({0: 2.0, 1: 3.0})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def features(seed: int) -> torch.Tensor:
    """[2, 1 + patches, 8], some patches 30 times as long as the rest."""
    tokens = torch.randn(2, 1 + PATCHES, DIM, generator=torch.Generator().manual_seed(seed))
    tokens[:, 1:3] *= 30
    return tokens


def test_the_registry_has_the_refiners_of_the_product_and_both_halves_of_each() -> None:
    assert {"singer", "none", "vitkd", "clip", "layernorm", "neighbours", "quantile_clip"} <= set(REFINERS)
    assert set(package.described()) == set(REFINERS)
    assert all(issubclass(kind, Refiner) for kind in REFINERS.values())
    assert all(REFINERS[name] in classes.values() for name, classes in VARIANTS.items())


@pytest.mark.parametrize("name", REFINERS)
def test_the_help_names_it_and_its_own_settings_have_an_effect_with_it_alone(name: str) -> None:
    assert re.search(rf"\b{name}\b", dict(fields())["method.refiner"].description or "")
    own = [setting for setting in EFFECTS if setting.startswith(f"method.{name}.")]
    block = package.described()[name].block
    assert len(own) == (0 if block is None else len(block.model_fields))
    for other in REFINERS:
        config = Config().override({"method.refiner": other})
        assert all(has_effect(setting, config) == (other == name) for setting in own)


@pytest.mark.slow
@every
@few
@given(seeds)
def test_prefix_tokens_stay(case: str, seed: int) -> None:
    tokens = features(seed)
    assert torch.equal(refiner(case, seed)(0, tokens)[:, 0], tokens[:, 0])


@every
@few
@given(seeds)
def test_permuting_the_patches_commutes_with_refinement_unless_their_places_matter(case: str, seed: int) -> None:
    tokens, made = features(seed), refiner(case, seed)
    mirrored = 1 + torch.arange(PATCHES).reshape(4, 4).flip(1).flatten()
    for patches, alike in ((1 + torch.randperm(PATCHES), not made.spatial), (mirrored, True)):
        order = torch.cat([torch.zeros(1, dtype=torch.long), patches])
        same = torch.allclose(made(0, tokens[:, order]), made(0, tokens)[:, order], rtol=1e-4, atol=1e-4)
        assert same == alike


@every
def test_ties_and_zero_tokens_stay_finite(case: str) -> None:
    made = refiner(case)
    for tokens in (torch.zeros(2, 17, DIM), torch.ones(2, 17, DIM)):
        patches = tokens.clone().requires_grad_()
        refined = made.target(1, patches, made(1, patches))
        assert torch.isfinite(refined).all()
        (gradient,) = torch.autograd.grad(refined.square().sum(), patches)
        assert torch.isfinite(gradient).all()


@pytest.mark.slow
@every
def test_it_trains_what_it_has_and_its_flags_say_what_it_does(
    case: str, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.override(dict(dotted(CASES[case], "method.")))
    context = TrainContext(config)
    trainer = StudentTrainer(context, config)
    plain = StudentTrainer(context, small.override({"method.refiner": "none"})).distiller.state_dict()
    built = trainer.distiller.state_dict()
    assert all(torch.equal(weight, built[key]) for key, weight in plain.items())  # whatever the refiner has drawn
    trainer.make_ready()
    distiller, made, replay = trainer.distiller, trainer.distiller.refiner, trainer.teacher.replay
    assert isinstance(made, refiner_class(config.method))
    assert (trainer.prefit_steps > 0) == (made.learns and not made.joint)
    assert (set(distiller.scales.values()) != {1.0}) == made.scales_targets

    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    passed = context.teacher_pass(trainer.teacher, pixels)
    before = torch.get_rng_state()
    losses = distiller(pixels, passed, replay)
    assert torch.equal(torch.get_rng_state(), before) != made.draws
    assert bool(made.refine(passed, replay)[1]) == made.learns
    own = [p for p in made.parameters() if p.requires_grad]
    if made.learns:
        reached = torch.autograd.grad(losses["kd"], own, allow_unused=True)
        assert any(gradient is not None for gradient in reached) == made.joint

    weights = {n: p.detach().clone() for n, p in distiller.named_parameters()}
    for _ in range(2):
        losses = trainer.step(pixels, passed)
    assert torch.isfinite(losses["loss"])
    moved = {n for n, p in distiller.named_parameters() if not torch.equal(p, weights[n])}
    learning = {n for n, p in distiller.named_parameters() if n.startswith("refiner.") and p.requires_grad}
    assert learning <= moved
    assert any(n.startswith("student.") for n in moved)

    monkeypatch.setattr(made, "distill", lambda *_: torch.tensor(1.0))
    kd = distiller(pixels, passed, replay)["kd"].item()
    assert kd == (1 if made.averages_layers else len(distiller.layers))


@pytest.mark.slow
@pytest.mark.long
def test_the_sketch_of_the_readme_is_found_configured_and_passes_these_tests(tmp_path: Path) -> None:
    readme = (Path(package.__file__).parent / "README.md").read_text()
    written, described = re.findall(r"```python\n(.*?)```", readme, re.DOTALL), tmp_path / "found" / "soften"
    described.mkdir(parents=True)
    for name, text in zip(("__init__.py", "settings.py", "refiner.py"), ("", *written), strict=True):
        (described / name).write_text(text)
    (tmp_path / "dropped.py").write_text(
        "import sys\n"
        "import singer_ray.method.refiners as package\n"
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
    help_ = run("-c", program, "train", "--help", "method.soften.power")
    assert "How far norms move to the layer's median" in " ".join(help_.split())
    dry = run("-c", program, "train", "--dry-run", "--method.refiner", "soften", "--method.soften.power", "0.25")
    assert "power: 0.25" in dry
    tests = run("-m", "pytest", "-q", "-p", "dropped", "-p", "no:cacheprovider", __file__, "-k", "soften")
    assert re.search(r"^5 passed", tests, re.MULTILINE)
