"""Which trial gets which host."""

from __future__ import annotations

from singer_ray.nodes.ray_cluster import Note
from singer_ray.search.workers.registry import HostRegistry


class Paper(Note):
    """A note without a cluster."""

    def __init__(self) -> None:
        self.text: str | None = None

    def read(self) -> str | None:
        return self.text

    def write(self, text: str) -> None:
        self.text = text


def registry_of(*hosts: str, note: Note | None = None) -> HostRegistry:
    registry = HostRegistry(note or Paper())
    registry.attend(hosts)
    return registry


def test_trials_get_hosts_in_the_order_in_which_they_were_announced() -> None:
    registry = registry_of("a", "b")
    for trial in ("000", "001", "002", "003"):
        registry.announce(trial)
    assert registry.place("002") is None  # two are before it, though they have not asked yet
    assert registry.place("001") == "a"
    assert registry.place("000") == "b"
    assert registry.place("003") is None
    registry.release("001")
    assert registry.place("003") is None
    assert registry.place("002") == "a"


def test_a_trial_that_asks_again_keeps_its_host() -> None:
    registry = registry_of("a", "b")
    assert registry.place("000") == registry.place("000") == "a"


def test_a_trial_that_has_ended_makes_room_and_gets_none() -> None:
    registry = registry_of("a")
    assert registry.place("000") == "a"
    assert registry.place("001") is None
    registry.retire("000")
    assert registry.place("000") == ""
    assert registry.place("001") == "a"


def test_one_that_lost_its_actor_comes_back() -> None:
    registry = registry_of("a")
    assert registry.place("000") == "a"
    registry.release("000")
    assert registry.place("000") == "a"


def test_nobody_is_sent_to_a_host_that_is_not_there_yet() -> None:
    registry = HostRegistry(Paper())
    assert registry.place("000") is None
    registry.attend(["b"])
    assert registry.place("000") == "b"


def test_a_trial_whose_host_has_gone_comes_first() -> None:
    registry = registry_of("a", "b")
    assert (registry.place("000"), registry.place("001"), registry.place("002")) == ("a", "b", None)
    registry.attend(["b"])
    assert registry.place("000") is None
    registry.release("001")
    assert registry.place("002") is None
    assert registry.place("000") == "b"
    registry.attend(["a", "b"])
    assert registry.place("002") == "a"


def test_a_registry_that_was_started_again_knows_what_the_one_before_knew() -> None:
    note = Paper()
    registry = registry_of("a", "b", note=note)
    for trial in ("000", "001", "002", "003", "004"):
        registry.announce(trial)
    assert (registry.place("000"), registry.place("001"), registry.place("002")) == ("a", "b", None)
    registry.retire("003")
    again = HostRegistry(note)
    assert again.hosts == ["a", "b"]
    assert (again.place("000"), again.place("001"), again.place("002"), again.place("003")) == ("a", "b", None, "")
    again.release("000")
    assert again.place("004") is None
    assert again.place("002") == "a"


def test_no_trial_gets_a_place_while_the_cluster_has_no_room_for_its_workers() -> None:
    note = Paper()
    registry = registry_of("a", "b", "c", note=note)
    registry.attend(["a", "b", "c"], 1)
    assert (registry.place("000"), registry.place("001")) == ("a", None)
    registry.attend(["a", "b", "c"], 2)  # a machine has joined
    assert (registry.place("001"), registry.place("002")) == ("b", None)
    registry.attend(["a", "b", "c"], 1)  # one has left: whoever is on it comes back to its place
    assert (registry.place("000"), registry.place("001")) == ("a", "b")
    registry.release("000")
    assert HostRegistry(note).place("002") is None
    registry.release("001")
    assert registry.place("002") == "a"
