"""Which student layer learns from which teacher layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def default_layers(depth: int) -> tuple[int, ...]:
    """The distilled layers of a teacher when none are named: at 3/4 of the depth, and the last."""
    return tuple(sorted({max(0, int(0.75 * depth) - 1), depth - 1}))


def map_by_depth(layers: Sequence[int], teacher_depth: int, student_depth: int) -> tuple[int, ...]:
    """Student layers at the same relative depth, (l + 1) / depth: (3, 5) of 6 -> (1, 2) of 3.

    So the teacher's last block maps to the student's last, the one that probes and users read.
    """
    return tuple(max(0, round((n + 1) * student_depth / teacher_depth) - 1) for n in layers)


def map_official(layers: Sequence[int], teacher_depth: int, student_depth: int) -> tuple[int, ...]:
    """The official code's assignment: l / teacher depth against m / (student depth - 1), least total distance.

    (8, 11) of 12 -> (7, 10) of 12: the student's last block is never trained.
    """
    from scipy.optimize import linear_sum_assignment  # half a second, which most of what reads this does not need

    places = np.asarray(layers)[:, None] / teacher_depth
    distance = np.abs(places - np.linspace(0, 1, student_depth)[None, :])
    return tuple(int(n) for n in linear_sum_assignment(distance)[1])
