"""What an analysis is told, and what it has measured."""

from __future__ import annotations

from dataclasses import dataclass

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.gradient_bias import GradientBias
from singer_ray.data.source import Source
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer

Track = list[tuple[int, dict[str, GradientBias]]]


@dataclass(frozen=True)
class AnalysisSettings:
    """What an analysis is told besides the configuration."""

    k: float = 4.0
    """A token is an outlier above k x the median norm of its image."""
    steps: int = 100
    """Training steps of the students with and without refiner; 0 measures the start only."""
    images: int = 512
    """Images to read, of the validation set where there is one, else of the training set; 0 means all."""


@dataclass
class Findings:
    """What an analysis has measured."""

    context: TrainContext
    source: Source
    reports: dict[int, LayerReport]
    arms: dict[str, StudentTrainer]
    """Name -> student in training: `none`, and where they are others `method.wrapper` and `method.refiner` together."""
    track: Track
    """Training step -> refiner -> gradient bias."""
    settings: AnalysisSettings

    @property
    def layers(self) -> tuple[int, ...]:
        """D, the distilled layers."""
        return self.context.distilled_layers()

    @property
    def token_share(self) -> float:
        """Share of the patch tokens of the distilled layers that are outliers."""
        return sum(self.reports[n].token_share for n in self.layers) / len(self.layers)
