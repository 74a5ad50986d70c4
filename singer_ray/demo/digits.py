"""scikit-learn's bundled handwritten digits as folders of PNG files: small real images that need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SPLITS = (("train", 0.7), ("val", 0.15), ("test", 0.15))


def write_digits(folder: Path) -> dict[str, int]:
    """Writes folder/{train,val,test}/{0..9}/NNNN.png, 8 x 8 pixels each; returns how many of each split."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    counts, first = {}, 0
    for split, share in SPLITS:
        last = len(order) if split == SPLITS[-1][0] else first + round(share * len(order))
        for i in order[first:last]:
            path = folder / split / str(digits.target[i]) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(digits.images[i] * 255 / 16).astype(np.uint8)).save(path)
        counts[split], first = last - first, last
    return counts
