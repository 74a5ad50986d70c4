"""What the nodes of a Ray cluster cost an hour: as the user or the cluster file says, or by the package's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from singer_ray.errors import UserError, nearest
from singer_ray.storage import read_yaml

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the resolved cluster file on the head."""
PRICES = Path(__file__).with_name("prices.yaml")
METADATA, SETTING = "price_per_node_hour", "search.price_per_node_hour"
NODE_TYPE = "ray.io/node-group"
"""Label under which Ray keeps a node's type in the cluster file."""
_LOCAL_TYPE = "local.cluster.node"
"""How Ray names the one type of the provider `local`, whose nodes carry no such label."""


@dataclass(frozen=True)
class Price:
    """Of the nodes that are alive."""

    per_hour: float
    """US dollars, all nodes together."""
    nodes: int
    source: str
    """Who says so, for the screen: `by ...`."""

    @property
    def per_node_hour(self) -> float:
        """The mean over the nodes."""
        return self.per_hour / max(1, self.nodes)


@dataclass(frozen=True)
class NodePrices:
    """Knows what a node costs; `of` makes one."""

    every: float | None = None
    """Of each node, when the user has said it."""
    types: Mapping[str, str | None] = field(default_factory=dict)
    """EC2 instance type by node type of the cluster file; None if there is none, or the list lacks its region."""
    stated: Mapping[str, float] = field(default_factory=dict)
    """By node type or IP address, from the cluster file's metadata; `*` is any other node."""

    @classmethod
    def of(cls, price_per_node_hour: float | None, cluster_file: Path = CLUSTER_FILE) -> NodePrices:
        """From `search.price_per_node_hour` and the cluster file on this node, where there is one.

        Raises UserError for metadata that are not prices.
        """
        file = cluster_file.expanduser()
        if price_per_node_hour is not None or not file.is_file():
            return cls(every=price_per_node_hour)
        cluster: Any = read_yaml(file.read_bytes(), str(file), "Run `ray up` again.")
        if not isinstance(cluster, dict):
            raise UserError(f"{file} is not a cluster file: it does not contain a mapping. Run `ray up` again.")
        kinds: dict[str, Any] = cluster.get("available_node_types") or {}
        provider: dict[str, Any] = cluster.get("provider") or {}
        listed = provider.get("type") == "aws" and provider.get("region") in price_list()["regions"]
        types = {
            name: (kind.get("node_config") or {}).get("InstanceType") if listed else None
            for name, kind in kinds.items()
        }
        addresses = [provider.get("head_ip"), *(provider.get("worker_ips") or [])]
        known = [*types, *(str(address) for address in addresses if address)]
        return cls(types=types, stated=_stated((cluster.get("metadata") or {}).get(METADATA), known))

    def total(self, nodes: Sequence[Mapping[str, Any]]) -> Price | None:
        """The price of those of `nodes` (as `ray.nodes()` lists them) that are alive; None when one is not known."""
        priced = [self._of(node) for node in nodes if node["Alive"]]
        prices = [price for price, _ in priced if price is not None]
        if not priced or len(prices) < len(priced):
            return None
        return Price(sum(prices), len(priced), "by " + " and ".join(dict.fromkeys(source for _, source in priced)))

    def unknown(self, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
        """The node types (else addresses) of living nodes whose price is not known."""
        return list(dict.fromkeys(_name(n) for n in nodes if n["Alive"] and self._of(n)[0] is None))

    def _of(self, node: Mapping[str, Any]) -> tuple[float | None, str]:
        if self.every is not None:
            return self.every, SETTING
        for key in (str(node["NodeManagerAddress"]), _type(node) or _LOCAL_TYPE, "*"):
            if key in self.stated:
                return self.stated[key], "the cluster file's metadata"
        listed: float | None = price_list()["dollars_per_hour"].get(self.types.get(_type(node) or ""))
        return listed, f"the package's price list of {price_list()['date']} (approximate, on demand)"


@cache
def price_list() -> Mapping[str, Any]:
    """`date`, `regions` and `dollars_per_hour` by EC2 instance type."""
    content: dict[str, Any] = yaml.safe_load(PRICES.read_text(encoding="utf-8"))
    return content


def require_price(prices: NodePrices, nodes: Sequence[Mapping[str, Any]], money: float) -> Price:
    """The price of the nodes that are alive. Raises UserError when it is not known: `money` could not be enforced."""
    price = prices.total(nodes)
    if price is None:
        raise UserError(
            f"search.money {money:g} needs the price of a node, and none is known for "
            f"{', '.join(prices.unknown(nodes))}. Give --{SETTING} DOLLARS, or {METADATA} under `metadata` in the "
            f"cluster file, or use EC2 types of the package's list ({PRICES.name}) in "
            f"{' or '.join(price_list()['regions'])}."
        )
    return price


def _type(node: Mapping[str, Any]) -> str | None:
    kind: str | None = (node.get("Labels") or {}).get(NODE_TYPE)
    return kind


def _name(node: Mapping[str, Any]) -> str:
    kind = _type(node)
    return f"node type {kind!r}" if kind else f"node {node['NodeManagerAddress']}"


def _stated(metadata: Any, known: Sequence[str]) -> dict[str, float]:
    if metadata is None:
        return {}
    prices = metadata if isinstance(metadata, dict) else {"*": metadata}
    for name, price in prices.items():
        if isinstance(price, bool) or not isinstance(price, (int, float)) or price < 0:
            raise UserError(
                f"metadata.{METADATA} of the cluster file has {price!r} for {name}. Allowed: dollars an hour, 0 or "
                "more, for every node or by node type. Correct it and run `ray up` again."
            )
        if name != "*" and str(name) not in known:
            raise UserError(
                f"metadata.{METADATA} of the cluster file names {name!r}, which is not a node there."
                f"{nearest(str(name), known)} Allowed: {', '.join(known)}. Correct it and run `ray up` again."
            )
    return {str(name): float(price) for name, price in prices.items()}
