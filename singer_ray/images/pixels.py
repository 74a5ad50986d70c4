"""Image files as eight-bit RGB pixels, whatever they hold; and the one line for those that cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from singer_ray.errors import UserError, printable

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
UPRIGHT = (None, 0, 1)
"""Its values that turn nothing."""
_DEEP = 65535 / 255
"""A 16-bit value over its 8-bit one: the whole range of the format is mapped, never that of the image."""


class UnsupportedPixels(ValueError):  # noqa: N818 (the reason of a UserError)
    """An image whose values have no agreed place between black and white."""


def open_image(path: Path) -> Image.Image:
    """The image of a file, not decoded yet. Raises UserError, in one line, for whatever keeps it from being opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except Exception as error:  # each format's plugin has exceptions of its own: struct.error, IndexError, ...
        raise no_image(path, error) from error


def read_rgb(path: Path, *, upright: bool = False) -> np.ndarray:
    """uint8 [height, width, 3]; `upright` turns it as its EXIF orientation says. Raises UserError as `open_image`."""
    with open_image(path) as image:
        try:
            turned = upright and orientation(image) is not None
            return rgb(ImageOps.exif_transpose(image) if turned else image)
        except Exception as error:
            raise no_image(path, error) from error


def rgb(image: Image.Image) -> np.ndarray:
    """An image as uint8 [height, width, 3].

    Grey values of 16 bits (and of 32 that fit into them) are divided by 257, so that 65535 becomes 255; floating-point
    ones from 0 to 1 are multiplied by 255. Transparency is dropped; palettes and CMYK become the colours that they
    stand for. Raises UnsupportedPixels for other values.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnsupportedPixels(f"grey values from {values.min()} to {values.max()}; allowed: 0 to 65535")
        return _grey((values / _DEEP).round())
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UnsupportedPixels(f"floating-point values from {values.min():g} to {values.max():g}; allowed: 0 to 1")
        return _grey((values * 255.0).round())
    if image.mode in ("P", "PA"):  # by way of its own transparency, which Pillow warns of otherwise
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation that turns or mirrors the image; None where it stands as it is stored.

    The image is not decoded: what a PNG file says behind its pixels does not count.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return None
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block turns nothing
        return None
    return int(value) if value not in UPRIGHT and value in range(2, 9) else None


def size_of(image: Image.Image, *, upright: bool) -> tuple[int, int]:
    """Width and height as `read_rgb` gives them."""
    turned = upright and (orientation(image) or 1) >= 5
    width, height = image.size
    return (height, width) if turned else (width, height)


def no_image(path: Path, error: Exception) -> UserError:
    """The line for a file that has an image's name and cannot be read as one."""
    if isinstance(error, UserError):
        return error
    return UserError(
        f"{str(path)!r} is named like an image but cannot be read as one ({reason(error)}). Replace or remove it."
    )


def reason(error: Exception) -> str:
    """Why a file cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "unknown format or empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(error).rstrip(".") or type(error).__name__


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
