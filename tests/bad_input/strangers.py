"""Files that others made: spoilt, endless, of something else, or made to do harm."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from singer_ray.config import load_preset
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.training import checkpoint
from tests.bad_input.case import Case, Trees
from tests.search.studies import MIOU

DEEP = 100_000
DIGITS = "9" * 5000
SPACE = "method.rank: {type: int, low: 2, high: 8}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
"""9 to the 10th values in a few hundred bytes."""
YAMLS = {
    "bomb": BOMB,
    "knot": "a: &a [*a]\n",
    "deep": "[" * DEEP,
    "digits": f"seed: {DIGITS}\n",
    "hexadecimal": f"seed: 0x{'f' * 5000}\n",
    "date": "seed: 2001-99-99\n",
    "keys": "? {a: 1}\n: 2\n",
    "huge": f"method: {{rank: {'x' * 3_000_000}}}\n",
    "named": "{[/x]: 1}\n",
    "escape": '"\\e[2J": 1\n',
}
RECORDS = {
    "cut": '{"name": "search", "stu',
    "list": "[]",
    "empty": "{}",
    "deepjson": "[" * DEEP,
    "number": f'{{"name": {DIGITS}}}',
    "sessions": '{"name": "s", "study": null, "sessions": [{}]}',
    "nameless": '{"name": 7, "study": null, "sessions": []}',
}


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """Presets and spaces, folders of searches with a spoilt record, and of experiments with a spoilt leaderboard."""
    found = {}
    for name, text in YAMLS.items():
        found[name] = str(tmp_path / f"{name}.yaml")
        Path(found[name]).write_text(text)
    for name, text in RECORDS.items():
        found[name] = str(_search(tmp_path / name, record=text))
    gone = f"sqlite:///{tmp_path}/gone.db"
    found["database"] = str(_search(tmp_path / "database", record=_record(study=gone)))
    found["foreign"] = str(_search(tmp_path / "foreign", record=_record(study=_foreign(tmp_path / "foreign.db"))))
    found["nobody"] = str(_search(tmp_path / "nobody", record=_record(), journal=False))
    found["linked"] = str(_search(tmp_path / "linked", record=_record()))
    (tmp_path / "linked" / "study.journal").rename(tmp_path / "elsewhere")
    (tmp_path / "linked" / "study.journal").symlink_to(tmp_path / "elsewhere")
    found["columns"] = str(_search(tmp_path / "columns", record=_record()))
    pd.DataFrame({"rank": [1], "id": ["000"]}).to_parquet(tmp_path / "columns" / "leaderboard.parquet")
    state = _made()[2]
    for name, content in {"zip": state, "flipped": _flipped(state), "text": b"nothing"}.items():
        found[name] = str(_run(tmp_path / name, content))
    return found


@functools.cache
def _config() -> str:
    return load_preset("demo").to_yaml()


def _record(**more: Any) -> str:
    return json.dumps({"name": "search", "study": None, "sessions": [], **more})


def _search(out: Path, *, record: str, journal: bool = True) -> Path:
    out.mkdir()
    (out / "config.yaml").write_text(_config())
    (out / "space.yaml").write_text(SPACE)
    (out / "search.json").write_text(record)
    if journal:
        (out / "study.journal").write_bytes(_made()[0])
    return out


def _foreign(path: Path) -> str:
    path.write_bytes(_made()[1])
    return f"sqlite:///{path}"


@functools.cache
def _made() -> tuple[bytes, bytes, bytes]:
    """The journal of a search, a database without one, and a checkpoint of something else: made once."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        create_study(storage_of(None, folder), "search", MIOU)
        optuna.storages.RDBStorage(f"sqlite:///{folder}/s.db").engine.dispose()
        state = checkpoint.to_bytes({"a": 1})
        return (folder / "study.journal").read_bytes(), (folder / "s.db").read_bytes(), state


def _run(out: Path, content: bytes) -> Path:
    out.mkdir()
    (out / "config.yaml").write_text(_config())
    (out / "checkpoint.pt").write_bytes(content)
    return out


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


WARM = ["tune", "--search.warm_start"]
CASES: list[Case] = [
    ("train", ["--preset", "{bomb}"], "{bomb} stands for more than 200000 values"),
    ("train", ["--preset", "{knot}"], "{knot} holds itself by an alias"),
    ("train", ["--preset", "{deep}"], "{deep} is nested more than 50 levels deep"),
    ("train", ["--preset", "{digits}"], "{digits} is not valid YAML: Exceeds the limit"),
    ("train", ["--preset", "{hexadecimal}"], "holds a whole number of more than 300 digits"),
    ("train", ["--preset", "{date}"], "{date} is not valid YAML: month must be in 1..12"),
    ("train", ["--preset", "{keys}"], "{keys} is not valid YAML"),
    ("train", ["--preset", "{huge}"], "method.rank is 'xxx"),
    ("train", ["--preset", "{named}"], "{named} is not valid YAML"),
    ("train", ["--preset", "{escape}"], "has an unknown name '\\x1b[2J'"),
    ("tune", ["--space", "{bomb}"], "stands for more than 200000 values"),
    ("tune", ["--space", "{deep}"], "is nested more than 50 levels deep"),
    ("tune", ["--space", "{hexadecimal}"], "holds a whole number of more than 300 digits"),
    ("tune", ["--resume", "{cut}"], "{cut}/search.json is not valid JSON"),
    ("tune", ["--resume", "{list}"], "{list}/search.json holds a list, not a mapping"),
    ("tune", ["--resume", "{empty}"], "{empty}/search.json has no name"),
    ("tune", ["--resume", "{deepjson}"], "{deepjson}/search.json is nested more than 50 levels deep"),
    ("tune", ["--resume", "{number}"], "{number}/search.json is not valid JSON"),
    ("tune", ["--resume", "{sessions}"], "{sessions}/search.json has no begin of session 1"),
    ("tune", ["--resume", "{linked}"], "{linked}/study.journal is a link"),
    ("tune", ["--status", "{cut}"], "{cut}/search.json is not valid JSON"),
    ("tune", ["--status", "{list}"], "{list}/search.json holds a list, not a mapping"),
    ("tune", ["--status", "{empty}"], "{empty}/search.json has no name"),
    ("tune", ["--status", "{nameless}"], "{nameless}/search.json has no name"),
    ("tune", ["--status", "{deepjson}"], "{deepjson}/search.json is nested more than 50 levels deep"),
    ("tune", ["--status", "{database}"], "there is no file"),
    ("tune", ["--status", "{foreign}"], "There is no study 'search' there. Found: none."),
    ("tune", ["--status", "{nobody}"], "{nobody} has no study.journal"),
    ("tune", ["--resume", "{nobody}"], "study.journal"),
    ("report", ["{cut}"], "{cut}/search.json is not valid JSON"),
    ("report", ["{list}"], "{list}/search.json holds a list, not a mapping"),
    ("report", ["{deepjson}"], "{deepjson}/search.json is nested more than 50 levels deep"),
    ("report", ["{database}"], "there is no file"),
    ("report", ["{foreign}"], "There is no study 'search' there"),
    ("export", ["{columns}", "--to", "{columns}/to"], "leaderboard.parquet has no column 'state'"),
    (
        "train",
        ["--out", "{zip}", "--resume"],
        "{zip}/checkpoint.pt is no checkpoint of singer_ray: it has no distiller",
    ),
    ("train", ["--out", "{flipped}", "--resume"], "{flipped}/checkpoint.pt was changed since it was written"),
    ("train", ["--out", "{text}", "--resume"], "{text}/checkpoint.pt was cut off or changed"),
]
