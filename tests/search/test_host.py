"""Which trial gets which host."""

from __future__ import annotations

from singer_ray.search.host import HostRegistry


def test_trials_get_hosts_in_the_order_in_which_they_were_announced() -> None:
    registry = HostRegistry(["a", "b"])
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
    registry = HostRegistry(["a", "b"])
    assert registry.place("000") == registry.place("000") == "a"


def test_a_trial_that_has_ended_makes_room_and_gets_none() -> None:
    registry = HostRegistry(["a"])
    assert registry.place("000") == "a"
    assert registry.place("001") is None
    registry.retire("000")
    assert registry.place("000") == ""
    assert registry.place("001") == "a"


def test_one_that_lost_its_actor_comes_back() -> None:
    registry = HostRegistry(["a"])
    assert registry.place("000") == "a"
    registry.release("000")
    assert registry.place("000") == "a"
