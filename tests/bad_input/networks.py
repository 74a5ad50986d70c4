"""Networks, weights and settings that do not fit each other."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.bad_input.case import Case, Trees


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """Folders and files that the cases below name."""
    trees("good", {"a": 3, "b": 3})
    torch.save({"encoder.layer.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({}, tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("these are no weights")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"architecture": "test_vit"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "clip.yaml").write_text("method.clip.ratio: {type: uniform, low: 1.0, high: 2.0}")
    (tmp_path / "ratio.yaml").write_text("train.lr: {type: uniform, low: 0.001, high: 0.002}")
    (tmp_path / "ranks.yaml").write_text("method.rank: {type: int, low: 4, high: 500}")
    (tmp_path / "wide.yaml").write_text("student.width: {type: int, low: 50, high: 60}")
    (tmp_path / "registers.yaml").write_text("student.registers: {type: choice, values: [0, 4]}")
    return {p.stem: str(p) for p in tmp_path.iterdir()}


DRY = ["--dry-run"]
SMALL = ["--teacher.name", "test_vit", "--teacher.checkpoint"]
COPY = ["--student.init", "copy"]
PUBLISHED = ["--student.pretrained", "true"]
ON_IMAGES = ["--teacher.name", "vit_tiny_patch16_224", "--teacher.pretrained", "False"]
PLAIN = ["--method.refiner", "none"]
REGISTERS = [*PLAIN, "--method.wrapper", "registers"]
SHIFTED = ["--method.wrapper", "shift_average"]
TWO = ["--teacher.pretrained", "False", "--teacher.layers", "2", "5", "--teacher.name"]
CASES: list[Case] = [
    # where images come from
    ("train", ["--data.train", "/nope"], "Use --preset imagenet-vitl-vitt"),
    ("train", ["--data.train=/nope"], "the teacher demo of this preset knows the built-in scenes only"),
    ("train", ["--data.train", "/nope", *ON_IMAGES], "data.train '/nope' does not exist"),
    ("train", ["--data.val", "{good}", *ON_IMAGES], "needs --data.train DIR"),
    ("train", ["--data.train_masks", "{good}", *ON_IMAGES], "needs --data.train DIR"),
    ("train", ["--data.source", "scenes", "--data.train", "{good}"], "contradict each other"),
    ("train", ["--data.scenes.seed", "3", "--data.train", "{good}"], "--data.scenes.seed is of the built-in scenes"),
    ("train", ["--evaluation.data.val", "/nope"], "evaluation.data.source imagefolder needs --evaluation.data.train"),
    ("tune", ["--data.train", "{good}"], "Use --preset imagenet-vitl-vitt"),
    ("analyze", ["--data.train", "{good}"], "Use --preset imagenet-vitl-vitt"),
    ("evaluate", ["demo", "--data.train", "/nope"], "data.train '/nope' does not exist"),
    ("evaluate", ["demo", "--data.source", "scenes", "--data.test", "{good}"], "contradict each other"),
    ("teacher", ["--data.train", "/nope"], "data.train '/nope' does not exist"),
    # what is searched for nothing
    ("tune", [*DRY, "--space", "{clip}"], "method.clip.ratio is searched, but method.clip.ratio has no effect"),
    ("tune", [*DRY, "--method.refiner", "none"], "method.linearization is searched, but method.lineariz"),
    # dry runs
    ("train", [*DRY, "--teacher.name", "vit_tiny_patch16_225"], "Did you mean vit_tiny_patch16_224?"),
    ("train", [*DRY, "--teacher.name", "resnet50"], "teacher resnet50 (ResNet) has no transformer blocks"),
    ("train", [*DRY, "--student.width", "50", "--student.heads", "3"], "student.name 'vit_tiny_patch16_224' cannot"),
    ("train", [*DRY, "--method.rank", "500"], "method.rank 500 is above the teacher's width 64"),
    (
        "train",
        [*DRY, "--method.refiner", "vitkd", "--method.target", "layernorm"],
        "method.target is 'layernorm', but the refiner vitkd has a distillation loss of its own",
    ),
    (
        "train",
        [*DRY, "--method.variant", "official", "--method.distance", "cosine"],
        "but the refiner singer, variant official, has a distillation loss of its own",
    ),
    (
        "train",
        [*DRY, "--method.refiner", "relational", "--method.loss.class_token", "2"],
        "method.loss.class_token is 2.0, but the refiner relational has a distillation loss of its own",
    ),
    (
        "train",
        [*DRY, "--method.refiner", "layernorm", "--method.target", "layernorm"],
        "the refiner layernorm has normalised the tokens already",
    ),
    (
        "tune",
        [*DRY, "--space", "{ratio}", "--method.refiner", "clip", "--method.distance", "cosine"],
        "method.distance is 'cosine', which does not see lengths, but the refiner clip changes nothing else",
    ),
    ("train", [*DRY, "--method.target", "whiten"], "method.target is 'whiten'. Allowed: 'plain', 'layernorm' or"),
    ("train", [*DRY, "--method.distance", "l1"], "method.distance is 'l1'. Allowed: 'mse', 'smooth_l1', 'cosine' or"),
    ("train", [*DRY, "--method.smooth_l1.beta", "0"], "method.smooth_l1.beta"),
    ("train", [*DRY, "--method.standardize.momentum", "1"], "method.standardize.momentum"),
    ("train", [*DRY, "--method.relational.temperature", "0"], "method.relational.temperature"),
    ("train", [*DRY, "--method.relational.queue", "-1"], "method.relational.queue"),
    ("train", [*DRY, "--teacher.layers", "3", "9"], "has layers 0 to 5, not [9]"),
    ("train", [*DRY, "--data.train", "/nope", *ON_IMAGES], "data.train '/nope' does not exist"),
    ("train", [*DRY, "--out", "{good}"], "is not empty"),
    ("tune", [*DRY, "--space", "{ranks}"], "reaches what cannot be built: method.rank 500"),
    ("tune", [*DRY, "--space", "{wide}"], "reaches what cannot be built: student.name"),
    ("tune", [*DRY, "--search.objectives", "val/nope"], "search.objectives 'val/nope' is never reported"),
    ("tune", [*DRY, "--export", "s3:/bucket"], "s3:/bucket"),
    ("tune", [*DRY, "--out", "{good}"], "is not empty"),
    ("analyze", [*DRY, "--method.rank", "65"], "method.rank 65 is above"),
    ("analyze", [*DRY, "--teacher.name", "resnet18"], "has no transformer blocks"),
    ("evaluate", [*DRY, "demo", "resnet18"], "network resnet18 (ResNet) has no transformer blocks"),
    ("evaluate", [*DRY, "demo", "{good}"], "has neither config.json nor student/config.json"),
    ("evaluate", [*DRY, "demo", "--teacher.name", "demmo"], "is not a timm model"),
    ("teacher", [*DRY, "--width", "63"], "--width 63 must be a multiple of --heads 2"),
    ("digits", [*DRY, "--out", "{good}"], "is not empty"),
    ("export", [*DRY, "{good}", "--to", "{bare}"], "{good}"),
    ("report", [*DRY, "{good}"], "{good}"),
    # wrappers
    ("train", [*DRY, "--method.wrapper", "register"], "method.wrapper is 'register'"),
    ("train", [*DRY, *SHIFTED, "--method.freeze", "false"], "method.refiner singer is fitted by what the next block"),
    (
        "tune",
        [*DRY, *SHIFTED, "--method.freeze", "false"],
        "Use --method.wrapper registers, or a refiner that is not fitted",
    ),
    (
        "train",
        [*DRY, *SHIFTED, *PLAIN, "--method.shift_average.views", "26"],
        "above the 25 views that shifts of up to 2",
    ),
    ("train", [*DRY, *SHIFTED, *PLAIN, "--method.shift_average.shift", "8"], "move all 8 patches of a side away"),
    ("train", [*DRY, *SHIFTED, *PLAIN, "--method.shift_average.views", "1"], "method.shift_average.views is '1'"),
    ("train", [*DRY, *REGISTERS, *TWO, "vit_small_patch16_18x2_224"], "hidden units at blocks[0].mlp.fc2"),
    ("train", [*DRY, *REGISTERS, *TWO, "beit_base_patch16_224"], "cannot give teacher beit_base_patch16_224 a token"),
    (
        "train",
        [*DRY, *REGISTERS, "--method.registers.last_block", "6"],
        "last_block is 6, but teacher demo has blocks 0",
    ),
    ("train", [*DRY, *REGISTERS, "--method.registers.ratio", "1"], "method.registers.ratio is '1'"),
    # families
    ("train", ["--teacher.name", "cait_xxs24_224"], "teacher cait_xxs24_224 (Cait) cannot be read block by block"),
    ("train", ["--teacher.name", "xcit_nano_12_p16_224", "--teacher.pretrained", "False"], "(Xcit) cannot be read"),
    ("train", ["--teacher.name", "naflexvit_base_patch16_gap"], "(NaFlexVit) cannot be read block by block"),
    ("train", ["--student.name", "tnt_s_legacy_patch16_224"], "student"),
    ("evaluate", ["convit_tiny", "--data.image_size", "224"], "network convit_tiny (ConVit) cannot be read"),
    ("train", ["--teacher.name", "vit_tiny_patch16_224.mine"], "timm has no weights 'mine' for vit_tiny_patch16_224"),
    # weights
    ("train", [*SMALL, "{other}"], "is not of test_vit: 0 of its"),
    ("train", [*SMALL, "{nothing}"], "holds no weights"),
    ("train", [*SMALL, "{text}"], "cannot be read"),
    ("train", [*SMALL, "{bare}"], "is not a file"),
    ("train", [*DRY, "--teacher.name", "local-dir:{bare}"], "has no weights beside its config.json"),
    ("train", ["--teacher.name", "local-dir:{bare}"], "local-dir:{bare}"),
    ("train", ["--teacher.name", "local-dir:{broken}"], "local-dir:{broken}"),
    # what students start from
    ("train", ["--student.checkpoint", "{other}"], "student.checkpoint '{other}' is not of student vit_tiny_patch16"),
    ("train", ["--student.checkpoint", "{text}"], "student.checkpoint '{text}' cannot be read"),
    ("train", [*DRY, "--student.checkpoint", "{bare}"], "student.checkpoint '{bare}' is not a file"),
    ("train", [*DRY, *PUBLISHED], "cls_token is 1 x 1 x 192 in it and 1 x 1 x 48 in the model"),
    ("train", [*DRY, *PUBLISHED, "--student.name", "vit_base_patch16_gap_224"], "has no published weights"),
    ("train", [*DRY, *PUBLISHED, *COPY], "student.init copy and student.pretrained each say what the student's"),
    ("train", [*DRY, *PUBLISHED, "--student.checkpoint", "{text}"], "student.pretrained and student.checkpoint each"),
    ("train", [*COPY, "--student.width", "96"], "vit_tiny_patch16_224 is 96 wide, teacher demo 64"),
    ("train", [*DRY, *COPY, "--student.depth", "7"], "vit_tiny_patch16_224 is 7 deep, teacher demo 6"),
    ("train", [*DRY, *COPY, "--student.name", "beit_base_patch16_224"], "is a Beit with blocks of timm.models.beit"),
    # registers
    ("train", ["--student.registers", "-1"], "student.registers is '-1'"),
    ("train", ["--student.registers", "2", "--student.name", "beit_base_patch16_224"], "cannot have register tokens"),
    (
        "tune",
        [*DRY, "--space", "{registers}", "--student.name", "beit_base_patch16_224"],
        "reaches what cannot be built: student.registers is 4, but beit_base_patch16_224 (Beit)",
    ),
]
