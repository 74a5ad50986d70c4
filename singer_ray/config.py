"""Every knob, in one frozen tree.

The same dotted names are used in preset files (nested), in search spaces and on the command line
(`--method.rank 16`). Unknown names are refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from singer_ray.errors import UserError, nearest
from singer_ray.resources import find_shipped, shipped_names

MAX_STRENGTH = 1.25
"""Above it the artifacts come back with the opposite sign."""


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ScenesConfig(_Block):
    """The built-in procedural scenes (data.source scenes)."""

    train_images: int = Field(6144, ge=1)
    """Training scenes."""
    val_images: int = Field(512, ge=1)
    """Validation scenes."""
    test_images: int = Field(1024, ge=1)
    """Test scenes."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes themselves; not changed by --seed."""


class SourceConfig(_Block):
    """Where images come from."""

    source: Literal["scenes", "imagefolder", "own"] = "scenes"
    """scenes (built in), imagefolder (folders of image files; class folders give the labels), or own (from Python)."""
    train: str | None = None
    """Folder of training images (imagefolder). Labels are optional for distillation."""
    val: str | None = None
    """Folder of validation images (imagefolder): trials are selected on it."""
    test: str | None = None
    """Folder of test images (imagefolder), read once at the end. Without it there are no test/ metrics."""
    train_masks: str | None = None
    """Folder of masks of the training images (imagefolder): PNG files of class numbers (255: unknown), classes.txt."""
    val_masks: str | None = None
    """Folder of masks of the validation images (imagefolder), with the classes of train_masks."""
    test_masks: str | None = None
    """Folder of masks of the test images (imagefolder), with the classes of train_masks."""
    scenes: ScenesConfig = ScenesConfig()


class DataConfig(SourceConfig):
    """The images that teacher and student see."""

    image_size: int = Field(224, ge=1)
    """Height and width of the input, in pixels."""
    crop_pct: float = Field(1.0, gt=0, le=1)
    """Evaluation view: resize the shorter side to image_size / crop_pct, then cut the centre."""
    augment: Literal["none", "crop_flip"] = "none"
    """Training view: none (the evaluation view) or crop_flip (random resized crop and horizontal flip)."""
    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Smallest and largest share of the image area that crop_flip keeps."""
    loader_workers: int = Field(0, ge=0)
    """Processes that decode images, for each training worker; 0 decodes in the worker itself."""


class TeacherConfig(_Block):
    """The large network."""

    name: str = "demo"
    """demo, demo-clean, a timm name, hf-hub:owner/model, or local-dir:folder."""
    checkpoint: str | None = None
    """File of weights to load instead of the published ones."""
    pretrained: bool = True
    """Load the published weights. False gives random ones: only for trying things out."""
    layers: tuple[int, ...] = ()
    """Distilled teacher layers, ascending from 0; empty picks the one at 3/4 of the depth and the last."""


class StudentConfig(_Block):
    """The small network. Fields left None keep what the named architecture has."""

    name: str = "vit_tiny_patch16_224"
    """timm architecture; its weights start fresh."""
    width: int | None = Field(None, ge=1)
    """Embedding dimension."""
    depth: int | None = Field(None, ge=1)
    """Number of blocks."""
    heads: int | None = Field(None, ge=1)
    """Attention heads; must divide the width."""
    patch_size: int | None = Field(None, ge=1)
    """Patch height and width, in pixels."""
    layers: tuple[int, ...] = ()
    """Student layers that learn from teacher.layers, one each; empty maps by relative depth."""


class LossConfig(_Block):
    """Weights of the loss terms (paper equation 9)."""

    kd: float = Field(1.0, gt=0)
    """Weight of L_KD."""
    outlier: float = Field(0.1, ge=0)
    """lambda_outlier, weight of the norm suppression."""
    info: float = Field(50.0, ge=0)
    """lambda_info, weight of the Gram information loss. Above about 500 x lambda_outlier, suppression gets weak."""


class PrefitConfig(_Block):
    """Fitting of the refiner alone, before the student starts."""

    steps: int = Field(200, ge=0)
    """Steps; 0 starts the student at once."""
    lr: float = Field(5e-3, gt=0)
    """Learning rate of AdamW."""
    batch_size: int = Field(32, ge=1)
    """Images a step."""


class ClipConfig(_Block):
    """The refiner clip."""

    ratio: float = Field(1.5, gt=0)
    """Longest patch that is left, as a multiple of the median norm of its image."""


class QuantileClipConfig(_Block):
    """The refiner quantile_clip."""

    quantile: float = Field(0.95, gt=0, lt=1)
    """Longest patch that is left, as a quantile of the norms of its image."""


class VitkdConfig(_Block):
    """The baseline vitkd."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Share of patches that are masked and must be generated."""


