"""No wrapper: nothing to set."""

from __future__ import annotations

from singer_ray.method.wrappers.description import WrapperDescription

DESCRIPTION = WrapperDescription("none (features as they are)")
