"""Images of every kind become eight-bit RGB, or one line says why not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from singer_ray.config import Config
from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.loader import evaluation_batches, training_batches
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.splits import open_splits
from singer_ray.data.views import EvaluationView, TrainingView
from singer_ray.data.wrapped import as_source
from singer_ray.errors import UserError
from singer_ray.images import pixels

Tree = Callable[..., Path]
ALL_AROUND = range(2, 9)


def turned(path: Path, orientation: int) -> np.ndarray:
    """Writes a JPEG file with an orientation; returns its pixels as they are stored."""
    image = Image.fromarray(np.linspace(0, 255, 40 * 24 * 3).reshape(40, 24, 3).astype(np.uint8))
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    with Image.open(path) as stored:
        return np.array(stored)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"deep{suffix}")
    folder = ImageFolder(str(tmp_path), "data.train")
    image = folder[0]["image"]
    assert len(image.unique()) == 256
    assert torch.equal(image[0], torch.from_numpy((ramp / 257).round().astype(np.uint8)))
    assert "1 of 1 images looked at have 16-bit or floating-point values" in folder.remarks[0]
    assert torch.equal(as_source([Image.fromarray(ramp)])[0]["image"], image)


def test_floating_point_from_0_to_1_is_scaled_and_others_are_refused(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    Image.fromarray(ramp * 300 - 5).save(tmp_path / "b.tif")
    Image.fromarray((ramp * 100000).astype(np.int32)).save(tmp_path / "c.tif")
    folder = ImageFolder(str(tmp_path), "data.train")
    assert len(folder[0]["image"].unique()) == 256
    with pytest.raises(UserError, match=r"b.tif' .*\(floating-point values from -5 to 295; allowed: 0 to 1\)"):
        folder[1]
    with pytest.raises(UserError, match=r"c.tif' .*\(grey values from 0 to 100000; allowed: 0 to 65535\)"):
        folder[2]
    with pytest.raises(UserError, match="An image of the data set has floating-point values"):
        as_source([Image.fromarray(ramp * 300)])


@pytest.mark.filterwarnings("error")
def test_palettes_alpha_and_cmyk_become_the_colours_that_they_stand_for(tmp_path: Path) -> None:
    colour = Image.new("RGB", (8, 8), (200, 40, 90))
    colour.quantize(4).save(tmp_path / "palette.png")
    colour.quantize(4).save(tmp_path / "palette_clear.png", transparency=bytes([0, 255, 255, 255]))
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    colour.convert("RGBA").save(tmp_path / "alpha.png")
    colour.convert("L").convert("LA").save(tmp_path / "grey.png")
    colour.convert("1").save(tmp_path / "bits.png")
    folder = ImageFolder(str(tmp_path), "data.train")
    seen = {path.name: folder[i]["image"][:, 4, 4].int() for i, path in enumerate(folder.paths)}
    for name in ("palette.png", "palette_clear.png", "cmyk.jpg", "alpha.png"):
        assert (seen[name] - torch.tensor([200, 40, 90])).abs().max() <= 4, name
    assert len(seen["grey.png"].unique()) == len(seen["bits.png"].unique()) == 1
    (remark,) = folder.remarks
    assert "3 of 6 images looked at may be transparent" in remark


@pytest.mark.parametrize("orientation", ALL_AROUND)
def test_orientation_is_ignored_and_said_or_applied(tmp_path: Path, orientation: int) -> None:
    stored = turned(tmp_path / "train" / "a.jpg", orientation)
    settings = {"data.source": "imagefolder", "data.train": str(tmp_path / "train")}
    plain = open_splits(Config().override(settings).data)["train"]
    upright = open_splits(Config().override({**settings, "data.exif": "apply"}).data)["train"]
    assert torch.equal(plain[0]["image"], torch.from_numpy(stored).permute(2, 0, 1))
    with Image.open(tmp_path / "train" / "a.jpg") as image:
        shown = np.array(ImageOps.exif_transpose(image))
    assert torch.equal(upright[0]["image"], torch.from_numpy(shown).permute(2, 0, 1))
    (said,), (applied,) = plain.remarks, upright.remarks  # type: ignore[attr-defined]
    assert "it is ignored, as in torchvision; --data.exif apply turns them" in said
    assert "masks must fit the images so turned" in applied


def test_masks_have_the_size_of_the_image_as_it_is_read(tmp_path: Path) -> None:
    turned(tmp_path / "train" / "a.jpg", 6)
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "classes.txt").write_text("ground\nshape\n")
    for upright, size in ((False, (24, 40)), (True, (40, 24))):
        Image.new("L", size).save(masks / "a.png")
        source = MaskedFolder(
            ImageFolder(str(tmp_path / "train"), "data.train", upright=upright), str(masks), "data.train_masks"
        )
        assert source[0]["image"].shape[1:] == source[0]["mask"].shape
        Image.new("L", size[::-1]).save(masks / "a.png")
        with pytest.raises(UserError, match=f"EXIF orientation 6 is {'applied' if upright else 'ignored'}"):
            source[0]


@pytest.mark.parametrize(
    "error",
    [
        Image.DecompressionBombError("too large"),
        struct.error("unpack"),
        IndexError("x"),
        SyntaxError("bad"),
        OSError("image file is truncated"),
        MemoryError(),
        EOFError(),
        KeyError("mode"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_whatever_a_format_raises_is_one_line(
    image_tree: Tree, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    tree = image_tree("train", {"a": 1})
    folder = ImageFolder(str(tree), "data.train")
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(UserError, match=r"a/0.png' is named like an image") as decoding:
        folder[0]
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"a/0.png' is named like an image") as opening:
        ImageFolder(str(tree), "data.train")
    assert not {"\n" in str(caught.value) for caught in (decoding, opening)} - {False}


def test_a_bomb_is_named_at_the_start(image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = image_tree("train", {"a": 1})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"0.png' .*1920 pixels\) exceeds limit"):
        ImageFolder(str(tree), "data.train")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_line_from_loader_processes_too(image_tree: Tree, workers: int) -> None:
    tree = image_tree("train", {"a": 2})
    path = tree / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:400])
    folder = ImageFolder(str(tree), "data.train")
    plain = TrainingView(16, 1.0, "none", (1.0, 1.0), 0)
    readers = [
        evaluation_batches(folder, EvaluationView(16, 1.0), batch_size=2, workers=workers),
        training_batches(folder, plain, batch_size=2, seed=0),
    ]
    for batches in readers:
        with pytest.raises(UserError) as caught:
            next(batches)
        assert str(caught.value).startswith(f"{str(path)!r} is named like an image but cannot be read as one (")
        assert "Traceback" not in str(caught.value)


def test_a_broken_mask_is_one_line(image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = image_tree("train", {"a": 1}), image_tree("masks", {"a": 1})
    Image.new("L", (48, 40)).save(masks / "a" / "0.png")
    (masks / "classes.txt").write_bytes(b"\xef\xbb\xbfground\nshape\n")
    source = MaskedFolder(ImageFolder(str(images), "data.train"), str(masks), "data.train_masks")
    assert source.mask_classes == ("ground", "shape")  # without the mark that some editors begin with
    monkeypatch.setattr(np, "array", lambda *_: (_ for _ in ()).throw(struct.error("unpack")))
    with pytest.raises(UserError, match=r"a/0.png' cannot be read as a PNG mask \(unpack\)"):
        source.mask(0)
    (masks / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"classes.txt' is not UTF-8 text"):
        MaskedFolder(source.images, str(masks), "data.train_masks")