class MethodConfig(_Block):
    """How the teacher's features are cleaned."""

    refiner: Literal["singer", "none", "vitkd", "clip", "layernorm", "quantile_clip"] = "singer"
    """singer (low-rank adapter, arXiv 2509.20986), or a baseline: none (plain feature distillation, FitNet), vitkd
    (masked generation), clip (norms to a multiple of the median), quantile_clip, layernorm (normalised targets)."""
    variant: Literal["recommended", "paper", "official"] = "recommended"
    """Of singer: recommended; paper (as written: null space on both sides, joint training); official (the authors'
    code, whose weights are kd 100 or 1, outlier 0.01, info 1). The last two use neither prefit nor detach_target."""
    linearization: Literal["auto", "mlp", "attention_mlp", "jacobian", "random", "pca"] = "auto"
    """Of singer, where Phi_down starts: what the next block reads least by its MLP (mlp), by attention and MLP
    (attention_mlp), by Jacobian products on images (jacobian); random directions; those along which features vary most
    (pca). auto is attention_mlp, and mlp in the variant official."""
    jacobian_probes: int = Field(8, ge=1)
    """Random vector-Jacobian products of the linearization jacobian."""
    official_threshold: float = Field(1e-3, gt=0)
    """Of the variant official: singular values below it count as null."""
    gate: float = Field(0.0, ge=0)
    """Of singer: only patches above this multiple of their image's median norm are changed; 0 changes all."""
    rank: int = Field(16, ge=1)
    """Rank of the adapter: at least the number of artifact directions, at most the teacher's width."""
    strength: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    """How much of the fitted change the student is shown: 0 none, 1 all, at most 1.25."""
    outlier_quantile: float = Field(0.95, gt=0, lt=1)
    """gamma: patches with a norm above this quantile of their image are suppressed."""
    detach_target: bool = True
    """Keep the distillation gradient away from the adapter."""
    loss: LossConfig = LossConfig()
    prefit: PrefitConfig = PrefitConfig()
    clip: ClipConfig = ClipConfig()
    quantile_clip: QuantileClipConfig = QuantileClipConfig()
    vitkd: VitkdConfig = VitkdConfig()


class TrainConfig(_Block):
    """The distillation run."""

    epochs: int = Field(100, ge=1)
    """Epochs: evaluation, report and checkpoint come after each."""
    steps_per_epoch: int = Field(0, ge=0)
    """Optimiser steps an epoch; 0 means one pass over the training images."""
    batch_size: int = Field(512, ge=1)
    """Images a step over all workers."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of matrices; biases, norms and adapters have none."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of all steps in which the learning rate rises; it then falls as a half cosine."""
    clip_grad: float = Field(1.0, ge=0)
    """Largest gradient norm; 0 does not clip."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the student."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; auto is bfloat16 on a GPU that has it, else float32. Norms, quantiles and Gram stay float32."""
    workers: int = Field(1, ge=1)
    """Training processes, one GPU each where there are GPUs, else one CPU."""
    launcher: Literal["auto", "local", "ray"] = "auto"
    """local (this process), ray (Ray Train), or auto: local for one worker, ray for more."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """CPU threads a worker."""
    storage: str | None = None
    """Where Ray keeps checkpoints and state: a folder that all nodes share, or s3://bucket/prefix; else in OUT."""


class EvaluationSourceConfig(_Block):
    """Annotated images for the probes, when they are not those of `data`."""

    source: Literal["same", "scenes", "imagefolder", "own"] = "same"
    """same (the sets of `data`), or another source with its own train, val and test sets; own is for Python."""
    train: str | None = None
    """Folder of labelled images that the probes are fitted on (imagefolder)."""
    val: str | None = None
    """Folder of labelled validation images (imagefolder)."""
    test: str | None = None
    """Folder of labelled test images (imagefolder)."""
    train_masks: str | None = None
    """Folder of masks of the training images (imagefolder): PNG files of class numbers (255: unknown), classes.txt."""
    val_masks: str | None = None
    """Folder of masks of the validation images (imagefolder), with the classes of train_masks."""
    test_masks: str | None = None
    """Folder of masks of the test images (imagefolder), with the classes of train_masks."""
    scenes: ScenesConfig = ScenesConfig()


