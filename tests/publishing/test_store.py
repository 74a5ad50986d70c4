"""Delivery to folders and to S3, the latter against a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from singer_ray.errors import UserError
from singer_ray.publishing.store import Store
from tests.servers import S3_ENVIRONMENT, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket="students")
    return "students"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made" / "inside").mkdir(parents=True)
    (tmp_path / "made" / "a.txt").write_text("one")
    (tmp_path / "made" / "inside" / "b.bin").write_bytes(bytes(range(256)) * 5000)
    return tmp_path / "made"


def test_a_folder_reaches_s3_whole(server: str, bucket: str, folder: Path) -> None:
    address = Store(f"s3://{bucket}/prefix/", endpoint=server).put(folder, "search/students/1-003")
    assert address == f"s3://{bucket}/prefix/search/students/1-003"
    client = boto3.client("s3", endpoint_url=server)
    read = {
        path: client.get_object(Bucket=bucket, Key=f"prefix/search/students/1-003/{path}")["Body"].read()
        for path in ("a.txt", "inside/b.bin")
    }
    assert read["a.txt"] == b"one"
    assert read["inside/b.bin"] == (folder / "inside" / "b.bin").read_bytes()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_of_the_environment_is_used(
    server: str, bucket: str, folder: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, server)
    Store(f"s3://{bucket}/{variable}").put(folder, "x")
    listed = boto3.client("s3", endpoint_url=server).list_objects_v2(Bucket=bucket, Prefix=f"{variable}/x/")
    assert {o["Key"].rpartition("/")[2] for o in listed["Contents"]} >= {"a.txt", "b.bin"}


def test_a_folder_reaches_a_folder(folder: Path, tmp_path: Path) -> None:
    Store(str(tmp_path / "target")).put(folder, "x")
    assert (tmp_path / "target" / "x" / "inside" / "b.bin").read_bytes() == (folder / "inside" / "b.bin").read_bytes()


def test_a_missing_bucket_is_named_before_anything_is_sent(server: str, bucket: str) -> None:
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        Store("s3://nowhere/prefix", endpoint=server)


def test_a_server_that_does_not_answer_is_named(bucket: str) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        Store(f"s3://{bucket}/x", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("address", "said"),
    [("ftp://host/x", "scheme 'ftp'"), ("s3:///prefix", "names no bucket"), ("/proc/version/x", "cannot be written")],
)
def test_addresses_that_cannot_be_are_refused(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Store(address)
