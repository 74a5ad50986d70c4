"""Which settings have an effect, and when: one table over all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from singer_ray.config.sources import SOURCES, readers_of
from singer_ray.config.tree import Config, field_names
from singer_ray.method.refiners import described
from singer_ray.settings import Condition, above_zero, any_of, any_of_all, in_s3, is_set, only, unset


def _named_teacher() -> Condition:
    return Condition(lambda c: not c.teacher.name.startswith("own:"), ("teacher.name",), "a teacher that is named")


ALWAYS: tuple[Condition, ...] = ()
_SHARED = only("evaluation.data.source", "same")
_IN_S3 = (any_of(in_s3("export.to"), in_s3("train.storage")),)
_EXPORTED = (is_set("export.to"),)
_PREFIT = Condition(
    lambda c: c.method.prefit_steps > 0,
    ("method.prefit.steps", "method.linearization"),
    "method.prefit.steps above 0",
)
_STOPPED = (only("search.scheduler", "asha", "hyperband", "median"),)


def _of_sources(block: str, *scored: Condition) -> dict[str, tuple[Condition, ...]]:
    """The settings that sources read; `scored` are further conditions of those that only scores need."""
    for_scores = {name for entry in SOURCES.values() for name in entry.for_scores}
    effects: dict[str, tuple[Condition, ...]] = {}
    for name in dict.fromkeys(name for entry in SOURCES.values() for name in entry.reads):
        more = scored if name in for_scores else ()
        effects[f"{block}.{name}"] = (only(f"{block}.source", *readers_of(name)), *more)
    # Masks are fitted on in one set and scored in another: one without the other gives nothing.
    masked = any_of(is_set(f"{block}.val_masks"), is_set(f"{block}.test_masks"))
    for split in ("train", "val", "test"):
        other = masked if split == "train" else is_set(f"{block}.train_masks")
        effects[f"{block}.{split}_masks"] += (is_set(f"{block}.{split}"), other)
    return effects


def _of_method() -> dict[str, tuple[Condition, ...]]:
    """What a refiner alone reads has an effect where it is chosen; the pre-fit, where the chosen one is fitted."""
    refiners = described()
    fitted = any_of_all(*(each.fitted_if(name) for name, each in refiners.items() if each.fitted is not None))
    effects = {
        "method.refiner": ALWAYS,
        "method.detach_target": (*fitted, only("method.freeze", False)),
        "method.loss.kd": ALWAYS,
        "method.prefit.steps": fitted,
        **{f"method.prefit.{name}": (*fitted, _PREFIT) for name in ("lr", "batch_size")},
    }
    for name, each in refiners.items():
        effects |= each.effects(name)
    return {name: effects[name] for name in field_names() if name.startswith("method.")}


EFFECTS: dict[str, tuple[Condition, ...]] = {
    "seed": ALWAYS,
    "data.source": ALWAYS,
    **_of_sources("data", _SHARED),
    "data.image_size": ALWAYS,
    "data.crop_pct": ALWAYS,
    "data.augment": ALWAYS,
    "data.crop_scale": (only("data.augment", "crop_flip"),),
    "data.loader_workers": ALWAYS,
    "teacher.name": ALWAYS,
    "teacher.checkpoint": (_named_teacher(),),
    "teacher.pretrained": (_named_teacher(), unset("teacher.checkpoint")),
    "teacher.layers": ALWAYS,
    **{f"student.{name}": ALWAYS for name in ("name", "width", "depth", "heads", "patch_size", "layers")},
    **_of_method(),
    **{
        f"train.{name}": ALWAYS
        for name in (
            "epochs",
            "steps_per_epoch",
            "batch_size",
            "lr",
            "weight_decay",
            "warmup",
            "clip_grad",
            "drop_path",
            "precision",
            "workers",
            "launcher",
            "device",
            "threads",
            "storage",
            "trackers",
        )
    },
    "evaluation.data.source": ALWAYS,
    **_of_sources("evaluation.data"),
    **{
        f"evaluation.{name}": ALWAYS
        for name in (
            "protocol",
            "every",
            "fit_images",
            "pooling",
            "l2",
            "l2_grid",
            "knn.k",
            "knn.temperature",
            "batch_size",
            "artifact_ratio",
        )
    },
    **{
        f"evaluation.official.{name}": (only("evaluation.protocol", "official"),)
        for name in (
            "epochs",
            "batch_size",
            "lr",
            "weight_decay",
            "mode",
            "max_depth",
        )
    },
    **{
        f"search.{name}": ALWAYS
        for name in (
            "space",
            "objectives",
            "sampler",
            "scheduler",
            "trials",
            "concurrent",
            "time_budget",
            "gpu_hours",
            "money",
            "price_per_node_hour",
            "target",
            "plateau_trials",
            "warm_start",
            "repeats",
            "study",
            "cpus_per_trial",
            "gpus_per_trial",
            "max_failures",
            "trackers",
        )
    },
    "search.stop_metric": _STOPPED,
    "search.grace_epochs": _STOPPED,
    "search.reduction_factor": (only("search.scheduler", "asha", "hyperband"),),
    "search.startup_trials": (
        any_of(only("search.sampler", "tpe", "gp", "cmaes"), only("search.scheduler", "median")),
    ),
    "search.plateau_gain": (above_zero("search.plateau_trials"),),
    "search.repeat_top": (Condition(lambda c: c.search.repeats > 1, ("search.repeats",), "search.repeats above 1"),),
    "export.to": ALWAYS,
    "export.top": ALWAYS,
    "export.onnx": _EXPORTED,
    "export.program": _EXPORTED,
    "export.license": _EXPORTED,
    **{f"export.{name}": _IN_S3 for name in ("endpoint", "storage_class", "encryption", "tags", "attempts", "timeout")},
    "export.kms_key": (*_IN_S3, only("export.encryption", "aws:kms")),
}
"""Setting -> all that must hold for it to have an effect."""

_DATA_ONLY = ("method.", "student.", "search.", "export.")
_NOT_EVALUATED = (
    "data.augment",
    "data.crop_scale",
    *(
        f"train.{name}"
        for name in (
            "epochs",
            "steps_per_epoch",
            "batch_size",
            "lr",
            "weight_decay",
            "warmup",
            "clip_grad",
            "drop_path",
            "precision",
            "workers",
            "launcher",
            "storage",
            "trackers",
        )
    ),
)
_ALONE = ("evaluation.protocol", "evaluation.official.", "evaluation.l2_grid")
"""Of the evaluate command: training always uses the probes, with one regulariser."""
UNREAD: dict[str, tuple[str, ...]] = {
    "train": ("search.", "export.", *_ALONE),
    "tune": ("train.trackers", *_ALONE),
    "analyze": (
        "search.",
        "export.",
        "train.epochs",
        "train.steps_per_epoch",
        "train.workers",
        "train.launcher",
        "train.storage",
        "train.trackers",
        "evaluation.every",
        "evaluation.l2",
        "evaluation.knn.",
        *_ALONE,
    ),
    "evaluate": (*_DATA_ONLY, *_NOT_EVALUATED, "teacher.layers", "evaluation.every"),
    "teacher": (*_DATA_ONLY, *_NOT_EVALUATED, "teacher.", "evaluation.", "data.scenes.train_images"),
    "export": ("seed", "data.", "teacher.", *_DATA_ONLY[:3], "train.", "evaluation."),
    "digits": ("",),
    "report": ("",),
}
"""Command -> beginnings of the settings that it never reads."""


_OF_LABELS = ("evaluation.knn.",)


def has_effect(name: str, config: Config) -> bool:
    """Whether a setting decides anything, the others being as they are."""
    return all(condition.holds(config) for condition in EFFECTS[name])


def deciding(name: str) -> tuple[str, ...]:
    """The settings on which it depends whether this one has an effect."""
    return tuple(dict.fromkeys(setting for condition in EFFECTS[name] for setting in condition.settings))


def explain_dead(name: str, config: Config) -> str:
    """Why a setting has no effect, and what to do. It must have none."""
    missing = next(condition for condition in EFFECTS[name] if not condition.holds(config))
    reasons = ", ".join(f"{setting} is {_shown(config.value(setting))}" for setting in dict.fromkeys(missing.settings))
    return f"{name} has no effect: {reasons}. Use it with {missing.wanted}, or leave it out"


def remarks(
    given: Collection[str], configs: Sequence[Config], command: str, annotations: Collection[str] | None = None
) -> list[str]:
    """One line for each setting in `given` that has no effect in any of `configs` (the first is the one to name).

    `annotations`, where the images are known, are those that the probes are fitted on and scored by ("label", ...).
    Without `configs` only that is judged which the command never reads.
    """
    lines = []
    for name in EFFECTS:
        if name not in given:
            continue
        if name.startswith(UNREAD.get(command, ())):
            lines.append(f"{name} has no effect: `{command}` does not read it. Leave it out.")
        elif configs and not any(has_effect(name, config) for config in configs):
            lines.append(f"{explain_dead(name, configs[0])}.")
        elif annotations is not None and name.startswith(_OF_LABELS) and "label" not in annotations:
            lines.append(
                f"{name} has no effect: the images have no labels to compare neighbours by. Leave it out, or give "
                "images in one folder per class."
            )
    return lines


def _shown(value: object) -> str:
    return "not set" if value is None else repr(value)
