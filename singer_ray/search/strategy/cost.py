"""What a search has used: time, GPU-hours, money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singer_ray.nodes.prices import Price

HOUR = 3600.0


@dataclass(frozen=True)
class Spending:
    """What a search has used, over all its sessions."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    money: float | None = None
    """US dollars; None when the price of some session's nodes is not known."""

    @classmethod
    def of(cls, sessions: Sequence[Mapping[str, Any]]) -> Spending:
        """Of the records in search.json: `begin` and `end` (unix s), `gpu_hours`, `money`."""
        money = [session["money"] for session in sessions]
        return cls(
            sum(session["end"] - session["begin"] for session in sessions),
            sum(session["gpu_hours"] for session in sessions),
            None if not money or None in money else sum(money),
        )

    def __str__(self) -> str:
        parts = [duration(self.seconds)]
        parts += [f"{self.gpu_hours:.3g} GPU-hours"] if self.gpu_hours else []
        parts += [f"${self.money:.2f}"] if self.money is not None else []
        return ", ".join(parts)


class Meter:
    """Measures the running session: call `tick` whenever something happens, and write `record` to search.json.

    It may be shared between threads.

    Args:
        sessions: the records of earlier sessions.
        concurrent: trials at a time, until `hold` changes it.
        gpus: GPUs that all trials together hold (concurrent x workers x gpus_per_trial), until `hold` changes it.
        price: returns the price of the nodes that are alive now. While it returns None the last known price is used: a
            node of unknown price must not stop the count of the others.
        clock: unix seconds.
    """

    def __init__(
        self,
        sessions: Sequence[Mapping[str, Any]],
        *,
        concurrent: int,
        gpus: float,
        price: Callable[[], Price | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.earlier = [dict(session) for session in sessions]
        self._price, self._clock = price, clock
        self._counting = threading.Lock()
        self.price = price()
        now = clock()
        self.session: dict[str, Any] = {
            "begin": now,
            "end": now,
            "nodes": self.price.nodes if self.price else None,
            "concurrent": concurrent,
            "gpus": gpus,
            "gpu_hours": 0.0,
            "money": None if self.price is None else 0.0,
        }

    def tick(self) -> Spending:
        """Adds the time since the last tick, at what was held meanwhile; returns everything spent so far."""
        price = self._price()  # asks the cluster, which may take its time
        with self._counting:
            session, now = self.session, max(self._clock(), self.session["end"])
            hours = (now - session["end"]) / HOUR
            session["end"] = now
            session["gpu_hours"] += session["gpus"] * hours
            if self.price is not None:
                session["money"] += self.price.per_hour * hours
            if price is not None:
                if self.price is None:  # known only now: charge the time before at the same price
                    session["money"] = price.per_hour * (now - session["begin"]) / HOUR
                self.price, session["nodes"] = price, price.nodes
            return self.spent

    def hold(self, *, concurrent: int, gpus: float) -> None:
        """From now on `concurrent` trials run at a time, and hold `gpus` GPUs together."""
        self.tick()
        with self._counting:
            self.session |= {"concurrent": concurrent, "gpus": gpus}

    @property
    def spent(self) -> Spending:
        """As of the last tick."""
        return Spending.of([*self.earlier, self.session])

    def record(self) -> dict[str, Any]:
        """The part of search.json about spending."""
        spent = self.spent
        return {
            "sessions": [*self.earlier, dict(self.session)],
            "seconds": round(spent.seconds, 2),
            "gpu_hours": round(spent.gpu_hours, 4),
            "money": None if spent.money is None else round(spent.money, 4),
            "price_per_node_hour": None if self.price is None else round(self.price.per_node_hour, 4),
        }


def duration(seconds: float) -> str:
    """`40 s`, `8 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / HOUR:.1f} h"
