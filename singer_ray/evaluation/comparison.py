"""Several frozen networks scored on the same images, beside a teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from singer_ray.data.remarks import data_remarks
from singer_ray.data.source import Source
from singer_ray.data.targets import check_targets
from singer_ray.errors import printable
from singer_ray.evaluation.frozen import Evaluated, FrozenEvaluation, check_sources
from singer_ray.evaluation.inputs import open_candidate, open_reference, open_sources
from singer_ray.vision.networks import Network, network_of

if TYPE_CHECKING:
    from singer_ray.config import Config


@dataclass(frozen=True)
class Candidates:
    """What is evaluated, and on what.

    `networks` maps a name to a module, or to what `open_network` finds; `given` names the settings that
    were set by hand; `teacher` is a module to compare with, `with_teacher` whether there is any; `sources` replace the
    configured ones.
    """

    networks: Mapping[str, nn.Module | str]
    given: Sequence[str] = ()
    teacher: nn.Module | None = None
    with_teacher: bool = True
    sources: Mapping[str, Source] | None = None


def compare(config: Config, candidates: Candidates, device: torch.device, log: Callable[[str], None]) -> dict[str, Any]:
    """`networks` (name -> metrics, input, notes), `remarks` on the images, and `teacher` of a result.

    Raises UserError.
    """
    torch.set_num_threads(config.train.threads)
    modules = [m for m in (*candidates.networks.values(), candidates.teacher) if isinstance(m, nn.Module)]
    with _as_they_were(modules):
        networks = [_open(config, name, network, candidates.given) for name, network in candidates.networks.items()]
        sources, block = open_sources(config, candidates.sources)
        splits = check_sources(sources, block)
        remarks = data_remarks(sources, check_targets(sources))
        for line in remarks:
            log(f"note: {line}")
        teacher = _teacher(config, candidates, log)
        evaluation = FrozenEvaluation(
            sources,
            splits,
            config.evaluation,
            device,
            teacher=teacher,
            workers=config.data.loader_workers,
            seed=config.seed,
        )
        for network in networks:
            evaluation.check(network)
        entries = {}
        for network in networks:
            started = time.perf_counter()
            done = evaluation.run(network, log)
            entries[network.name] = _entry(network, done)
            log(f"{printable(network.name)}: {network.image_size} px, {time.perf_counter() - started:.1f} s")
            for note in done.notes:
                log(f"{printable(network.name)}: {note}")
    return {"networks": entries, "remarks": remarks, "teacher": config.teacher.name if teacher else None}


def _open(config: Config, name: str, network: nn.Module | str, given: Sequence[str]) -> Network:
    if isinstance(network, str):
        return replace(open_candidate(config, network, given), name=name)
    data = config.data
    return network_of(
        name,
        network,
        data.image_size if "data.image_size" in given else _made_for(network),
        data.crop_pct if "data.crop_pct" in given else None,
    )


def _made_for(module: nn.Module) -> int | None:
    """The image size that a module was made with; timm's own settings of a model name that of its published weights."""
    height, width = getattr(getattr(module, "patch_embed", None), "img_size", None) or (None, None)
    return int(height) if height is not None and height == width else None


def _teacher(config: Config, candidates: Candidates, log: Callable[[str], None]) -> Network | None:
    if not candidates.with_teacher:
        return None
    if candidates.teacher is None:
        return open_reference(config, candidates.given, log)
    size = config.data.image_size if "data.image_size" in candidates.given else _made_for(candidates.teacher)
    return network_of(f"teacher {config.teacher.name}", candidates.teacher, size)


@contextmanager
def _as_they_were(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Gives modules of one's own back in the mode and on the device that they came with."""
    before = [(m, m.training, next((p.device for p in m.parameters()), None)) for m in modules]
    try:
        yield
    finally:
        for module, training, device in before:
            module.train(training).to(device)


def _entry(network: Network, evaluated: Evaluated) -> dict[str, Any]:
    return {
        "metrics": evaluated.metrics,
        "l2": evaluated.l2,
        "image_size": network.image_size,
        "crop_pct": network.crop_pct,
        "mean": network.normalize.mean,
        "std": network.normalize.std,
        "grid": network.grid,
        "parameters": network.parameters,
        "notes": evaluated.notes,
    }
