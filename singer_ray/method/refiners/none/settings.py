"""Plain feature distillation has no settings."""

from __future__ import annotations

from singer_ray.method.refiners.description import Description

DESCRIPTION = Description("none (plain feature distillation, FitNet)", place=1)
