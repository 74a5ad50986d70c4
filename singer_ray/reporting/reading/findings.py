"""What a search can and cannot show: judged from its own trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from optuna.distributions import CategoricalDistribution, IntDistribution

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.reporting.reading.axis import Axis
from singer_ray.reporting.reading.record import SearchRecord, TrialRecord
from singer_ray.reporting.text import number, plural, score, spread_of
from singer_ray.search.study.schema import FAIL, PRUNED, QUEUED, RUNNING

EDGE = 0.05
"""When the best value is this close to an end of its range (as a share of it), the optimum may lie outside."""
PER_PARAMETER = 10
"""Finished trials per parameter; with fewer, a search shows a direction rather than a result."""
LEADERS = 5

CAUTION, GOOD, NOTE = "caution", "good", "note"
REFINER = "method.refiner"


@dataclass(frozen=True)
class Finding:
    """One thing to know before believing the figures."""

    kind: str
    """ "caution", "good" or "note"."""
    title: str
    text: str


def findings(search: SearchRecord, config: Config | None) -> list[Finding]:
    """What to know about a search, cautions first. `config` tells which values a setting may have at all."""
    every_finding = [
        *_state_of_the_search(search),
        *_seeds(search),
        *_edges(search, config),
        *_selection(search),
        *_stopped(search),
        *_refiners(search),
        *_failures(search),
        *(Finding(CAUTION, "What must be known of the data", remark) for remark in search.remarks),
        *(Finding(NOTE, "A file cannot be read", note) for note in search.notes),
    ]
    return sorted(every_finding, key=lambda each: (CAUTION, GOOD, NOTE).index(each.kind))


def _state_of_the_search(search: SearchRecord) -> Iterator[Finding]:
    running, finished = search.count(RUNNING) + search.count(QUEUED), len(search.finished)
    if running:
        yield Finding(
            CAUTION,
            "The search is not over",
            f"{plural(running, 'trial')} had not ended when this page was written, so every figure may still change. "
            "Where nothing runs any more, the search was cut off: go on with it by --resume.",
        )
    if not finished:
        yield Finding(
            CAUTION,
            "No trial has finished",
            "Nothing can be said about which parameters are good. What is drawn are values of trials before their end.",
        )
        return
    varied = [name for name, d in search.distributions.items() if not d.single()]
    if varied and finished < PER_PARAMETER * len(varied):
        yield Finding(
            CAUTION,
            "Few finished trials for this space",
            f"{finished} finished for {plural(len(varied), 'parameter')}. Below about {PER_PARAMETER} for each "
            f"({PER_PARAMETER * len(varied)} here) importances and slices show a direction, not a result.",
        )


def _seeds(search: SearchRecord) -> Iterator[Finding]:
    best = search.best
    if best is None or best.values is None or len(search.finished) < 2:
        return
    middle, name = search.median(0), search.objectives.first
    assert middle is not None
    repeated = [t for t in search.finished if t.seeds and t.spread is not None and t.mean is not None]
    if not repeated:
        yield Finding(
            CAUTION,
            "One seed for each trial",
            f"The best trial leads the median by {spread_of(abs(best.values[0] - middle))} in {name}, but how much a "
            "trial varies with its seed was not measured, so neighbours on the leaderboard may well change places. "
            "Repeat the leading ones: --search.repeats 3.",
        )
        return
    spread = math.sqrt(mean(t.spread**2 for t in repeated if t.spread is not None))
    leader = best if best in repeated else repeated[0]
    assert leader.mean is not None
    gain = abs(leader.mean - middle) if search.better(0, leader.mean, middle) else 0.0
    beyond = gain > 2 * spread
    yield Finding(
        GOOD if beyond else CAUTION,
        "The gain is larger than the seeds' spread" if beyond else "The gain is within the seeds' spread",
        f"Over {leader.seeds} seeds trial {leader.id} has a mean {name} of {score(leader.mean)}, {spread_of(gain)} "
        f"better than the median of all finished trials; trials vary by {spread_of(spread)} (standard deviation over "
        f"seeds, {plural(len(repeated), 'trial')} repeated).",
    )
    rivals = [t for t in repeated if t is not leader and t.mean is not None]
    if rivals:
        rival = min(rivals, key=lambda t: abs((t.mean or 0.0) - (leader.mean or 0.0)))
        gap = abs((rival.mean or 0.0) - leader.mean)
        if gap <= 2 * spread / math.sqrt(leader.seeds or 1):
            yield Finding(
                NOTE,
                "The leaders cannot be told apart",
                f"The means of trials {leader.id} and {rival.id} differ by {spread_of(gap)}, no more than their own "
                "uncertainty. Take whichever is cheaper.",
            )


def _edges(search: SearchRecord, config: Config | None) -> Iterator[Finding]:
    best = search.best
    if best is None or len(search.finished) < 2:
        return
    for name, value in best.parameters.items():
        distribution = search.distributions[name]
        if isinstance(distribution, CategoricalDistribution) or distribution.single():
            continue
        axis = Axis(name, distribution)
        share = axis.share(value)
        if EDGE < share < 1 - EDGE:
            continue
        upper = share > 0.5
        end = axis.high if upper else axis.low
        leaders = [t for t in search.finished[:LEADERS] if name in t.parameters]
        near = sum(_near(axis, t, name, upper=upper) for t in leaders)
        wider = axis.value_at(1.5 if upper else -0.5)
        proposal: float = round(wider) if isinstance(distribution, IntDistribution) else float(f"{wider:.2g}")
        allowed = proposal != end and _allows(config, name, proposal)
        yield Finding(
            CAUTION if allowed else NOTE,
            f"{name} is at the edge of its range",
            f"The best trial has {number(value)}; the range goes {'up' if upper else 'down'} to {number(end)}, and "
            f"{near} of the {len(leaders)} leading trials are near that end. "
            + (
                f"Widen it, for example to {number(proposal)}, and search again."
                if allowed
                else f"The setting cannot go to {number(proposal)}; an end a little further out may still be worth a "
                "try."
            ),
        )


def _near(axis: Axis, trial: TrialRecord, name: str, *, upper: bool) -> bool:
    share = axis.share(trial.parameters[name])
    return share >= 0.9 if upper else share <= 0.1


def _allows(config: Config | None, name: str, value: float) -> bool:
    """Whether the configuration accepts a value; without one, whether the default configuration does."""
    try:
        (config or Config()).override({name: value})
    except UserError:
        return False
    return True


def _selection(search: SearchRecord) -> Iterator[Finding]:
    best, name = search.best, search.objectives.first
    if best is None or best.values is None or len(search.finished) < 2 or not name.startswith("val/"):
        return
    test = search.test_of(best, name)
    text = f"The best of {len(search.finished)} on validation is partly luck: expect less on new images."
    if test is None:
        yield Finding(
            CAUTION,
            "No test value",
            f"{text} There is no test value to check it by; score the student with "
            "`python -m singer_ray.evaluate` on images that the search has not seen.",
        )
    else:
        yield Finding(
            NOTE,
            "Selected on validation",
            f"{text} On the test split, which chose nothing, trial {best.id} has {score(test)} against "
            f"{score(best.values[0])} on validation. Quote the test value, and do not choose among trials by it.",
        )


def _stopped(search: SearchRecord) -> Iterator[Finding]:
    stopped = [t for t in search.trials if t.state == PRUNED]
    ended = [t for t in search.trials if t.state not in (RUNNING, QUEUED)]
    if not stopped or not ended:
        return
    all_seconds = sum(t.seconds for t in ended)
    share = sum(t.seconds for t in stopped) / all_seconds if all_seconds else 0.0
    epochs = mean(t.epochs for t in stopped)
    of = f" of {search.epochs}" if search.epochs else ""
    yield Finding(
        CAUTION if len(stopped) > 0.85 * len(ended) else NOTE,
        f"{len(stopped) / len(ended):.0%} of the trials were stopped early",
        f"After {epochs:.1f}{of} epochs on average, for {share:.0%} of the time spent on trials. A setting that starts "
        "slowly and ends well would be among them: --search.grace_epochs gives each more time.",
    )


def _refiners(search: SearchRecord) -> Iterator[Finding]:
    distribution = search.distributions.get(REFINER)
    if not isinstance(distribution, CategoricalDistribution) or not search.finished:
        return
    counts = Counter(t.parameters.get(REFINER) for t in search.finished)
    thin = [str(choice) for choice in distribution.choices if counts[choice] < 3]
    if thin:
        yield Finding(
            CAUTION,
            "Refiners are compared on unequal ground",
            f"Fewer than three finished trials with {', '.join(thin)}: the sampler and the early stopping spend the "
            "budget on what looked good first. For a fair comparison give each its own search, or more random trials "
            "(--search.startup_trials).",
        )


def _failures(search: SearchRecord) -> Iterator[Finding]:
    failed = [t for t in search.trials if t.state == FAIL]
    if failed:
        reason, times = Counter(t.fault or "no reason recorded" for t in failed).most_common(1)[0]
        which, told = "Each" if times == len(failed) else "The most frequent reason", f"{reason.rstrip('.')}."
        yield Finding(
            CAUTION if len(failed) > 0.2 * len(search.trials) else NOTE,
            f"{plural(len(failed), 'trial')} failed",
            told if len(failed) == 1 else f"{which}: {told} A corner of the space that always fails is better cut out.",
        )
