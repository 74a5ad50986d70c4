"""Runs that cannot go on as asked, and trackers."""

from __future__ import annotations

from pathlib import Path

from singer_ray.config import load_preset
from tests.bad_input.case import Case, Trees


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """{run}: one that has begun; {none}: a folder without one."""
    run, none = tmp_path / "a run", tmp_path / "none"
    for folder in (run, none):
        folder.mkdir()
    (run / "config.yaml").write_text(load_preset("demo").override({"method.rank": 7}).to_yaml())
    (none / "notes.txt").write_text("mine")
    return {"run": str(run), "none": str(none)}


CASES: list[Case] = [
    ("train", ["--resume", "{none}"], "There is no run to resume in {none}: it has no config.yaml. Give the --out of"),
    ("train", ["--resume", "runs/none"], "There is no run to resume in runs/none"),
    ("train", ["--resume", "{run}"], "no epoch was finished there. Start again with --overwrite"),
    ("train", ["--out", "{run}", "--resume"], "no epoch was finished there"),
    ("train", ["--resume", "--out", "{run}"], "no epoch was finished there"),
    ("train", ["--resume", "{run}", "--out", "{none}"], "--resume {run} and --out {none} are two folders. Give one"),
    ("train", ["--resume", "{run}", "--overwrite"], "--overwrite deletes it. Give one"),
    ("train", ["--resume", "{run}", "--method.rank", "9"], "with method.rank 7; 9 is given. Leave --method.rank out"),
    ("train", ["--method.rank=9", "--resume={run}"], "with method.rank 7; 9 is given"),
    ("train", ["--resume", "{run}", "--teacher.layers", "1", "5"], "with teacher.layers 3 5; 1 5 is given"),
    ("train", ["--resume", "{run}", "--preset", "demo"], "--preset demo has 16. Leave --preset out: the folder knows"),
    ("train", ["--trackers", "tensorbord"], "train.trackers is 'tensorbord'"),
    ("train", ["--quiet", "--verbose"], "--quiet and --verbose contradict each other. Give one"),
    ("report", ["{none}"], "is not a search: it has neither study.journal nor search.json"),
    ("report", ["{run}"], "no epoch was finished there. Give the --out of singer_ray.train"),
]
