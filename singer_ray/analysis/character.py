"""What artifacts are like, in sentences: what each finding means for the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.remedy import has_artifacts, name_blocks, percent


def of_artifacts(reports: Mapping[int, LayerReport], layers: Sequence[int], worst: int) -> list[str]:
    """Sentences on where artifacts begin and end, their places, their channel, and what the final norm does to them.

    Some layer of `layers` has artifacts that matter; places and channel are those of `worst`.
    """
    report = reports[worst]
    return [*_depth(reports, layers), *_places(report), *_channel(report), *_final_norm(reports[max(reports)])]


def of_normal_tokens(report: LayerReport) -> list[str]:
    """A sentence on the channel that decides the loss without being an artifact, where there is one."""
    nature = report.nature
    if nature.massive_channel is None:
        return []
    return [
        f"Channel {nature.massive_channel} holds {percent(nature.common_channel[1])} of the energy of normal tokens. "
        "That is no artifact, but most of the loss: targets whose channels are standardised weigh all alike "
        "(--method.target standardize)."
    ]


def _depth(reports: Mapping[int, LayerReport], layers: Sequence[int]) -> list[str]:
    having = [n for n, report in reports.items() if has_artifacts(report)]
    last = max(reports)
    if having == [last]:
        extent = "Only the last block has them"
    elif having[-1] == last:
        extent = f"They begin at block {having[0]} and last to the end"
    else:
        extent = f"They begin at block {having[0]} and are gone behind block {having[-1]}"
    free = [n for n in layers if n not in having]
    if not free:
        return [f"{extent}."]
    return [
        f"{extent}: of the distilled blocks, {name_blocks(free)} {'has' if len(free) == 1 else 'have'} none, and "
        f"--teacher.layers {' '.join(map(str, free))} alone would need no remedy."
    ]


def _places(report: LayerReport) -> list[str]:
    nature = report.nature
    if nature.recurrence is None:
        return []
    figure = f"recurrence {nature.recurrence:.2f}; 0 is chance, 1 always the same"
    if nature.locked:
        return [
            f"They keep to the same places in most images ({figure}): a teacher averaged over shifted views gives "
            "these places content again (--method.wrapper shift_average), where a refiner can only remove."
        ]
    return [f"They follow the content rather than the place ({figure}), so no fixed map of places would catch them."]


def _channel(report: LayerReport) -> list[str]:
    nature = report.nature
    if nature.artifact_channel is None or nature.channel is None:
        return []
    return [
        f"One of their directions is little else than channel {nature.artifact_channel} ({percent(nature.channel[1])} "
        "of its square), a massive channel: singer sets it to what normal tokens have, while layernorm leaves it as "
        "most of what the student sees of these tokens."
    ]


def _final_norm(report: LayerReport) -> list[str]:
    after = report.after_norm
    if after is None or not has_artifacts(report):
        return []
    change = f"the largest token is {report.max_median:.1f} x the median before it and {after:.1f} x behind it"
    if after < report.max_median / 2:
        return [f"The final norm evens out lengths ({change}) but not directions, and distillation reads before it."]
    return [f"The final norm does not even them out ({change})."]
