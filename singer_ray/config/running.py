"""How a run goes: training, search and export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from singer_ray.config.places import Place
from singer_ray.settings import Block


class TrainConfig(Block):
    """The distillation run."""

    epochs: int = Field(100, ge=1)
    """Epochs: evaluation, report and checkpoint come after each."""
    steps_per_epoch: int = Field(0, ge=0)
    """Optimiser steps per epoch; 0 means one pass over the training images."""
    batch_size: int = Field(512, ge=1)
    """Images per step, over all workers."""
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
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the student's weights (0.99 to 0.9999), which is then evaluated and exported; 0 has
    none. In early steps the decay is lower: at most 1 - (steps done)^(-2/3)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; auto is bfloat16 on a GPU that has it, else float32. Norms, quantiles and Gram stay float32."""
    workers: int = Field(1, ge=1)
    """Training processes, one GPU each where there are GPUs, else one CPU."""
    launcher: Literal["auto", "local", "ray"] = "auto"
    """local (this process), ray (Ray Train), or auto: local for one worker, ray for more."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """CPU threads per worker."""
    storage: Place | None = None
    """Where Ray keeps checkpoints and state: a folder that all nodes share, or s3://bucket/prefix; else in OUT."""
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where the curves of a run go besides OUT/history.csv; those of a search go by search.trackers."""


class SearchConfig(Block):
    """The hyperparameter search."""

    space: Place = "singer"
    """Search space: a YAML file, or the name of a shipped one (tune_spaces/*.yaml)."""
    objectives: tuple[str, ...] = ()
    """What is optimised: NAME, NAME:max or NAME:min of metrics that trials report; several make a Pareto front. By
    default val/miou where there are masks, else val/linear_top1. Without :max or :min the metric's name decides."""
    stop_metric: str | None = None
    """Metric by which trials are stopped early, NAME, NAME:max or NAME:min; by default the first objective."""
    sampler: Literal["tpe", "gp", "cmaes", "nsga2", "random", "grid"] = "tpe"
    """Who suggests parameters: tpe (multivariate), gp (Gaussian process), cmaes, nsga2, random, or grid (each once, as
    far as search.trials goes)."""
    scheduler: Literal["asha", "hyperband", "median", "none"] = "asha"
    """Who stops trials early: asha (successive halving), hyperband, median (worse than the median), or none."""
    trials: int = Field(12, ge=1)
    """Trials to start."""
    concurrent: int = Field(0, ge=0)
    """Trials at a time, at most; 0 is as many as the cluster has room for. It follows machines that join or leave."""
    grace_epochs: int = Field(2, ge=1)
    """Epochs that every trial gets before the scheduler may stop it."""
    reduction_factor: int = Field(3, ge=2)
    """asha and hyperband keep one in this many trials at each rung."""
    startup_trials: int = Field(5, ge=1)
    """Random trials before tpe, gp or cmaes take over, and finished ones before median stops any."""
    time_budget: float = Field(0.0, ge=0)
    """Seconds after which the search stops, those before a resume included; 0 has no limit."""
    gpu_hours: float = Field(0.0, ge=0)
    """GPU-hours after which the search stops; 0 has no limit."""
    money: float = Field(0.0, ge=0)
    """Cost in US dollars, by the price of the cluster's nodes, after which the search stops; 0 has no limit."""
    price_per_node_hour: float | None = Field(None, ge=0)
    """Dollars that each node costs per hour; by default what the cluster file or the price list of the package says."""
    target: float | None = None
    """Value of the first objective at which the search stops."""
    plateau_trials: int = Field(0, ge=0)
    """Stop when the best value (with several objectives the hypervolume) gained too little over this many finished
    trials; 0 never stops for that."""
    plateau_gain: float = Field(0.0, ge=0)
    """What is too little for plateau_trials."""
    warm_start: Place | None = None
    """Folder or s3:// address of an earlier search over the same space, with the same data, teacher, student and
    epochs: the sampler starts with its finished trials."""
    repeats: int = Field(1, ge=1)
    """Seeds with which the leading trials are trained, the first included, before a winner is named."""
    repeat_top: int = Field(3, ge=1)
    """How many leading trials are repeated."""
    study: Place | None = None
    """Database for the Optuna study (postgresql://..., mysql://..., sqlite:///...), instead of a journal in OUT."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """CPUs that each trial's host holds, or each of its workers."""
    gpus_per_trial: float | None = Field(None, ge=0)
    """GPUs of each trial's host, or of each worker: a whole number, or a fraction of one GPU (0.5: two trials share
    it); None is 1 where the cluster has GPUs, else 0."""
    max_failures: int = Field(2, ge=0)
    """How often a trial whose process or machine died is restored from its checkpoint."""
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where curves go besides the study; mlflow and wandb are extras of the package."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _fits_gpus(cls, given: float | None) -> float | None:
        if given is not None and given > 1 and given % 1:
            raise ValueError("a fraction of one GPU, or a whole number of GPUs")  # Ray splits no further
        return given


class ExportConfig(Block):
    """Where the best students go, and as what."""

    to: Place | None = None
    """Folder or s3://bucket/prefix that receives the best students as packages."""
    top: int = Field(3, ge=1)
    """How many students."""
    endpoint: str | None = None
    """Address of an S3-compatible server for --export and --storage, when it is not AWS."""
    onnx: Literal["auto", "yes", "no"] = "auto"
    """model.onnx in each package: auto writes it where the extra `onnx` is installed."""
    program: bool = False
    """model.pt2 in each package: the student as a torch.export program."""
    license: str | None = None
    """Licence of the students, as the Hugging Face Hub names it (mit, apache-2.0, cc-by-nc-4.0, ...), for the card."""
    storage_class: str | None = None
    """S3 storage class of what is written (STANDARD_IA, INTELLIGENT_TIERING, ...); by default the bucket's."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption in S3; by default the bucket's."""
    kms_key: str | None = None
    """Key for export.encryption aws:kms; by default the account's."""
    tags: tuple[Annotated[str, Field(pattern="^[^=]+=.*$")], ...] = ()
    """Tags of the objects in S3, as NAME=VALUE."""
    attempts: int = Field(6, ge=1)
    """How often a request is tried before a fault of the connection or the server counts."""
    timeout: float = Field(60.0, gt=0)
    """Seconds without an answer after which a request has failed."""
