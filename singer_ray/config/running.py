"""How a run goes: training, search and export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from singer_ray.config.block import Block


class TrainConfig(Block):
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


class SearchConfig(Block):
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


class ExportConfig(Block):
    """Where the best students go."""

    to: str | None = None
    """Folder or s3://bucket/prefix that receives a copy of the best students."""
    top: int = Field(3, ge=1)
    """How many students."""
    endpoint: str | None = None
    """Address of an S3-compatible server, when it is not AWS."""
