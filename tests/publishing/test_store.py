"""Packages in a store, be it a folder or S3 on a real server process."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest

from singer_ray.errors import UserError
from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.manifest import Manifest, write_manifest
from singer_ray.publishing.packages.store import Store
from tests.publishing.faults import make_package
from tests.servers import ENVIRONMENT, s3_server


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    if request.param == "folder":
        return Store(str(tmp_path / "target"))
    return Store(f"s3://{request.getfixturevalue('bucket')}/prefix/", request.getfixturevalue("server"), lease=2)


def test_a_package_arrives_whole_and_can_be_fetched(store: Store, package: Path, tmp_path: Path) -> None:
    done = store.put(package, "search/students/1-003")
    assert done.new
    assert done.address.endswith("/search/students/1-003")
    assert store.packages() == ["search/students/1-003"]
    manifest = store.verify("search/students/1-003")
    assert (
        manifest.size
        == done.size
        == sum(p.stat().st_size for p in package.rglob("*") if p.name != MANIFEST and p.is_file())
    )
    store.pull("search/students/1-003", tmp_path / "pulled")
    for name in (*manifest.files, MANIFEST):
        assert (tmp_path / "pulled" / name).read_bytes() == (package / name).read_bytes()
    with pytest.raises(UserError, match="is there already"):
        store.pull("search/students/1-003", tmp_path / "pulled")


def test_another_package_is_not_overwritten_without_replace(store: Store, package: Path, tmp_path: Path) -> None:
    store.put(package, "x")
    other = tmp_path / "other"
    make_package(other, 1, large=False)
    (other / "README.md").unlink()
    write_manifest(other)
    with pytest.raises(UserError, match=r"holds another package .* Use --replace"):
        store.put(other, "x")
    assert store.verify("x") == Manifest.of(package)
    assert store.put(other, "x", replace=True).new
    assert store.verify("x") == Manifest.of(other)
    assert "x/README.md" not in store.folder.names()  # nothing of the earlier one is left


def test_the_same_student_with_another_card_stays_as_it_is(store: Store, package: Path) -> None:
    store.put(package, "x")
    (package / "README.md").write_text("another card")
    write_manifest(package)
    assert not store.put(package, "x").new


def test_without_a_manifest_there_is_no_package(store: Store, package: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(package, tmp_path / "bare")
    (bare / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no MANIFEST\.json"):
        store.put(bare, "x")
    with pytest.raises(UserError, match="there is no complete package"):
        store.verify("x")
    assert store.packages() == []


def test_files_changed_after_the_manifest_are_named(store: Store, package: Path) -> None:
    (package / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"was changed after .* model.safetensors has 13 bytes, not 50000"):
        store.put(package, "x")
    (package / "model.safetensors").write_bytes(bytes(50_000))
    with pytest.raises(UserError, match=r"was changed after its MANIFEST"):
        store.put(package, "x")
    assert store.packages() == []


def test_what_was_spoilt_in_the_store_is_found(store: Store, package: Path) -> None:
    store.put(package, "x")
    content = bytearray((package / "result.json").read_bytes())
    content[100] ^= 1
    store.folder.write("x/result.json", bytes(content))
    with pytest.raises(UserError, match=r"x is incomplete: result\.json has another content"):
        store.verify("x")


@pytest.mark.slow
def test_two_exports_at_once_leave_one_whole_package(store: Store, tmp_path: Path) -> None:
    """Different students for one address: one wins, the other is told; whatever they do, nothing is mixed."""
    folders = [tmp_path / str(n) for n in range(4)]
    for n, folder in enumerate(folders):
        make_package(folder, n, large=False)
    said: list[str] = []

    def publish(folder: Path) -> None:
        try:
            Store(store.address, settings=store.settings).put(folder, "x")
        except UserError as error:
            said.append(str(error))

    threads = [threading.Thread(target=publish, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3
    assert all("holds another package" in text or "holds files" in text for text in said)
    assert store.verify("x") in [Manifest.of(folder) for folder in folders]
    assert not [name for name in store.folder.names() if "claim" in name or "draft" in name]


@pytest.mark.slow
def test_two_exports_at_once_to_a_server_that_knows_no_conditions(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with s3_server(conditions=False) as careless:
        boto3.client("s3", endpoint_url=careless).create_bucket(Bucket="careless")
        test_two_exports_at_once_leave_one_whole_package(Store("s3://careless", careless, lease=2), tmp_path)


@pytest.mark.parametrize(
    ("address", "said"),
    [("ftp://host/x", "scheme 'ftp'"), ("s3:///prefix", "names no bucket"), ("/proc/version/x", "cannot be written")],
)
def test_addresses_that_cannot_be_are_refused(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Store(address)


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../b", "", ".", "a//b", "a\0b", MANIFEST])
def test_a_manifest_that_leads_outside_is_refused(name: str) -> None:
    content = json.dumps({"format": 1, "files": {name: {"bytes": 1, "sha256": "0" * 64}}}).encode()
    with pytest.raises(UserError, match="outside the package"):
        Manifest.parse(content, "MANIFEST.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 1, "files": {"a": {"bytes": 1e999, "sha256": "0"}}}'])
def test_a_broken_manifest_is_said_in_a_line(content: bytes) -> None:
    with pytest.raises(UserError, match=r"is not a manifest|is not valid JSON"):
        Manifest.parse(content, "MANIFEST.json")


def test_what_another_version_wrote_is_not_written_over(store: Store, package: Path) -> None:
    store.put(package, "x")
    store.folder.write(f"x/{MANIFEST}", b'{"format": 2, "files": [{"name": "config.json"}]}')
    with pytest.raises(UserError, match=r"has the format 2, not 1. Use the singer_ray that wrote it"):
        store.put(package, "x")
    assert store.folder.read(f"x/{MANIFEST}") == b'{"format": 2, "files": [{"name": "config.json"}]}'


def test_replace_mends_a_package_that_was_spoilt(store: Store, package: Path) -> None:
    store.put(package, "x")
    content = bytearray((package / "model.safetensors").read_bytes())
    content[100] ^= 1
    store.folder.write("x/model.safetensors", bytes(content))
    with pytest.raises(UserError, match=r"Publish it again with --replace"):
        store.verify("x")
    assert store.put(package, "x", replace=True).new
    store.verify("x")
