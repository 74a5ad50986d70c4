"""The room of a cluster, by the file that `ray up` left on its head: recorded from the shipped cluster files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.nodes.limits import HEAD, ClusterLimits, Room, read_limits

RECORDED = Path(__file__).parents[1] / "clusters" / "bootstrap"
AWS_HEAD = {"CPU": 0.0, HEAD: 1.0, "memory": 2e10}
WORKER = {"CPU": 16.0, "GPU": 1.0, "memory": 9e10}
A_TRIAL = {"CPU": 1.0, "GPU": 1.0}


def recorded(name: str, **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return content | changes


def limits(name: str, **changes: Any) -> ClusterLimits:
    return ClusterLimits.of(recorded(name, **changes))


def test_a_new_cluster_on_aws_has_room_for_what_its_types_can_hold() -> None:
    """The head has no CPU, and no worker has come: 8 spot and 2 on-demand machines of a GPU each may."""
    assert Room.of(A_TRIAL, [AWS_HEAD], limits("aws")) == Room(0, 10)
    assert Room.of({"CPU": 1.0, "GPU": 0.0}, [AWS_HEAD], limits("aws")) == Room(0, 160)
    assert Room.of({"CPU": 1.0, "GPU": 0.25}, [AWS_HEAD], limits("aws")) == Room(0, 40)
    assert Room.of({"CPU": 9.0, "GPU": 1.0}, [AWS_HEAD, WORKER, WORKER], limits("aws")) == Room(2, 10)
    for never in ({"CPU": 17.0}, {"GPU": 2.0}):
        assert Room.of(never, [AWS_HEAD], limits("aws")) == Room(0, 0)


def test_the_cluster_bounds_its_types_together_and_the_larger_type_comes_first() -> None:
    assert Room.of(A_TRIAL, [AWS_HEAD], limits("aws", max_workers=3)) == Room(0, 3)
    kinds = recorded("aws")["available_node_types"]
    kinds["gpu_on_demand"]["resources"] = {"CPU": 64, "GPU": 4}
    assert Room.of(A_TRIAL, [AWS_HEAD], limits("aws", available_node_types=kinds, max_workers=3)) == Room(0, 2 * 4 + 1)
    kinds["gpu_spot"]["max_workers"] = 0
    assert Room.of(A_TRIAL, [AWS_HEAD], limits("aws", available_node_types=kinds)) == Room(0, 8)


def test_a_head_that_trains_counts_once_and_workers_that_are_there_are_not_counted_twice() -> None:
    head = AWS_HEAD | {"CPU": 4.0, "GPU": 1.0}
    assert Room.of(A_TRIAL, [head, WORKER], limits("aws")) == Room(2, 11)
    assert Room.of(A_TRIAL, [head] + [WORKER] * 12, limits("aws")) == Room(13, 13)  # more than the file says: as it is
    assert Room.of(A_TRIAL | ray_cluster.ON_HEAD, [head, WORKER], limits("aws")) == Room(1, 1)


def test_machines_of_ones_own_are_unknown_until_they_have_joined() -> None:
    head = {"CPU": 0.0, HEAD: 1.0}
    assert limits("onprem").machines == 3
    assert Room.of(A_TRIAL, [head], limits("onprem")) == Room(0, None)
    assert Room.of(A_TRIAL, [head, WORKER], limits("onprem")) == Room(1, None)
    assert Room.of(A_TRIAL, [head, WORKER, WORKER], limits("onprem")) == Room(2, 2)
    assert Room.of(A_TRIAL, [head], limits("onprem", max_workers=0)) == Room(0, 0)
    assert Room.of(A_TRIAL, [WORKER | {HEAD: 1.0}], None) == Room(1, 1)
    assert Room(7, None) // 2 == Room(3, None)


@pytest.mark.parametrize("text", ["[]", "{}", "provider: aws", "a: {b", "provider: {type: local}\nmax_workers: many"])
def test_a_file_that_is_none_is_said_in_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_limits() is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"ray_bootstrap_config.yaml on the cluster's head .* `ray up`") as caught:
        read_limits()
    assert "\n" not in str(caught.value)


def test_what_ray_up_changes_counts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "ray_bootstrap_config.yaml"
    for most in (10, 9, 104):
        file.write_text(json.dumps(recorded("aws", max_workers=most)))
        found = read_limits()
        assert found is not None
        assert found.most == most


class Joining:
    """A cluster on which a look takes no time, and after each look another machine has come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, known: ClusterLimits | None, *nodes: dict[str, float]) -> None:
        self.coming, self.there, self.now = list(nodes), 1, 0.0
        monkeypatch.setattr(ray_cluster, "limits", lambda: known)
        monkeypatch.setattr(ray, "nodes", self.nodes)
        monkeypatch.setattr(ray_cluster, "time", self)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": resources} for resources in self.coming[: self.there]]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 40.0
        self.there += 1


