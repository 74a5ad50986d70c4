"""Procedural scenes: the built-in data set, made on the fly, with labels, masks and depth.

A scene is 32 x 32 pixels: one to three striped shapes of five kinds on a striped ground that recedes from bottom to
top, in haze. Nearer shapes are larger and hide farther ones; the label is the kind of the nearest. Stripes lean by
kind, with overlap between kinds, so that both texture and outline help. Nothing is stored: image `i` of a split is a
pure function of (seed, split, i).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from singer_ray.data.source import Sample, Source

if TYPE_CHECKING:
    from singer_ray.config import SourceConfig

SIZE = 32
KINDS = ("disc", "square", "triangle", "ring", "cross")
MASK_CLASSES = ("ground", *KINDS)
SPLITS = ("train", "val", "test")

_MAX_SHAPES = 3
_GROUND_DRAWS, _SHAPE_DRAWS = 10, 12
_CHUNK = 512


class Scenes:
    """`count` scenes of one split, rendered in chunks when first read and then kept (about 8 kB an image).

    Samples hold `image` uint8 [3, 32, 32], `label` in 0..4, `mask` uint8 [32, 32] in 0..5 (0 is the ground) and
    `depth` float32 [32, 32] in 0..1 (1 is far).
    """

    classes = KINDS
    mask_classes = MASK_CLASSES
    fields = frozenset({"label", "mask", "depth"})

    def __init__(self, split: str, count: int, seed: int) -> None:
        self.split, self.count, self.seed = split, count, seed
        self._chunks: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        number, offset = divmod(index, _CHUNK)
        if number not in self._chunks:
            first = number * _CHUNK
            self._chunks[number] = render(self.split, self.seed, first, min(_CHUNK, self.count - first))
        chunk = self._chunks[number]
        return {
            "image": torch.from_numpy(chunk["image"][offset]),
            "label": int(chunk["label"][offset]),
            "mask": torch.from_numpy(chunk["mask"][offset]),
            "depth": torch.from_numpy(chunk["depth"][offset]),
        }


def open_scenes(settings: SourceConfig, block: str) -> dict[str, Source]:
    """As many scenes of each split as the settings say."""
    scenes = settings.scenes
    counts = (scenes.train_images, scenes.val_images, scenes.test_images)
    return {split: Scenes(split, count, scenes.seed) for split, count in zip(SPLITS, counts)}


def render(split: str, seed: int, first: int, count: int) -> dict[str, np.ndarray]:
    """Scenes `first` .. `first + count - 1`: image [n, 3, 32, 32], label [n], mask and depth [n, 32, 32]."""
    draws = np.empty((count, _GROUND_DRAWS + _MAX_SHAPES * _SHAPE_DRAWS))
    noise = np.empty((count, 3, SIZE, SIZE), dtype=np.float32)
    for i in range(count):
        # One generator an image: its draws do not depend on which images are rendered with it.
        rng = np.random.default_rng((seed, SPLITS.index(split), first + i))
        draws[i] = rng.random(draws.shape[1])
        noise[i] = rng.standard_normal((3, SIZE, SIZE), dtype=np.float32)
    ground, shapes = draws[:, :_GROUND_DRAWS], draws[:, _GROUND_DRAWS:].reshape(count, _MAX_SHAPES, _SHAPE_DRAWS)
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")

    colour = ground[:, 0:3]
    second = (colour + 0.4 * (ground[:, 3:6] - 0.5)) % 1.0
    image = _stripes(colour, second, ground[:, 6], 0.3 + 1.2 * ground[:, 7], ground[:, 8], rows, columns)
    mask = np.zeros((count, SIZE, SIZE), dtype=np.uint8)
    depth = np.broadcast_to(1.0 - 0.4 * rows / (SIZE - 1), (count, SIZE, SIZE)).astype(np.float32)
    label = np.zeros(count, dtype=np.int64)
    present = 1 + np.floor(ground[:, 9] * _MAX_SHAPES)
    # Painted from far to near, so the last slot is the front shape; scenes with fewer shapes lack the far slots.
    for slot in range(_MAX_SHAPES):
        draw = shapes[:, slot]
        nearness = (slot + 0.7 * draw[:, 9]) / _MAX_SHAPES
        label = np.floor(draw[:, 10] * len(KINDS)).astype(np.int64)
        inside = _inside(label, draw[:, 6:9], 5.0 + 5.0 * nearness, rows, columns)
        inside &= (slot >= _MAX_SHAPES - present)[:, None, None]
        painted = _shape_stripes(colour, draw, label, rows, columns)
        image = np.where(inside[:, None], painted, image)
        mask = np.where(inside, (label + 1).astype(np.uint8)[:, None, None], mask)
        depth = np.where(inside, (0.6 - 0.5 * nearness).astype(np.float32)[:, None, None], depth)
    haze = 0.5 * depth[:, None]
    image = (1 - haze) * image + haze * 0.6 + 0.02 * noise
    pixels = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    return {"image": pixels, "label": label, "mask": mask, "depth": depth}


def _shape_stripes(
    ground: np.ndarray, draw: np.ndarray, kind: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    # At least 0.3 away from the ground's colour in every channel (as on a circle), so that a shape can be seen.
    first = (ground + 0.3 + 0.4 * draw[:, 0:3]) % 1.0
    second = np.clip(first + 0.5 * np.sign(0.5 - first), 0, 1)
    # A fifth of a half turn to each kind; the spread of 1.4 makes neighbouring kinds overlap.
    lean = (kind + 1.4 * (draw[:, 3] - 0.5)) / len(KINDS)
    return _stripes(first, second, lean, 1.4 + 0.6 * draw[:, 4], draw[:, 5], rows, columns)


def _stripes(
    first: np.ndarray,
    second: np.ndarray,
    lean: np.ndarray,
    frequency: np.ndarray,
    phase: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """Stripes from `first` towards `second`: lean in half turns, frequency in radians a pixel -> [n, 3, 32, 32]."""
    angle = np.pi * lean[:, None, None]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    wave = 0.5 + 0.5 * np.sin(frequency[:, None, None] * along + 2 * np.pi * phase[:, None, None])
    blend = 0.7 * wave[:, None]
    mixed: np.ndarray = first[:, :, None, None] * (1 - blend) + second[:, :, None, None] * blend
    return mixed


def _inside(
    kind: np.ndarray, place: np.ndarray, radius: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Which pixels a shape of that kind, centre, turn (within 20 degrees) and radius covers: bool [n, 32, 32]."""
    centre_x, centre_y, turn = 7 + 18 * place[:, 0], 7 + 18 * place[:, 1], 0.7 * (place[:, 2] - 0.5)
    dx = (columns[None] - centre_x[:, None, None]) / radius[:, None, None]
    dy = (rows[None] - centre_y[:, None, None]) / radius[:, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    distance, reach = np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    covers = np.stack(
        [
            distance < 0.9,
            reach < 0.78,
            (y < 0.55) & (y > 1.732 * np.abs(x) - 1.0),
            (distance < 1.0) & (distance > 0.52),
            (np.minimum(np.abs(x), np.abs(y)) < 0.28) & (reach < 0.98),
        ]
    )
    chosen: np.ndarray = covers[kind, np.arange(len(kind))]
    return chosen
