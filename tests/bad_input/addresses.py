"""Addresses, folders of strangers, and packages that are none."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bad_input.case import Case, Trees
from tests.publishing.strangers import package_in, search_in

PACKAGE = {"config.json": b"{}", "model.safetensors": b"weights"}


def places(trees: Trees, tmp_path: Path) -> dict[str, str]:
    """Searches and packages with links, pipes and names that lead out of them; {key} is a file of mine."""
    (tmp_path / "key").write_text("secret")
    for name, path in {"linked": "best/1-002/x", "spaced": "space.yaml"}.items():
        out = search_in(tmp_path / name)
        (out / path).unlink(missing_ok=True)
        (out / path).symlink_to(tmp_path / "key")
    search_in(tmp_path / "leading", "b/../../x")
    search_in(tmp_path / "good")
    package_in(tmp_path / "piped", PACKAGE)
    (tmp_path / "piped" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "piped" / "model.safetensors")
    package_in(tmp_path / "drafted", PACKAGE | {"a.part": b"x"})
    package_in(tmp_path / "void", {})
    package_in(tmp_path / "outside", PACKAGE | {"../x": b"x"})
    return {path.name: str(path) for path in tmp_path.iterdir()}


CASES: list[Case] = [
    ("export", ["{linked}", "--to", "{key}s"], "{linked}/best/1-002/x leads out of {linked}"),
    ("export", ["{leading}", "--to", "{key}s"], "has a trial 'b/../../x'. Allowed: numbers, such as 007"),
    ("export", ["{good}", "--to", "s3://b#2/students"], "--to 's3://b#2/students' names the bucket 'b#2'"),
    ("export", ["{good}", "--to", "s3:/b/students"], "lacks the two slashes"),
    ("export", ["{good}", "--to", "s3://b/students/../x"], "it has a part '..'"),
    ("export", ["{good}", "--to=$NOPE/x"], "--to is '$NOPE/x'. Allowed: a path whose variables are set ($NOPE is not)"),
    ("export", ["{good}", "--to", "gs://b/x"], "has the scheme 'gs'"),
    ("export", ["$NOPE/search", "--to", "x"], "EXPERIMENT_OR_RUN is '$NOPE/search'"),
    ("export", ["--verify", "{piped}"], "{piped}/model.safetensors is not a regular file"),
    ("export", ["--pull", "{piped}", "new"], "{piped}/model.safetensors is not a regular file"),
    ("export", ["--verify", "{drafted}"], "names the file 'a.part': what ends in .part is a draft"),
    ("export", ["--pull", "{drafted}", "new"], "names the file 'a.part': what ends in .part is a draft"),
    ("export", ["--verify", "{void}"], "names no file: it is not a package"),
    ("export", ["--pull", "{void}", "new"], "names no file: it is not a package"),
    ("export", ["--verify", "{outside}"], "names the file '../x', outside the package"),
    ("export", ["--pull", "{outside}", "new"], "names the file '../x', outside the package"),
    ("export", ["--verify", "x" * 300], "is 300 bytes long, and 255 is the most"),
    ("export", ["--verify", "file://host/x"], "is no absolute path"),
    ("train", ["--data.train", "$NOPE/x"], "data.train is '$NOPE/x'"),
    ("train", ["--teacher.checkpoint", "~no-one/x.pt"], "there is no user 'no-one'"),
    ("train", ["--teacher.name", "local-dir:$NOPE/x"], "teacher.name is 'local-dir:$NOPE/x'"),
    ("train", ["--out=$NOPE/x"], "--out is '$NOPE/x'. Allowed: a path whose variables are set"),
    ("train", ["--out", "x" * 300], "is 300 bytes long, and 255 is the most"),
    ("train", ["--preset", "$NOPE/x.yaml"], "--preset is '$NOPE/x.yaml'"),
    ("train", ["--storage", ""], "train.storage is ''. Allowed: a path or an address (this one is empty)"),
    ("tune", ["--space", "$NOPE/x.yaml"], "search.space is '$NOPE/x.yaml'"),
    ("tune", ["--resume", "$NOPE/x"], "--resume is '$NOPE/x'"),
    ("tune", ["--status", "ftp://host/x"], "has the scheme 'ftp'"),
    ("tune", ["--resume", "ftp://host/x"], "--resume 'ftp://host/x' has the scheme 'ftp'"),
    ("tune", ["--search.study", "sqlite:///$NOPE/x.db"], "search.study is 'sqlite:///$NOPE/x.db'"),
    ("tune", ["--search.warm_start", "${{NOPE}}/x"], "search.warm_start is '${{NOPE}}/x'"),
    ("evaluate", ["$NOPE/student"], "NETWORK ... is '$NOPE/student'"),
    ("report", ["$NOPE/search"], "FOLDER is '$NOPE/search'"),
]