def test_a_search_waits_for_machines_and_says_how_many_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    head = {"CPU": 0.0, HEAD: 1.0}
    said: list[str] = []
    Joining(monkeypatch, limits("onprem"), head, WORKER, WORKER)
    ray_cluster.wait_for_room(A_TRIAL, 2, "the 2 workers of a trial", said.append)
    assert said == [
        "waiting for machines: 1 of 3 machines is here, with no room for the 2 workers of a trial (1 CPU and 1 GPU "
        "each); Ctrl-C ends this",
        "waiting for machines: 2 of 3 machines are here, with room for 1 of the 2 workers of a trial (1 CPU and 1 GPU "
        "each); Ctrl-C ends this",
    ]


def test_it_is_refused_once_all_machines_are_there_and_none_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    Joining(monkeypatch, limits("onprem"), {"CPU": 0.0, HEAD: 1.0}, WORKER, WORKER)
    with pytest.raises(UserError, match=r"No room for a trial \(4 GPUs each, .* room for more than 0\. Lower"):
        ray_cluster.wait_for_room({"GPU": 4.0}, 1, "a trial", said.append)
    assert len(said) == 2
    Joining(monkeypatch, limits("aws"), AWS_HEAD)
    with pytest.raises(UserError, match=r"room for more than 10\."):
        ray_cluster.wait_for_room({"GPU": 1.0}, 11, "the 11 workers", said.append)
    assert len(said) == 2


def test_whether_there_are_gpus_is_known_when_the_machines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    head, plain = {"CPU": 8.0, HEAD: 1.0}, {"CPU": 8.0}
    said: list[str] = []
    Joining(monkeypatch, limits("onprem"), head, plain, WORKER)
    assert ray_cluster.has_gpus(said.append)
    assert said[0].startswith("waiting for machines that may have GPUs: 1 of 3 machines is here, without one")
    Joining(monkeypatch, limits("onprem"), head, plain, plain)
    assert not ray_cluster.has_gpus(said.append)
    Joining(monkeypatch, limits("onprem"), head)  # the others never come
    assert not ray_cluster.has_gpus(said.append)
    Joining(monkeypatch, limits("aws"), AWS_HEAD)
    assert ray_cluster.has_gpus(said.append)


def test_results_of_a_cluster_that_grows_are_kept_where_all_its_machines_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Joining(monkeypatch, limits("aws"), AWS_HEAD)
    with pytest.raises(UserError, match=r"This Ray cluster grows to 11 nodes, .* Use --storage s3://BUCKET/PREFIX"):
        ray_cluster.shared_storage(None, tmp_path)
    assert ray_cluster.shared_storage("s3://bucket/x", tmp_path) == "s3://bucket/x"
    Joining(monkeypatch, None, {"CPU": 8.0, HEAD: 1.0})
    assert ray_cluster.shared_storage(None, tmp_path) is None
