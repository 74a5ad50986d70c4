"""Clients of S3 as AWS's own configuration asks for them, also in processes that cannot see it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from singer_ray.errors import UserError
from singer_ray.storage.address import Address
from singer_ray.storage.s3.store import S3Store
from singer_ray.storage.settings import Defaults
from tests.servers import ENVIRONMENT

SERVER = "https://storage.example.com"
PLACE = Address.of("s3://bucket")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "config").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def asked(store: S3Store) -> tuple[str, str]:
    """Host and path of its requests."""
    client = store.client
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}))
    return str(url.hostname), url.path


def test_a_custom_server_is_asked_by_path_where_nothing_is_configured() -> None:
    assert asked(S3Store(PLACE, Defaults(SERVER))) == ("storage.example.com", "/bucket/key")


@pytest.mark.parametrize("given", [SERVER, None])
def test_the_configured_addressing_style_is_kept(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a server named here, and for one that the configuration names; in another process as well."""
    configured(monkeypatch, tmp_path, f"[default]\nendpoint_url = {SERVER}\ns3 =\n  addressing_style = virtual\n")
    store = S3Store(PLACE, Defaults(given))
    sent = pickle.dumps(store)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for each in (store, pickle.loads(sent)):
        assert asked(each) == ("bucket.storage.example.com", "/key")


def test_the_server_of_s3_comes_before_that_of_all_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[default]\nendpoint_url = https://other.example.com\nservices = own\n"
    configured(monkeypatch, tmp_path, f"{text}[services own]\ns3 =\n  endpoint_url = {SERVER}\n")
    assert S3Store(PLACE, Defaults()).endpoint == SERVER
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://nearer.example.com")
    assert S3Store(PLACE, Defaults()).endpoint == "https://nearer.example.com"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert S3Store(PLACE, Defaults()).endpoint is None


def test_configured_checksums_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def checksums(endpoint: str | None) -> Any:
        return S3Store(PLACE, Defaults(endpoint)).client.meta.config.request_checksum_calculation

    assert (checksums(SERVER), checksums(None)) == ("when_required", "when_supported")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    assert checksums(SERVER) == "when_supported"
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert checksums(None) == "when_required"


def test_a_profile_that_is_not_there_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"AWS's configuration cannot be used: .*nobody.*Correct it, or AWS_PROFILE"):
        S3Store(PLACE, Defaults())