class KnnConfig(_Block):
    """The nearest-neighbour probe."""

    k: int = Field(20, ge=1)
    """Neighbours."""
    temperature: float = Field(0.07, gt=0)
    """Votes are weighted exp(cosine / temperature)."""


class OfficialConfig(_Block):
    """Heads trained as the paper's code trains them (evaluation.protocol official)."""

    epochs: int = Field(150, ge=1)
    """Passes over the fit images; the paper's code is run with 150 for classification and 200 for the dense heads."""
    batch_size: int = Field(64, ge=1)
    """Images a step."""
    lr: float = Field(0.5, gt=0)
    """Peak learning rate of SGD without momentum; it falls as a half cosine."""
    weight_decay: float = Field(1e-6, ge=0)
    """Weight decay of SGD."""
    mode: Literal["cls", "avg"] = "cls"
    """What the classification head reads: the class token, or the mean of the patch tokens."""
    max_depth: float = Field(0.0, ge=0)
    """Depth of the last of the 256 bins, in the source's unit (NYUd: 10); 0 takes the largest of the fit images."""


class EvaluationConfig(_Block):
    """Frozen-feature probes of the student."""

    data: EvaluationSourceConfig = EvaluationSourceConfig()
    protocol: Literal["probes", "official"] = "probes"
    """probes (fitted to their optimum), or official (heads trained by SGD); training always uses probes."""
    every: int = Field(1, ge=1)
    """Epochs between evaluations; the last epoch is always evaluated."""
    fit_images: int = Field(1024, ge=0)
    """Training images that the probes are fitted on, the first of a fixed shuffle; 0 means all."""
    pooling: Literal["mean", "class"] = "mean"
    """What stands for an image: the mean of its patch tokens, or the class token."""
    l2: float = Field(1e-4, ge=0)
    """Regulariser of the linear probes."""
    l2_grid: tuple[Annotated[float, Field(ge=0)], ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """Regularisers that the evaluate command chooses from, on validation; empty: l2. Training always uses l2."""
    knn: KnnConfig = KnnConfig()
    batch_size: int = Field(128, ge=1)
    """Images a forward pass."""
    artifact_ratio: float = Field(4.0, gt=1)
    """A patch is an artifact when its norm is above this many times the median norm of its image."""
    official: OfficialConfig = OfficialConfig()


class SearchConfig(_Block):
    """The hyperparameter search."""

    space: str = "singer"
    """Search space: a YAML file, or the name of a shipped one (tune_spaces/*.yaml)."""
    trials: int = Field(12, ge=1)
    """Trials to start."""
    time_budget: float = Field(0.0, ge=0)
    """Seconds after which the search stops; 0 has no limit."""
    concurrent: int = Field(0, ge=0)
    """Trials at a time; 0 takes as many as the cluster has room for."""
    metric: str | None = None
    """What is optimised; by default val/miou where there are masks, else val/linear_top1."""
    mode: Literal["auto", "max", "min"] = "auto"
    """Direction; auto minimises depth_rmse and max_median_norm, maximises the rest."""
    grace_epochs: int = Field(2, ge=1)
    """Epochs that every trial gets before ASHA may stop it."""
    reduction_factor: int = Field(3, ge=2)
    """ASHA keeps one in this many trials at each rung."""
    startup_trials: int = Field(5, ge=1)
    """Random trials before TPE takes over."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """CPUs that each trial's host holds."""
    gpus_per_trial: float | None = Field(None, ge=0)
    """GPUs that each trial's host holds, fractions allowed; None is 1 where the cluster has GPUs, else 0."""
    max_failures: int = Field(2, ge=0)
    """How often a trial whose process or machine died is restored from its checkpoint."""


class ExportConfig(_Block):
    """Where the best students go."""

    to: str | None = None
    """Folder or s3://bucket/prefix that receives a copy of the best students."""
    top: int = Field(3, ge=1)
    """How many students."""
    endpoint: str | None = None
    """Address of an S3-compatible server, when it is not AWS."""


class Config(_Block):
    """Everything that decides a run."""

    seed: int = Field(0, ge=0)
    """Fixes initial weights, batches, views and the search."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.train.batch_size % self.train.workers:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} does not divide among train.workers {self.train.workers}. "
                "Choose a multiple"
            )
        low, high = self.data.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"data.crop_scale is {low} {high}. Allowed: 0 < smallest <= largest <= 1")
        for knob, layers in (("teacher.layers", self.teacher.layers), ("student.layers", self.student.layers)):
            if list(layers) != sorted(set(layers)) or any(n < 0 for n in layers):
                raise ValueError(f"{knob} is {list(layers)}. Allowed: ascending layer numbers from 0, each once")
        method = self.method
        if method.variant != "recommended" and method.refiner == "singer":
            if method.strength != 1:
                raise ValueError(
                    f"method.strength is {method.strength}, but the variant {method.variant} trains adapter and "
                    "student jointly at full strength. Use 1, or --method.variant recommended"
                )
            if method.variant == "official" and method.linearization not in ("auto", "mlp"):
                raise ValueError(
                    f"method.linearization is {method.linearization!r}, but the variant official has its own. "
                    "Allowed: auto or mlp; or --method.variant paper or recommended"
                )
        if self.student.layers and len(self.student.layers) != len(self.teacher.layers):
            raise ValueError(
                f"student.layers names {len(self.student.layers)} layers, teacher.layers {len(self.teacher.layers)}. "
                "Name one student layer for each teacher layer"
            )
        return self

    def override(self, dotted: Mapping[str, Any]) -> Config:
        """A copy with `{"method.rank": 4, ...}` set, checked as a whole. Raises UserError."""
        tree = self.model_dump()
        for name, value in dotted.items():
            _set(tree, name, value)
        return validate(tree, "the configuration")

    def to_yaml(self) -> str:
        """The whole tree as YAML that `--preset` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class TeacherRecipe:
    """How a small teacher is trained from scratch (`python -m singer_ray.teacher`)."""

    plant: bool = False
    """Also plant artifacts (needs a source with masks, and 3 blocks or more)."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 48
    """Images a step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    scenes: int = 24000
    """Scenes to train on (data.source scenes); data.scenes.train_images is for distillation."""
    width: int = 64
    """Embedding dimension."""
    depth: int = 6
    """Blocks."""
    heads: int = 2
    """Attention heads."""
    patch_size: int = 4
    """Patch height and width, in pixels."""
    plant_units: int = 3
    """Directions that the planted artifacts have."""
    plant_share: float = 0.04
    """Share of background patches that become artifacts."""
    plant_steps: int = 250
    """Steps of fine-tuning behind the planted block."""
    plant_lr: float = 1e-3
    """Peak learning rate of that fine-tuning."""


def load_preset(name: str) -> Config:
    """The configuration of a shipped preset (`demo`) or of a YAML file. Raises UserError."""
    path = find_shipped("presets", name)
    if path is None:
        raise UserError(
            f"--preset {name!r} is neither a file nor a shipped preset. "
            f"Allowed: {', '.join(shipped_names('presets'))}, or the path of a .yaml file."
        )
    return validate(read_yaml_mapping(path), str(path) if Path(name).exists() else f"preset {name}")


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it holds anything else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}. Give a text file in YAML.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Mend it at that place.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}. Allowed: a mapping of names to values.")
    return content


