"""What a search has used, over its sessions and its nodes."""

from __future__ import annotations

from singer_ray.nodes.prices import Price
from singer_ray.search.strategy.cost import Meter, Spending


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_spending_adds_up_over_sessions_and_follows_the_nodes() -> None:
    clock = Clock()
    prices = [Price(4.0, 2, "by x")]
    first = Meter([], concurrent=2, gpus=2.0, price=lambda: prices[-1], clock=clock)
    clock.now += 1800
    assert first.tick() == Spending(1800.0, 1.0, 2.0)
    prices.append(Price(8.0, 4, "by x"))  # the autoscaler brought two more
    first.tick()
    clock.now += 900
    assert first.tick() == Spending(2700.0, 1.5, 4.0)
    clock.now += 5000  # nobody searched
    second = Meter(first.record()["sessions"], concurrent=4, gpus=4.0, price=lambda: prices[-1], clock=clock)
    clock.now += 3600
    second.tick()
    record = second.record()
    assert (record["seconds"], record["gpu_hours"], record["money"]) == (6300.0, 5.5, 12.0)
    assert record["price_per_node_hour"] == 2.0
    assert [s["end"] - s["begin"] for s in record["sessions"]] == [2700.0, 3600.0]
    assert [(s["nodes"], s["concurrent"], s["gpus"]) for s in record["sessions"]] == [(4, 2, 2.0), (4, 4, 4.0)]
    assert Spending.of(record["sessions"]) == second.spent
    assert str(second.spent) == "1.8 h, 5.5 GPU-hours, $12.00"


def test_gpu_hours_are_counted_by_what_is_held_at_the_time() -> None:
    clock = Clock()
    meter = Meter([], concurrent=1, gpus=1.0, price=lambda: None, clock=clock)
    clock.now += 3600
    meter.hold(concurrent=4, gpus=4.0)  # machines have joined
    clock.now += 3600
    meter.hold(concurrent=0, gpus=0.0)  # and left
    clock.now += 3600
    assert meter.tick().gpu_hours == 5.0
    assert (meter.record()["sessions"][0]["concurrent"], meter.record()["sessions"][0]["gpus"]) == (0, 0.0)


def test_without_a_price_there_is_no_sum_and_a_lost_price_goes_on() -> None:
    clock = Clock()
    prices: list[Price | None] = [None]
    meter = Meter([], concurrent=1, gpus=0.0, price=lambda: prices[-1], clock=clock)
    clock.now += 1800
    assert meter.tick() == Spending(1800.0, 0.0, None)
    assert meter.record()["money"] is meter.record()["price_per_node_hour"] is None
    prices.append(Price(2.0, 1, "by x"))
    assert meter.tick().money == 1.0
    prices.append(None)  # a node that nobody knows joined
    clock.now += 1800
    meter.tick()
    assert meter.spent.money == 2.0
