"""Options that do not exist, by what they were meant to be; values that do not fit; help on nothing."""

from __future__ import annotations

from tests.bad_input.case import Case

MEANT = {
    "--lr": "--train.lr, --method.prefit.lr or --evaluation.official.lr?",
    "--epochs": "--train.epochs or --evaluation.official.epochs?",
    "--batch-size": "--train.batch_size, --method.prefit.batch_size,",
    "--batch_size": "--train.batch_size, --method.prefit.batch_size,",
    "--teacher": "--teacher.name?",
    "--student": "--student.name?",
    "--data": "--data.train?",
    "--gpus": "--train.workers or --search.gpus_per_trial?",
    "--output": "--out?",
    "-o": "--out?",
    "--n-trials": "--search.trials?",
    "--image-size": "--data.image_size?",
    "--train.rank": "--method.rank?",
    "--method.lr": "--method.prefit.lr, --train.lr",
    "--Method.Rank": "--method.rank?",
    "--weight-decay": "--train.weight_decay",
    "--overwite": "--overwrite?",
    "--config": "--preset?",
}
"""What people type, and what they are asked."""
CASES: list[Case] = [
    *(("tune", [typed, "4"], f"Unknown option {typed}. Did you mean {meant}") for typed, meant in MEANT.items()),
    ("tune", ["--search", "x"], "Unknown option --search. It is a block of settings: --help search lists them."),
    ("tune", ["--qqqq"], "Unknown option --qqqq. --help-all lists all options."),
    ("train", ["--method.radial", "maybe"], "method.radial is 'maybe'. Allowed: true or false. --help method.radial"),
    ("train", ["--overwrite", "maybe"], "--overwrite is 'maybe'. Allowed: true or false."),
    ("train", ["--out"], "--out needs a value. --help out explains it."),
    ("train", ["--out", "a", "b"], "--out takes one value, not a b"),
    ("train", ["--data.crop_scale", "0.5"], "data.crop_scale"),
    ("train", ["--help", "colour"], "--help colour is neither a block nor an option."),
    ("train", ["--help", "lr"], "Did you mean train.lr, method.prefit.lr or evaluation.official.lr?"),
    ("analyze", ["--k=many"], "--k is 'many'. Allowed: a number."),
    ("export", ["--top", "few", "x"], "--top is 'few'. Allowed: a whole number."),
    ("evaluate", ["demo", "--teacher.layers", "first"], "teacher.layers is 'first'"),
    ("train", ["\x1b[31m"], "Unrecognized argument '\\\\x1b[31m'"),
]
