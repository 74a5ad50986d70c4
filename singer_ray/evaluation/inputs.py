"""What a configuration evaluates: the networks, the teacher they are compared with, and the images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.splits import open_splits
from singer_ray.errors import UserError
from singer_ray.evaluation.frozen import check_sources
from singer_ray.evaluation.protocol import FIT
from singer_ray.vision.models import load_teacher, outline
from singer_ray.vision.networks import Network, find_network, has_own_weights, network_of, open_network

if TYPE_CHECKING:
    from singer_ray.config import Config


def open_candidate(config: Config, name: str, given: Collection[str]) -> Network:
    """A network to evaluate, in the input that it was made for.

    `data.image_size` and `data.crop_pct` count only where they are `given` on the command line: a preset describes the
    networks of its own run. Raises UserError.
    """
    data = config.data
    return open_network(
        name,
        image_size=data.image_size if "data.image_size" in given else None,
        crop_pct=data.crop_pct if "data.crop_pct" in given else None,
        pretrained=config.teacher.pretrained,
    )


def open_reference(config: Config, given: Collection[str], log: Callable[[str], None]) -> Network | None:
    """The configured teacher. None, with a line that says so, when a preset names one that cannot be had here.

    Raises UserError when it was named on the command line.
    """
    settings, size = config.teacher, config.data.image_size
    pretrained = settings.pretrained or has_own_weights(settings.name)
    try:
        model = load_teacher(settings.name, size, pretrained=pretrained, checkpoint=settings.checkpoint)
        return network_of(f"teacher {settings.name}", model, size)
    except UserError as error:
        if {"teacher.name", "teacher.checkpoint"} & set(given):
            raise
        log(f"no gram_cosine: {error}")
        return None


def check_inputs(config: Config, names: Collection[str], given: Collection[str]) -> None:
    """Raises UserError for whatever `open_candidate`, `open_sources` and `open_reference` would refuse.

    Networks are built without weights: nothing is fetched but a config.json, and no image is read.
    """
    data, settings = config.data, config.teacher
    for name in names:
        source = find_network(name)
        size = data.image_size if "data.image_size" in given else None
        model = outline(source, "network", size, pretrained=settings.pretrained or has_own_weights(source))
        network_of(name, model, size)
    check_sources(*open_sources(config))
    try:
        model = outline(
            settings.name,
            "teacher.name",
            data.image_size,
            pretrained=settings.pretrained,
            checkpoint=settings.checkpoint,
        )
        network_of(f"teacher {settings.name}", model, data.image_size)
    except UserError:
        if {"teacher.name", "teacher.checkpoint"} & set(given):
            raise


def open_sources(config: Config, given: Mapping[str, Source] | None = None) -> tuple[dict[str, Source], str]:
    """The sets that training would evaluate on, and the configuration block that names them. Raises UserError.

    `given` are sets of one's own, in place of the configured ones.
    """
    own = config.evaluation.data
    block = "data" if own.source == "same" else "evaluation.data"
    sources = dict(given) if given is not None else open_splits(config.data if own.source == "same" else own, block)
    if FIT in sources:
        sources[FIT] = shuffled_subset(sources[FIT], config.evaluation.fit_images)
    return sources, block
