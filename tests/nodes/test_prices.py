"""What a node costs: who says so, in which order, and what happens when nobody does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from singer_ray.errors import UserError
from singer_ray.nodes.prices import NodePrices, price_list, require_price
from tests.clusters.cluster_files import ROOT, load, load_with_variants


def node(kind: str | None = None, address: str = "192.0.2.1", *, alive: bool = True) -> dict[str, Any]:
    """As ray.nodes() lists it."""
    return {"Alive": alive, "NodeManagerAddress": address, "Labels": {"ray.io/node-group": kind} if kind else {}}


def on_head(folder: Path, cluster: dict[str, Any]) -> Path:
    """The file that `ray up` leaves on the head for this cluster file: prepared, and JSON by content."""
    validate_config(prepared := prepare_config(cluster))
    file = folder / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps(prepared), encoding="utf-8")
    return file


def aws(**metadata: Any) -> dict[str, Any]:
    return {**load(ROOT / "clusters" / "aws.yaml"), **({"metadata": metadata} if metadata else {})}


AWS_NODES = [node("head"), node("gpu_spot"), node("gpu_spot"), node("gpu_on_demand", alive=False)]


def test_what_the_user_says_comes_first(tmp_path: Path) -> None:
    price = NodePrices.of(2.5, on_head(tmp_path, aws(price_per_node_hour=9.0))).total(AWS_NODES)
    assert price is not None
    assert (price.per_hour, price.nodes, price.per_node_hour) == (7.5, 3, 2.5)
    assert price.source == "by search.price_per_node_hour"


def test_the_cluster_file_comes_before_the_list(tmp_path: Path) -> None:
    file = on_head(tmp_path, aws(price_per_node_hour={"gpu_spot": 1.25}))
    price = NodePrices.of(None, file).total(AWS_NODES)
    assert price is not None
    assert price.per_hour == pytest.approx(price_list()["dollars_per_hour"]["m7i.2xlarge"] + 2 * 1.25)
    assert price.source == (
        "by the package's price list of 2025-07 (approximate, on demand) and the cluster file's metadata"
    )


def test_the_shipped_aws_file_has_a_price_by_the_list_alone(tmp_path: Path) -> None:
    prices = NodePrices.of(None, on_head(tmp_path, aws()))
    price = prices.total([node("gpu_on_demand"), node("head", alive=False)])
    assert price is not None
    assert price.per_hour == price_list()["dollars_per_hour"]["g6e.4xlarge"]
    assert "approximate" in price.source


@pytest.mark.parametrize("name", ["aws.yaml", "onprem.yaml"])
def test_the_example_prices_of_the_shipped_files_are_understood(name: str, tmp_path: Path) -> None:
    cluster = load_with_variants(ROOT / "clusters" / name)
    assert "price_per_node_hour" in cluster["metadata"]
    prices = NodePrices.of(None, on_head(tmp_path, cluster))
    assert prices.stated
    nodes = AWS_NODES if name == "aws.yaml" else [node(address="192.0.2.10"), node(address="192.0.2.12")]
    price = prices.total(nodes)
    assert price is not None
    assert price.per_hour > 0
    assert "the cluster file's metadata" in price.source


def test_machines_of_ones_own_are_priced_by_address_or_all_alike(tmp_path: Path) -> None:
    cluster = load(ROOT / "clusters" / "onprem.yaml")
    by_address = cluster | {"metadata": {"price_per_node_hour": {"192.0.2.10": 0.2, "192.0.2.11": 0.9}}}
    prices = NodePrices.of(None, on_head(tmp_path, by_address))
    price = prices.total([node(address="192.0.2.10"), node(address="192.0.2.11")])
    assert price is not None
    assert price.per_hour == pytest.approx(1.1)
    assert prices.total([node(address="192.0.2.10"), node(address="192.0.2.12")]) is None
    assert prices.unknown([node(address="192.0.2.10"), node(address="192.0.2.12")]) == ["node 192.0.2.12"]
    alike = NodePrices.of(None, on_head(tmp_path, cluster | {"metadata": {"price_per_node_hour": 0.5}}))
    price = alike.total([node(address="192.0.2.10"), node(address="192.0.2.12")])
    assert price is not None
    assert price.per_hour == 1.0


def test_without_a_price_money_cannot_be_limited(tmp_path: Path) -> None:
    elsewhere = aws()
    elsewhere["provider"]["region"] = "eu-west-1"  # the list is not of there
    prices = NodePrices.of(None, on_head(tmp_path, elsewhere))
    assert prices.total(AWS_NODES) is None
    with pytest.raises(UserError, match=r"search.money 20 needs .* for node type 'head', node type 'gpu_spot'\."):
        require_price(prices, AWS_NODES, 20.0)
    with pytest.raises(UserError, match=r"--search.price_per_node_hour DOLLARS") as found:
        require_price(NodePrices.of(None, tmp_path / "no such file"), [node()], 20.0)
    assert "\n" not in str(found.value)
    assert "metadata" in str(found.value)
    assert require_price(NodePrices.of(0.5), [node()], 20.0).per_hour == 0.5


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("cheap", "has 'cheap' for"),
        ({"gpu_spot": -1}, "has -1 for gpu_spot"),
        ({"gpu_spott": 1.0}, r"names 'gpu_spott', which is not a node there. Did you mean gpu_spot\?"),
    ],
)
def test_metadata_that_are_no_prices_are_refused(stated: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        NodePrices.of(None, on_head(tmp_path, aws(price_per_node_hour=stated)))


def test_the_list_is_dated_and_larger_machines_cost_more() -> None:
    prices = price_list()["dollars_per_hour"]
    assert len(str(price_list()["date"])) == len("2025-07")
    assert all(0.01 < price < 200 for price in prices.values())
    for kind in ("m5", "m6i", "m7i", "c6i", "c7i"):  # without GPUs the price follows the size
        sizes = {name.partition(".")[2]: price for name, price in prices.items() if name.startswith(f"{kind}.")}
        assert sizes["8xlarge"] == pytest.approx(4 * sizes["2xlarge"], rel=0.01), kind
    for small, large in (
        ("g5.12xlarge", "g5.48xlarge"),
        ("p4d.24xlarge", "p4de.24xlarge"),
        ("g6.xlarge", "g6e.xlarge"),
    ):
        assert prices[small] < prices[large]


def test_every_machine_of_the_shipped_aws_file_is_listed() -> None:
    cluster = load_with_variants(ROOT / "clusters" / "aws.yaml")
    used = {kind["node_config"]["InstanceType"] for kind in cluster["available_node_types"].values()}
    assert used <= set(price_list()["dollars_per_hour"])
    assert cluster["provider"]["region"] in price_list()["regions"]
