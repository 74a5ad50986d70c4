"""What one run (or one trial of a search) owns: student, projections, refiner and optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from singer_ray.data.views import derive
from singer_ray.errors import UserError, printable
from singer_ray.evaluation.suite import Reader
from singer_ray.method.artifacts import max_median_ratio, median_norm, patch_norms
from singer_ray.method.distiller import Distiller
from singer_ray.method.losses import Terms, weighted_sum
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.training.schedule import warmup_cosine
from singer_ray.vision.students import STUDENT_WEIGHTS, build_student, check_student, misfit, student_layers_of
from singer_ray.vision.tapped import Features, TappedViT

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.training.context import TrainContext

CALIBRATION_IMAGES = 256
NO_ARTIFACTS = 4.0
"""Largest over median patch norm below which there is nothing to refine."""


class StudentTrainer:
    """Trains one student in a TrainContext, step by step.

    `rank` and `world` place this process among those that train the same student.
    """

    def __init__(self, context: TrainContext, config: Config, *, rank: int = 0, world: int = 1) -> None:
        self.context, self.config, self.rank, self.world = context, config, rank, world
        layers = context.distilled_layers()
        refiner = refiner_class(config.method)
        self.teacher = context.tapped_teacher([*layers, *refiner.extra_layers(layers, context.last_teacher.depth)])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(config.seed, 0))
            self.distiller = self._build(layers).to(context.device)
        self.module: nn.Module = self.distiller
        self.steps = config.train.epochs * self.steps_per_epoch
        self.step_count = 0
        self.median_norms: dict[int, float] = {}
        self.optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def begin(
        cls,
        context: TrainContext,
        config: Config,
        state: dict[str, Any] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        log: Callable[[str], None] = lambda line: None,
    ) -> StudentTrainer:
        """A trainer that is built and made ready: see `make_ready`."""
        trainer = cls(context, config, rank=rank, world=world)
        trainer.make_ready(state, log)
        return trainer

    def make_ready(self, state: dict[str, Any] | None = None, log: Callable[[str], None] = lambda line: None) -> None:
        """Ready to step: as `state` was left, or from scratch with calibration and pre-fit. Raises MisfitError."""
        if state is not None:
            self.restore(state)
        else:
            self.prepare(log)

    def prepare(self, log: Callable[[str], None] = lambda line: None) -> None:
        """From scratch to ready to step: observes, fits the refiner alone, readies the optimiser."""
        self.observe(log)
        if self.prefit_steps:
            log(f"fitting refiner {self.config.method.refiner} alone for {self.prefit_steps} steps")
        self.prefit()
        self.start()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        train = self.config.train
        return train.steps_per_epoch or max(1, len(self.context.train) // train.batch_size)

    @property
    def prefit_steps(self) -> int:
        """Steps of the pre-fit; 0 for a refiner that does not learn."""
        refiner = self.distiller.refiner
        return self.config.method.prefit_steps if refiner.learns and not refiner.joint else 0

    @property
    def student_model(self) -> nn.Module:
        """The student itself, as timm made it."""
        model: nn.Module = self.distiller.student.model
        return model

    def reader(self) -> Reader:
        """The student as the probes see it."""
        student = self.distiller.student
        last = TappedViT(student.model, [student.depth - 1])
        covered = last.covered(self.config.data.image_size)
        return Reader(last, self.context.normalize, self.distiller.student_grid, covered)

    @property
    def remarks(self) -> list[str]:
        """What a person should know before training: the context's remarks, and what the student does not see."""
        unseen = self.distiller.student.unseen(self.config.data.image_size)
        return [*self.context.remarks, *([unseen] if unseen else [])]

    def observe(self, log: Callable[[str], None] = lambda line: None) -> None:
        """Looks at the first training images: fixes scales by the teacher's median norms, and readies the refiner."""
        config = self.config
        batch = next(self.context.batches(batch_size=CALIBRATION_IMAGES, seed=config.seed, view_seed=config.seed))
        features = self.context.teacher_pass(self.teacher, self.context.pixels(batch), config.train.precision)
        norms = {n: patch_norms(features.tokens[n][:, self.teacher.prefix :]) for n in self.distiller.layers}
        self.calibrate({n: median_norm(lengths) for n, lengths in norms.items()})
        refiner = self.distiller.refiner
        refiner.observe(features, self.teacher.replay, derive(config.seed, 4))
        for line in refiner.notes():
            log(line)
        ratio = max(float(max_median_ratio(lengths).mean()) for lengths in norms.values())
        if ratio < NO_ARTIFACTS and config.method.refiner != "none":
            log(
                f"the teacher shows no artifacts here (largest over median patch norm {ratio:.1f}; artifacts start at "
                f"about {NO_ARTIFACTS:g}): refinement will not help, --method.refiner none should do as well"
            )

    def calibrate(self, median_norms: dict[int, float]) -> None:
        """Fixes the scale of each layer by the teacher's median patch norm. Raises UserError where there is none."""
        for layer, norm in median_norms.items():
            if not (norm > 0 and math.isfinite(norm)):
                raise UserError(
                    f"{printable(self.context.teacher_name)}: the median norm of its patch features is {norm:g} "
                    f"in layer {layer}, so there is nothing to teach. Check its weights (teacher.checkpoint, "
                    "teacher.pretrained), or give another teacher."
                )
        self.median_norms = median_norms
        self.distiller.calibrate(median_norms)

    def prefit(self) -> dict[str, float]:
        """Fits the refiner alone, before the student starts; returns its last losses. Equal in every process."""
        refiner, settings = self.distiller.refiner, self.config.method.prefit
        if not self.prefit_steps:
            return {}
        optimizer = torch.optim.AdamW(refiner.parameters(), lr=settings.lr, weight_decay=0.0)
        batches = self.context.batches(
            batch_size=settings.batch_size, seed=derive(self.config.seed, 1), view_seed=self.config.seed
        )
        terms: Terms = {}
        for step in range(self.prefit_steps):
            pixels = self.context.pixels(next(batches))
            features = self.context.teacher_pass(self.teacher, pixels, self.config.train.precision)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * warmup_cosine(step, self.prefit_steps, 1)
            with self.context.autocast(self.config.train.precision):
                _, terms = refiner.refine(features, self.teacher.replay)
                loss = weighted_sum(terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {name: float(value.detach()) for name, (_, value) in terms.items()}

    def start(self) -> None:
        """Readies the optimiser, and joins the other processes when there are several."""
        self.distiller.refiner.settle()
        self._freeze_unreached()
        train = self.config.train
        self.optimizer = torch.optim.AdamW(
            param_groups_weight_decay(self.distiller, train.weight_decay, no_weight_decay_list=self._without_decay()),
            lr=train.lr,
        )
        if self.world > 1:
            devices = [self.context.device.index] if self.context.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(self.distiller, device_ids=devices)

    def step(self, pixels: torch.Tensor, features: Features) -> dict[str, torch.Tensor]:
        """The trial's half of a step: features -> losses -> update. Returns the losses, detached."""
        assert self.optimizer is not None, "start() comes first"
        train = self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * warmup_cosine(self.step_count, self.steps, round(train.warmup * self.steps))
        draws = train.drop_path > 0 or self.distiller.refiner.draws
        with torch.random.fork_rng(enabled=draws):
            if draws:  # from the global generator: give it this step's own state
                torch.manual_seed(derive(self.config.seed, 2, self.step_count, self.rank))
            with self.context.autocast(self.config.train.precision):
                losses = self.module(pixels, features, self.teacher.replay)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        if train.clip_grad:
            nn.utils.clip_grad_norm_(self.distiller.parameters(), train.clip_grad)
        self.optimizer.step()
        self.step_count += 1
        return {name: value.detach() for name, value in losses.items()}

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        assert self.optimizer is not None, "start() comes first"
        return {
            "distiller": self.distiller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_count,
            "median_norms": self.median_norms,
            "normalization": {"mean": self.context.normalize.mean, "std": self.context.normalize.std},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was taken; calls `calibrate` and `start` itself.

        Raises MisfitError for the state of another student.
        """
        layers = set(self.distiller.layers)
        if set(state["median_norms"]) != layers:
            raise misfit(KeyError(f"its teacher's layers are {sorted(state['median_norms'], key=str)}"))
        self.calibrate(state["median_norms"])
        try:
            self.distiller.load_state_dict(state["distiller"])
        except (RuntimeError, KeyError) as error:
            raise misfit(error) from error
        self.start()
        assert self.optimizer is not None
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise misfit(error) from error
        self.step_count = state["step"]

    def _build(self, layers: tuple[int, ...]) -> Distiller:
        config = self.config
        size = config.data.image_size
        model: Any = build_student(config)
        name = f"student {config.student.name}"
        depth = TappedViT(model, [0], name=name).depth
        kind = refiner_class(config.method)
        student_layers = student_layers_of(config, layers, self.teacher.depth, depth, kind.map_layers)
        student = TappedViT(model, student_layers, name=name)
        check_student(model, name, size)
        self.teacher.check_size(size)
        with torch.random.fork_rng(devices=[]):  # student and projections start alike whatever the refiner draws
            torch.manual_seed(derive(config.seed, 3))
            refiner = kind(self.teacher, layers, config.method)
        return Distiller(
            student,
            student_layers,
            self.teacher,
            layers,
            refiner,
            (self.teacher.grid(size), student.grid(size)),
            (self.teacher.covered(size), student.covered(size)),
            kd_weight=config.method.loss.kd,
            detach=config.method.detach_target and not kind.joint,
        )

    def _freeze_unreached(self) -> None:
        """Freezes what no loss reaches (the final norm, blocks behind the last distilled one)."""
        pixels = torch.zeros(2, 3, self.config.data.image_size, self.config.data.image_size, device=self.context.device)
        features = self.context.teacher_pass(self.teacher, pixels, self.config.train.precision)
        trained = [p for p in self.distiller.parameters() if p.requires_grad]
        with torch.random.fork_rng(devices=[]), self.context.autocast(self.config.train.precision):
            loss = self.distiller(pixels, features, self.teacher.replay)["loss"]
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True)):
            parameter.requires_grad_(gradient is not None)

    def _without_decay(self) -> list[str]:
        listed: set[str] = getattr(self.student_model, "no_weight_decay", set)()
        refiner = [f"refiner.{name}" for name, _ in self.distiller.refiner.named_parameters()]
        return [*(f"{STUDENT_WEIGHTS}{name}" for name in listed), *refiner]
