"""No wrapper: the teacher as it is."""

from __future__ import annotations

from singer_ray.method.wrappers.base import TeacherWrapper

WRAPPER = TeacherWrapper
