"""Quality gates: what a model has to reach, and what to say when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from asr_onnx.declare import flag, option
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.outputs import OutputMatch

ROUNDING = 1e-9  # 0.91 - 0.90 is a little more than 0.01


@dataclass(frozen=True)
class Gates:
    """Bounds, each a share in [0, 1] or ``None`` for no such gate.

    ``min_agreement``: same arg-max as the dense model (see ``worst_agreement``); ``min_accuracy``:
    top-1; ``max_drop``: the dense model's top-1 minus this one's.
    Raises ``UsageError`` for what is no share.
    """

    min_agreement: float | None = option(
        None,
        "Gate: fail when the arg-max is the dense model's less often than this share, e.g. 0.95, "
        "at any output.",
        kind="number",
    )
    min_accuracy: float | None = option(
        None, "Gate: fail below this top-1 accuracy, e.g. 0.9.", kind="number"
    )
    max_drop: float | None = option(
        None, "Gate: fail when top-1 is lower by more, e.g. 0.01.", kind="number"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{flag(f.name)} {value:g} is outside [0, 1]")

    @property
    def label_gates(self) -> tuple[str, ...]:
        """Options of the gates set that need labels."""
        names = ("min_accuracy", "max_drop")
        return tuple(flag(n) for n in names if getattr(self, n) is not None)


@dataclass(frozen=True)
class Measured:
    """What the gates look at, each a share; ``None`` where it could not be measured.

    ``output`` is the one ``agreement`` is of.
    """

    agreement: float | None = None
    accuracy: float | None = None
    dense_accuracy: float | None = None
    output: str | None = None


def worst_agreement(
    outputs: Mapping[str, OutputMatch], samples: int
) -> tuple[str | None, float | None]:
    """The output whose arg-max is the dense model's least often, and that share.

    What counts are outputs with classes along axis 1 and all ``samples`` along the first axis: a
    list of detections has neither.  A good output does not make up for a bad one.
    """
    shares = {
        name: match.agreement
        for name, match in outputs.items()
        if match.agreement is not None and match.samples == samples
    }
    worst = min(shares, key=shares.__getitem__, default=None)
    return worst, None if worst is None else shares[worst]


@dataclass(frozen=True)
class Failure:
    """What speaks against the model called ``model``: the ``gate`` (an option) it fails, if any."""

    model: str
    gate: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.model}: {self.reason}"


def failures(gates: Gates, measured: Measured, name: str) -> list[Failure]:
    """The gates that the model called ``name`` fails.

    A gate on something that was not measured, or is NaN, fails.
    """
    drop = None
    if measured.accuracy is not None and measured.dense_accuracy is not None:
        drop = measured.dense_accuracy - measured.accuracy
    where = f" (output '{measured.output}')" if measured.output else ""
    checks = (
        ("min_agreement", f"agreement with the dense model{where}", measured.agreement, 1),
        ("min_accuracy", "accuracy", measured.accuracy, 1),
        ("max_drop", "drop of accuracy", drop, -1),
    )
    found = []
    for field, what, value, sign in checks:
        bound, gate = getattr(gates, field), flag(field)
        if bound is None:
            continue
        if value is None:
            found.append(Failure(name, gate, f"{what} was not measured ({gate} {bound:g})"))
        elif not sign * value >= sign * bound - ROUNDING:
            side = "below" if sign > 0 else "above"
            reason = f"{what} {value:.4f} is {side} {gate} {bound:g}"
            found.append(Failure(name, gate, reason))
    return found
