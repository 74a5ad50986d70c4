"""Evaluation and analysis as functions, for networks and data of one's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.arguments import resolve
from singer_ray.console.outputs import check_out, given_folder, prepare_out
from singer_ray.console.wording import speaks_python
from singer_ray.errors import UserError
from singer_ray.layout import RESULT

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class Evaluation:
    """Networks that were scored on the same images."""

    result: Mapping[str, Any]
    """What result.json holds: networks (name -> metrics, input, notes), teacher, configuration, versions."""

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Network -> metric -> value; `SPLIT/NAME` reads the last block's output, `SPLIT/after_norm/NAME` behind it."""
        return {name: entry["metrics"] for name, entry in self.result["networks"].items()}

    @property
    def notes(self) -> Mapping[str, Sequence[str]]:
        """Network -> what a reader of its metrics must know."""
        return {name: entry["notes"] for name, entry in self.result["networks"].items()}

    @property
    def table(self) -> pd.DataFrame:
        """One row a metric, one column a network."""
        import pandas as pd

        return pd.DataFrame(self.metrics)

    def __repr__(self) -> str:
        metrics = self.metrics
        count = len({name for own in metrics.values() for name in own})
        return f"Evaluation({', '.join(metrics)}: {count} metrics in .table)"


@dataclass(frozen=True)
class Analysis:
    """What a teacher's features are like, and what that does to distillation."""

    result: Mapping[str, Any]
    """What result.json holds."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """`teacher/...` of every block, `refined/...`, `student/...`, and the bias at the start and at the end."""
        metrics: Mapping[str, float] = self.result["metrics"]
        return metrics

    @property
    def verdict(self) -> str:
        """The answer in a paragraph."""
        return str(self.result["verdict"]["text"])

    @property
    def artifacts(self) -> bool:
        """Whether a distilled block has artifacts that matter."""
        return bool(self.result["verdict"]["artifacts"])

    @property
    def rank(self) -> int | None:
        """Where to start with `method.rank`; None where there are no directions to take out."""
        rank: int | None = self.result["verdict"]["rank"]
        return rank

    @property
    def refiner(self) -> str:
        """What to try first as `method.refiner`: none, singer or layernorm."""
        return str(self.result["verdict"]["refiner"])

    def __repr__(self) -> str:
        return f"Analysis(artifacts={self.artifacts}, rank={self.rank}, {len(self.metrics)} metrics)"


@speaks_python
def evaluate_networks(
    networks: str | nn.Module | Sequence[str | nn.Module] | Mapping[str, str | nn.Module],
    data: Any = None,
    *,
    teacher: nn.Module | str | None = None,
    preset: str = "demo",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Scores frozen networks side by side: `python -m singer_ray.evaluate` from Python.

    Args:
        networks: timm-like Vision Transformers (modules with `.blocks`), or names as the command takes them (a run's
            folder, an exported folder, a timm name, hf-hub:OWNER/MODEL); one, several, or a mapping that names them.
        data: annotated data sets under "train" (what probes are fitted on), "val" and "test", as for `distill`; those
            of the configuration when None.
        teacher: a network to compare with (`gram_cosine`); none when None.
        preset: what the configuration starts from: a shipped name or a YAML file.
        settings: dotted names and values on top of it. Each network reads images of its own size and crop unless
            `data.image_size` or `data.crop_pct` is among them.
        out: folder for result.json; nothing is written when None.
        overwrite: replace an earlier result in `out`.
        log: receives a line for each network.

    Raises UserError for whatever can be mended, with a message that says how.
    """
    from singer_ray.evaluation.comparison import Candidates, compare
    from singer_ray.publishing.result import git_commit, versions, write_json
    from singer_ray.training.context import pick_device

    named = _named(networks)
    folder = None if out is None else given_folder(out)
    if folder is not None:
        check_out(folder, overwrite=overwrite)
    begin = time.perf_counter()
    config, inputs = resolve(teacher, data, None, preset, settings)
    given = [*(settings or {}), *(["teacher.name"] if isinstance(teacher, str) else [])]
    candidates = Candidates(named, given, inputs.teacher, teacher is not None, inputs.data)
    comparison = compare(config, candidates, pick_device(config.train.device), log)
    provenance = {"config": config.model_dump(mode="json"), "versions": versions(), "git_commit": git_commit()}
    result = {**comparison, **provenance, "seconds": round(time.perf_counter() - begin, 3)}
    if folder is not None:
        prepare_out(folder, overwrite=overwrite)
        write_json(folder / RESULT, result)
    return Evaluation(result)


@speaks_python
def analyze_teacher(
    teacher: nn.Module | str | None = None,
    data: Any = None,
    *,
    preset: str = "demo",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    k: float = 4.0,
    steps: int = 100,
    images: int = 512,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Analysis:
    """Says whether a teacher's features carry artifacts and whether these bias distillation.

    `python -m singer_ray.analyze` from Python.

    Args:
        teacher: a timm-like Vision Transformer (a module with `.blocks`), or a name as for `teacher.name`.
        data: a data set, or several under "train", "val" and "test", as for `distill`; labels are not needed.
        preset: what the configuration starts from: a shipped name or a YAML file.
        settings: dotted names and values on top of it.
        out: folder for result.json and the pictures; nothing is written when None.
        k: a token counts as an outlier when its norm is above k x the median norm of its image.
        steps: training steps over which the gradient's share is followed; 0 measures an untrained student only.
        images: images to read, of "val" where there is one, else of "train"; 0 means all.
        overwrite: replace an earlier result in `out`.
        log: receives the lines of progress and, last, the verdict.

    Raises UserError for whatever can be mended, with a message that says how.
    """
    from singer_ray.analysis.findings import AnalysisSettings
    from singer_ray.analysis.run import run_analysis

    for name, value, allowed in (("k", k, k > 1), ("steps", steps, steps >= 0), ("images", images, images >= 0)):
        if not allowed:
            raise UserError(f"{name} is {value}. Allowed: {'a number above 1' if name == 'k' else 'a number from 0'}.")
    config, inputs = resolve(teacher, data, None, preset, settings)
    folder = None if out is None else given_folder(out)
    if folder is not None:
        check_out(folder, overwrite=overwrite)
    result = run_analysis(
        config,
        folder,
        AnalysisSettings(k, steps, images),
        inputs=inputs,
        log=log,
        prepare=lambda: None if folder is None else prepare_out(folder, overwrite=overwrite),
    )
    return Analysis(result)


def _named(networks: Any) -> dict[str, Any]:
    """Names and networks; modules without a name are called by their class."""
    if isinstance(networks, Mapping):
        return dict(networks)
    listed = list(networks) if isinstance(networks, Sequence) and not isinstance(networks, str) else [networks]
    named: dict[str, Any] = {}
    for network in listed:
        name = plain = network if isinstance(network, str) else type(network).__name__
        if plain in named and isinstance(network, str):
            raise UserError(f"network {plain!r} is given twice. Name each once.")
        while name in named:
            name = f"{plain}-{sum(other.partition('-')[0] == plain for other in named) + 1}"
        named[name] = network
    if not named:
        raise UserError("networks is empty. Give one or more: modules with .blocks, folders, or timm names.")
    return named
