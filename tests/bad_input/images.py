"""Images, masks and labels that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bad_input.case import Case, Trees


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """Folders of images that the cases below name."""
    good = trees("good", {"a": 3, "b": 3})
    trees("one", {"images": 3})
    trees("hidden", {".ipynb_checkpoints": 2})
    trees("other", {"z": 1})
    trees("unreadable", {"a": 1, "b": 1})
    (tmp_path / "unreadable" / "b" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    trees("truncated", {"a": 1})
    path = tmp_path / "truncated" / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:400])
    trees("dangling", {"a": 1})
    (tmp_path / "dangling" / "a" / "0.png").unlink()
    (tmp_path / "dangling" / "a" / "0.png").symlink_to(tmp_path / "nowhere.png")
    values = {"large": 7, "binary": 255, "sizes": 0}
    for name, value in values.items():
        for image in good.rglob("*.png"):
            target = tmp_path / name / image.relative_to(good)
            target.parent.mkdir(parents=True, exist_ok=True)
            mask = np.zeros((40, 48 if name != "sizes" else 40), np.uint8)
            mask[:8] = value
            Image.fromarray(mask).save(target)
        (tmp_path / name / "classes.txt").write_text("ground\nshape\n")
    (tmp_path / "binary" / "classes.txt").write_bytes(b"ground\ncaf\xe9\n")
    float_image = tmp_path / "floating" / "a.tif"
    float_image.parent.mkdir()
    Image.fromarray(np.full((40, 40), 300, np.float32)).save(float_image)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(odd)
    return {**{p.name: str(p) for p in tmp_path.iterdir()}, "odd": odd}


FOLDER = ["--data.source", "imagefolder"]
GOOD = [*FOLDER, "--data.train", "{good}", "--data.val", "{good}"]
CASES: list[Case] = [
    ("train", [*FOLDER, "--data.train", "{hidden}"], "holds no image (data.train: left out 1 hidden"),
    ("train", [*FOLDER, "--data.train", "{dangling}"], "holds no image (data.train: left out 1 broken link"),
    ("train", [*FOLDER, "--data.train", "{odd}"], "it is not in UTF-8"),
    ("train", [*FOLDER, "--data.train", "{unreadable}"], "b/0.png' is named like an image but cannot be read as one"),
    ("train", [*FOLDER, "--data.train", "{good}", "--data.val", "{other}"], "has the class 'z', which the training"),
    ("train", [*GOOD, "--data.train_masks", "{odd}"], "it is not in UTF-8"),
    ("train", [*GOOD, "--data.train_masks", "{binary}"], "classes.txt' is not UTF-8 text"),
    ("train", [*GOOD, "--data.train_masks", "{sizes}"], "is 40 x 40 pixels and its image 48 x 40"),
    ("train", [*GOOD, "--data.train_masks", "{large}", "--data.val_masks", "{large}"], "contains the value 7. Allowed"),
    ("train", ["--data.exif", "rotate"], "data.exif is 'rotate'"),
    ("evaluate", ["demo", *GOOD, "--data.train_masks", "{large}"], "contains the value 7. Allowed: 0 to 1"),
    ("evaluate", ["demo", *FOLDER, "--data.train", "{truncated}", "--data.val", "{truncated}"], "a/0.png' is named"),
    ("evaluate", ["demo", *FOLDER, "--data.train", "{floating}", "--data.val", "{good}"], "data has no annotation"),
    ("analyze", [*FOLDER, "--data.train", "{floating}"], "floating-point values from 300 to 300; allowed: 0 to 1"),
    (
        "analyze",
        ["--data.image_size", "100", "--teacher.name", "vit_small_patch16_dinov3", "--teacher.pretrained", "False"],
        "cannot read images of 100 x 100 pixels: its patches are 16 x 16. Use --data.image_size 96",
    ),
    ("teacher", [*FOLDER, "--data.train", "{one}"], "has one class only, 'images'"),
]
