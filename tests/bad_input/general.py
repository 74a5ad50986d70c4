"""Wrong options, values, folders and names."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.case import Case, Trees


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """Folders that the cases below name as {good}, {empty}, ..."""
    good = trees("good", {"a": 3, "b": 3})
    trees("flat", {"": 3})
    trees("mixed", {"a": 3, "b": 3})
    (tmp_path / "mixed" / "a" / "broken.png").write_text("this is no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image either")
    (tmp_path / "full").mkdir()
    trees("masks", {"a": 3, "b": 3}, size=20)
    (tmp_path / "masks" / "classes.txt").write_text("one\ntwo\n")
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    spaces = {"nothing": "", "broken": "a: {b", "unknown": "method.rnk: {type: int, low: 1, high: 2}"}
    for name, text in spaces.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "preset.yaml").write_text("method: {rnk: 4}")
    return {"good": str(good), **{p.stem: str(p) for p in tmp_path.iterdir()}}


FOLDER = ["--data.source", "imagefolder"]
MASKS = [*FOLDER, "--data.train", "{good}", "--data.val", "{good}", "--data.train_masks"]
CASES: list[Case] = [
    ("train", ["--method.rnk", "4"], "Unknown option --method.rnk. Did you mean --method.rank?"),
    ("train", ["--rank", "4"], "Unknown option --rank. Did you mean --method.rank?"),
    ("train", ["surprise"], "Unrecognized argument 'surprise'"),
    ("train", ["--method.rank", "four"], "method.rank is 'four'"),
    ("train", ["--method.rank"], "--method.rank needs a value"),
    ("train", ["--method.rank", "4", "8"], "--method.rank takes one value, not 4 8"),
    ("train", ["--method.rank", "0"], "method.rank is '0'"),
    ("train", ["--method.rank", "65"], "rank 65"),
    ("train", ["--method.strength", "1.3"], "method.strength is '1.3'"),
    ("train", ["--train.lr", "nan"], "train.lr is 'nan'"),
    ("train", ["--train.lr", "-1"], "train.lr is '-1'"),
    ("train", ["--method.refiner", "sinker"], "method.refiner is 'sinker'"),
    ("train", ["--method.projector", "none"], "method.projector is 'none'"),
    ("train", ["--train.ema", "1"], "train.ema is '1'"),
    ("train", ["--train.ema", "-0.5"], "train.ema is '-0.5'"),
    ("train", ["--student.init", "teacher"], "student.init is 'teacher'"),
    ("train", ["--ema_decay", "0.99"], "Did you mean --train.ema?"),
    ("train", ["--teacher.layers", "3", "9"], "9"),
    ("train", ["--teacher.layers", "5", "3"], "ascending"),
    ("train", ["--teacher.name", "vit_tiny_patch16_225"], "Did you mean vit_tiny_patch16_224?"),
    ("train", ["--teacher.name", "resnet18", "--teacher.pretrained", "False"], "no transformer blocks"),
    ("train", ["--teacher.name", "local-dir:{empty}"], "{empty}"),
    ("train", ["--student.name", "vit_huge"], "student.name 'vit_huge' is not a timm model"),
    ("train", ["--student.heads", "5"], "heads"),
    ("train", ["--preset", "dmo"], "--preset 'dmo' is neither a file nor a shipped preset"),
    ("train", ["--preset", "{preset}"], "rnk"),
    ("train", ["--preset"], "--preset needs a value"),
    ("train", [*FOLDER], "data.train"),
    ("train", [*FOLDER, "--data.train", "{good}/missing", "--data.val", "{good}"], "missing"),
    ("train", [*FOLDER, "--data.train", "{empty}", "--data.val", "{good}"], "{empty}"),
    ("train", [*FOLDER, "--data.train", "{texts}", "--data.val", "{good}"], "{texts}"),
    ("train", [*FOLDER, "--data.train", "{mixed}", "--data.val", "{good}"], "broken.png"),
    ("train", ["--workers", "3"], "cannot be divided among"),
    ("train", ["--workers", "0"], "train.workers is '0'"),
    ("train", ["--out", "{full}", "--overwrite"], "not a result of singer_ray"),
    ("train", ["--out", "{full}"], "is not empty"),
    ("train", ["--out", "{full}/thesis.tex"], "is a file"),
    ("train", ["--resume"], "--resume needs a folder: that of the run to continue, --resume DIR"),
    ("train", ["--seed", "-1"], "seed is '-1'"),
    ("train", ["--train.device", "cuda"], "torch sees no GPU"),
    ("train", ["--method.variant", "official", "--method.strength", "0.5"], "method.strength is 0.5, but the variant"),
    (
        "train",
        ["--method.variant", "paper", "--method.linearization", "defect"],
        "method.linearization is 'defect', but",
    ),
    ("train", ["--method.variant", "official", "--method.linearization", "pca"], "Allowed: auto or mlp"),
    ("train", ["--method.variant", "official", "--teacher.layers", "5"], "Name two layers or more"),
    ("tune", ["--trials", "0"], "search.trials is '0'"),
    ("tune", ["--trials", "many"], "search.trials is 'many'"),
    ("tune", ["--space", "{nothing}"], "is empty"),
    ("tune", ["--space", "{broken}"], "is not valid YAML"),
    ("tune", ["--space", "{unknown}"], "Did you mean method.rank?"),
    ("tune", ["--space", "singr"], "neither a file nor a shipped space"),
    ("tune", ["--resume", "{nothing}", "--status", "{nothing}"], "--resume and --status are two commands"),
    ("tune", ["--resume", "{nothing}", "--overwrite"], "--overwrite deletes it"),
    ("tune", ["--resume", "runs/none"], "There is no search in runs/none"),
    ("tune", ["--status", "runs/none"], "There is no search in runs/none"),
    ("tune", ["--search.sampler", "grid"], "search.sampler grid needs a finite number of values"),
    ("tune", ["--search.sampler", "gp", "--space", "refiners", "--dry-run"], "search.sampler gp does not learn"),
    ("tune", ["--out", "{full}"], "is not empty"),
    ("tune", ["--export", "s3:/bucket"], "s3:/bucket"),
    ("evaluate", [], "no network is named"),
    ("evaluate", ["--dry-run"], "no network is named"),
    ("evaluate", ["vit_tiny_patch16_225"], "Did you mean vit_tiny_patch16_224?"),
    ("evaluate", ["{empty}"], "has neither config.json nor student/config.json"),
    ("evaluate", ["local-dir:{empty}/gone"], "is not a folder"),
    ("evaluate", ["demo", "resnet18", "--teacher.pretrained", "False"], "network resnet18 (ResNet) has no transformer"),
    ("evaluate", ["demo", "--seed", "1", "demo"], "network 'demo' is given 2 times"),
    ("evaluate", ["demo", "--data.image_size", "2"], "network 'demo' cannot be made with {{'img_size': 2}}"),
    ("evaluate", ["--overwrite", "demo", "--method.rank", "four"], "method.rank is 'four'"),
    ("evaluate", ["demo", "--method.rank"], "--method.rank needs a value"),
    ("evaluate", ["demo", "--networks", "demo"], "Unknown option --networks"),
    ("evaluate", ["demo", "--evaluation.l2_grid", "-1"], "evaluation.l2_grid is '-1'"),
    ("evaluate", ["demo", "--evaluation.protocol", "offcial"], "evaluation.protocol is 'offcial'"),
    ("evaluate", ["demo", "--teacher.name", "demmo"], "teacher.name 'demmo' is not a timm model"),
    ("evaluate", ["demo", *FOLDER, "--data.train", "{good}"], "data has no validation or test images"),
    ("evaluate", ["demo", *FOLDER, "--data.train", "{flat}", "--data.val", "{flat}"], "data has no annotation"),
    ("evaluate", ["demo", *MASKS, "{masks}"], "is a RGB image"),
    ("evaluate", ["demo", *MASKS, "{good}"], "classes.txt' is missing or empty"),
    ("evaluate", ["demo", "--out", "{full}"], "is not empty"),
    ("analyze", ["--k", "1"], "--k is 1.0"),
    ("analyze", ["--k", "nan"], "--k is nan"),
    ("analyze", ["--k", "four"], "--k is 'four'"),
    ("analyze", ["--steps", "-1"], "--steps is -1"),
    ("analyze", ["--images", "-5"], "--images is -5"),
    ("analyze", ["--teacher.layers", "3", "9"], "9"),
    ("analyze", ["--teacher.layers", "5", "3"], "ascending"),
    ("analyze", ["--teacher.name", "vit_tiny_patch16_225"], "Did you mean vit_tiny_patch16_224?"),
    ("analyze", ["--teacher.name", "resnet18", "--teacher.pretrained", "False"], "no transformer blocks"),
    ("analyze", ["--method.rank", "65"], "rank 65"),
    ("analyze", [*FOLDER, "--data.train", "{empty}"], "{empty}"),
    ("analyze", ["--out", "{full}", "--overwrite"], "not a result of singer_ray"),
    ("teacher", ["--steps", "few"], "--steps is 'few'"),
    ("digits", ["--out", "{full}"], "is not empty"),
]
