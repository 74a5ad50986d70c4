"""The learning rate over a run.

Not torch's schedulers: SequentialLR(LinearLR, CosineAnnealingLR) computes each rate from the one before, so that its
rounding adds up. Of 600 steps with 30 of warm-up 553 rates differ from these in their last bits (up to 9e-16 of the
rate), and with them the student's weights; and it has a state that the checkpoints written so far do not hold. A
function of the step number needs none.
"""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at `step` (from 0): linear from 1 / warmup to 1, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
