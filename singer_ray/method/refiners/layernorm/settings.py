"""Normalised targets have no settings."""

from __future__ import annotations

from singer_ray.method.refiners.description import Description

DESCRIPTION = Description("layernorm (normalised targets)", normalizes=True)