def validate(tree: Mapping[str, Any], where: str) -> Config:
    """A configuration from nested values. Raises UserError with the first fault in one line."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, where)) from error


def field_names() -> list[str]:
    """The dotted name of every knob, in the order of the tree."""
    return [name for name, _ in _fields(Config)]


def explain(error: ValidationError, where: str) -> str:
    """One line for the first fault: what, the value given, what is allowed, what to do."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return (
            f"{where} has an unknown name {name!r}.{nearest(name, [*field_names(), *Config.model_fields])} "
            "--help lists all names."
        )
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"{message}."
    return f"{name} is {first['input']!r} ({where}). Allowed: {_allowed(first['type'], message)}. --help explains it."


def _allowed(kind: str, message: str) -> str:
    text = message.removeprefix("Input should be ")
    plain = {
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "bool_parsing": "True or False",
        "bool_type": "True or False",
        "string_type": "text",
        "tuple_type": "a list",
        "model_type": "a block of names and values",
        "finite_number": "a finite number",
    }
    return plain.get(kind, text)


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    block = tree
    for part in path:
        block = block.get(part) if isinstance(block, dict) else None  # type: ignore[assignment]
    if not isinstance(block, dict) or last not in block or isinstance(block[last], dict):
        raise UserError(f"{dotted!r} names no knob.{nearest(dotted, field_names())} --help lists all names.")
    block[last] = value
