"""What a wrong name of a setting was meant to be: by its last part, by what other tools call it, by its spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 4
_ELSEWHERE: dict[str, str] = {
    "lr": "train.lr",
    "learning_rate": "train.lr",
    "base_lr": "train.lr",
    "wd": "train.weight_decay",
    "epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "e": "train.epochs",
    "steps": "train.steps_per_epoch",
    "max_steps": "train.steps_per_epoch",
    "batch_size": "train.batch_size",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "b": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "warmup_epochs": "train.warmup",
    "warmup_steps": "train.warmup",
    "warmup_ratio": "train.warmup",
    "max_grad_norm": "train.clip_grad",
    "grad_clip": "train.clip_grad",
    "amp": "train.precision",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "dtype": "train.precision",
    "mixed_precision": "train.precision",
    "gpu": "train.device",
    "cuda": "train.device",
    "cpu": "train.device",
    "gpus": "train.workers search.gpus_per_trial",
    "num_gpus": "train.workers search.gpus_per_trial",
    "n_gpus": "train.workers search.gpus_per_trial",
    "nproc_per_node": "train.workers",
    "world_size": "train.workers",
    "nodes": "train.workers",
    "gpus_per_trial": "search.gpus_per_trial",
    "cpus": "search.cpus_per_trial train.threads",
    "num_workers": "data.loader_workers train.workers",
    "j": "data.loader_workers",
    "dataloader_num_workers": "data.loader_workers",
    "teacher": "teacher.name",
    "teacher_model": "teacher.name",
    "student": "student.name",
    "student_model": "student.name",
    "model": "student.name teacher.name",
    "model_name": "student.name teacher.name",
    "arch": "student.name",
    "weights": "teacher.checkpoint",
    "ckpt": "teacher.checkpoint",
    "checkpoint": "teacher.checkpoint",
    "reg_tokens": "student.registers",
    "num_register_tokens": "student.registers",
    "ema_decay": "train.ema",
    "model_ema": "train.ema",
    "projection": "method.projector",
    "embed_dim": "student.width",
    "hidden_size": "student.width",
    "num_layers": "student.depth",
    "num_heads": "student.heads",
    "data": "data.train",
    "dataset": "data.train data.source",
    "data_dir": "data.train",
    "data_path": "data.train",
    "train_dir": "data.train",
    "train": "data.train",
    "images": "data.train",
    "val": "data.val",
    "val_dir": "data.val",
    "validation": "data.val",
    "test": "data.test",
    "test_dir": "data.test",
    "masks": "data.train_masks",
    "img_size": "data.image_size",
    "input_size": "data.image_size",
    "resolution": "data.image_size",
    "size": "data.image_size",
    "augmentation": "data.augment",
    "method": "method.refiner",
    "refiner": "method.refiner",
    "r": "method.rank",
    "alpha": "method.strength",
    "gamma": "method.outlier_quantile",
    "lambda_outlier": "method.loss.outlier",
    "lambda_info": "method.loss.info",
    "n_trials": "search.trials",
    "num_trials": "search.trials",
    "num_samples": "search.trials",
    "n": "search.trials",
    "n_jobs": "search.concurrent",
    "jobs": "search.concurrent",
    "max_concurrent": "search.concurrent",
    "parallel": "search.concurrent",
    "timeout": "search.time_budget",
    "time": "search.time_budget",
    "time_limit": "search.time_budget",
    "budget": "search.time_budget search.gpu_hours search.money",
    "pruner": "search.scheduler",
    "metric": "search.objectives",
    "objective": "search.objectives",
    "direction": "search.objectives",
    "patience": "search.plateau_trials",
    "search_space": "search.space",
    "study_storage": "search.study",
    "db": "search.study",
    "database": "search.study",
    "logger": "search.trackers",
    "log": "search.trackers",
    "wandb": "search.trackers",
    "mlflow": "search.trackers",
    "tensorboard": "search.trackers",
    "s3": "export.to train.storage",
    "bucket": "export.to train.storage",
    "endpoint_url": "export.endpoint",
    "output": "out",
    "output_dir": "out",
    "out_dir": "out",
    "save_dir": "out",
    "save": "out",
    "o": "out",
    "logdir": "out",
    "force": "overwrite",
    "f": "overwrite",
    "config_file": "preset",
    "config": "preset",
    "cfg": "preset",
    "c": "preset",
    "random_seed": "seed",
    "random_state": "seed",
    "s": "seed",
    "dryrun": "dry-run",
    "continue": "resume",
    "resume_from": "resume",
    "protocol": "evaluation.protocol",
    "probe": "evaluation.protocol",
    "k": "evaluation.knn.k",
}
"""What other tools call a setting, and its name here (several: the likeliest first)."""


def plain(name: str) -> str:
    """The one spelling in which names are compared: dashes and underscores are the same."""
    return name.lstrip("-").replace("-", "_")


def candidates(name: str, known: Iterable[str]) -> list[str]:
    """Those of `known` that `name` may stand for, the likeliest first; at most four."""
    spelt = {plain(k): k for k in known}
    wrong = plain(name).lower()
    block, _, last = wrong.rpartition(".")
    near = [] if block else _ELSEWHERE.get(wrong, "").split()
    same = [k for k in spelt if k.rpartition(".")[2] == last]
    near += sorted(same, key=lambda k: not k.startswith(f"{block}."))  # those of the block that was named go first
    if not near:
        near = difflib.get_close_matches(wrong, spelt, n=1, cutoff=0.6 if block else 0.75)
    if not near:
        near = _ELSEWHERE.get(last, "").split()
    if not near:
        close = difflib.get_close_matches(last, {k.rpartition(".")[2] for k in spelt}, n=1, cutoff=0.75)
        near = [k for k in spelt if k.rpartition(".")[2] in close]
    return list(dict.fromkeys(spelt[plain(k)] for k in near if plain(k) in spelt))[:_MOST]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """` Did you mean X?`, or `X or Y`, each with `prefix`; nothing where no name is near."""
    near = [f"{prefix}{name}" for name in candidates(name, known)]
    if not near:
        return ""
    return f" Did you mean {', '.join(near[:-1])}{' or ' if near[1:] else ''}{near[-1]}?"
