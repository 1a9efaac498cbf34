"""How an automatic amount was found, as ``Trials.to_dict`` has it: lines, and rows of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asr_onnx.repairing.trials import AMOUNTS
from asr_onnx.reports.page import number

Search = Mapping[str, Any]  # what Trials.to_dict gives, or JSON read back


def lines(search: Search) -> Iterator[str]:
    """What was taken, why not more, what it cost, and how sure it is; for a terminal."""
    yield headline(search)
    tried = (f"{_given(search, t['removed'])} {outcome(t)}" for t in search["tried"])
    yield f"  tried: {', '.join(tried)}"
    yield from (f"  {note}" for note in notes(search))


def headline(search: Search) -> str:
    """The result and its cost in one sentence."""
    tried, failed = search["tried"], search["failed"]
    before = sum(t["before"] for t in tried)
    cost = f"{len(tried)} tried" + (f", {before} of them before" if before else "")
    cost += f", {search['seconds']:.1f} s"
    name = f"{search['amount']} auto"
    if search["chosen"] is None:
        return f"{name} found none that passes: {_given(search, failed)} fails; {cost}"
    above = f"{_given(search, failed)} fails" if failed else "none that was tried fails"
    if not search["closed"]:
        above += f", what lies between was not tried (--auto-steps {search['most']})"
    return f"{name} took {_given(search, search['chosen'])}: {above}; {cost}"


def notes(search: Search) -> Iterator[str]:
    """What the result rests on, and what casts doubt on it."""
    if search["samples"]:
        yield str(search["samples"])
    chosen = next((t for t in search["tried"] if t["removed"] == search["chosen"]), None)
    looked = (chosen["judged"] or chosen["searched"]) if chosen else None
    if looked and looked["drop"]:
        low, high = (f"{100 * x:.1f}" for x in looked["drop"])
        where = "judged" if chosen and chosen["judged"] else "searched"
        yield (
            f"accuracy lost on the {looked['labelled']:,} samples {where} on: 95 % interval {low} "
            f"to {high} points"
        )
    if search["looks"] > 1:
        yield (
            f"{search['looks']} had to be judged, the sparsest first, until one stood: it is "
            "known less well than the interval says"
        )
    if search["inversions"]:
        failed = ", ".join(_given(search, f) for f, _ in search["inversions"])
        passed = _given(search, search["chosen"])
        yield f"{failed} failed although {passed} passed: there the gates are within the noise"


def outcome(trial: Mapping[str, Any]) -> str:
    """What came of one that was tried, in a word or two."""
    if not trial["passed"]:
        return "failed"
    return "passed" if trial["stands"] else "failed the judgement"


def rows(search: Search) -> list[dict[str, Any]]:
    """A row for each that was tried, by amount; figures are of the search and the judgement."""
    found = []
    for trial in sorted(search["tried"], key=lambda t: float(t["removed"])):
        figures = {
            where: [number(trial[where]["figures"].get(g), 4) for g in gates(search)]
            if trial[where]
            else ["–"] * len(gates(search))
            for where in ("searched", "judged")
        }
        found.append(
            {
                "removed": _percent(trial["removed"]),
                "recipe": trial["recipe"],
                "outcome": outcome(trial),
                "taken": trial["removed"] == search["chosen"],
                "seconds": "before" if trial["before"] else f"{trial['seconds']:.1f} s",
                **figures,
            }
        )
    return found


def gates(search: Search) -> list[str]:
    """The gates that were measured, by their options."""
    found: dict[str, None] = {}
    for trial in search["tried"]:
        for where in ("searched", "judged"):
            found |= dict.fromkeys(trial[where]["figures"] if trial[where] else ())
    return list(found)


def _given(search: Search, removed: float) -> str:
    """The value of the option with which so much is removed."""
    return _percent(AMOUNTS[search["amount"]].at(removed))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
