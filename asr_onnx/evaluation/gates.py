"""Quality gates: what a model has to reach, and what to say when it does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from asr_onnx.declare import fill, flag, option
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.match import OutputMatch

ROUNDING = 1e-9  # 0.91 - 0.90 is a little more than 0.01


@dataclass(frozen=True)
class Gates:
    """Bounds; ``None`` for no such gate.

    ``max_error`` and ``min_cosine`` are of the worst output (see ``OutputMatch``), ``min_metric``
    are of the user's metric, ``name=value``; ``min_agreement``: same answer as the dense model (see
    ``worst_agreement``); ``min_accuracy``: top-1; ``max_drop``: the dense model's top-1 minus this
    one's.  Raises ``UsageError`` for shares outside [0, 1] and other invalid bounds.
    """

    max_error: float | None = option(
        None,
        "Gate: fail when an output differs by more, in units of the dense output's spread, e.g. "
        "0.2; on any output.",
        kind="number",
    )
    min_cosine: float | None = option(
        None,
        "Gate: fail when an output's deviations from its mean are less like the dense one's, e.g. "
        "0.98; on any output.",
        kind="number",
    )
    min_metric: tuple[str, ...] = option(
        (),
        "Gate: fail when a value of --metric-script is lower, e.g. f1=0.95; repeatable.",
        kind="text",
        metavar="NAME=VALUE",
        multiple=True,
    )
    min_agreement: float | None = option(
        None,
        "Gate: fail when the answer (arg-max) is the dense model's less often than this share, "
        "e.g. 0.95; where the class axis is known.",
        kind="number",
    )
    min_accuracy: float | None = option(
        None, "Gate: fail below this top-1 accuracy, e.g. 0.9.", kind="number"
    )
    max_drop: float | None = option(
        None, "Gate: fail when top-1 is lower by more, e.g. 0.01.", kind="number"
    )

    def __post_init__(self) -> None:
        fill(self)
        for name in ("min_agreement", "min_accuracy", "max_drop"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{flag(name)} {value:g} is outside [0, 1]")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise UsageError(f"--min-cosine {self.min_cosine:g} is outside [-1, 1]")
        if self.max_error is not None and not self.max_error >= 0:
            raise UsageError(f"--max-error {self.max_error:g} is negative")
        _ = self.metrics

    @property
    def metrics(self) -> dict[str, float]:
        """Lower bounds of the user's metrics by name."""
        found = {}
        for text in self.min_metric:
            name, _, value = text.rpartition("=")
            try:
                found[name] = float(value)
            except ValueError:
                name = ""
            if not name or not math.isfinite(found[name]):
                raise UsageError(f"--min-metric '{text}' is not NAME=VALUE, such as f1=0.95")
        return found

    @property
    def label_gates(self) -> tuple[str, ...]:
        """Options of the gates set that need labels."""
        names = ("min_accuracy", "max_drop")
        return tuple(flag(n) for n in names if getattr(self, n) is not None)

    @property
    def of_outputs(self) -> Gates:
        """Those that need no labels."""
        return replace(self, min_accuracy=None, max_drop=None)


@dataclass(frozen=True)
class Measured:
    """What the gates look at: ``outputs`` by name, and shares that are ``None`` where not measured.

    ``metrics`` are the user's.
    """

    outputs: Mapping[str, OutputMatch]
    accuracy: float | None = None
    dense_accuracy: float | None = None
    metrics: Mapping[str, float] | None = None
    labelled: int = 0  # samples that accuracies are of


def worst_agreement(outputs: Mapping[str, OutputMatch]) -> tuple[str | None, float | None]:
    """The output whose answer is the dense model's least often, and that share.

    What counts are outputs with a known class axis.  A good output does not make up for a bad one.
    """
    shares = {n: m.agreement for n, m in outputs.items() if m.agreement is not None}
    worst = min(shares, key=shares.__getitem__, default=None)
    return worst, None if worst is None else shares[worst]


def worst_error(outputs: Mapping[str, OutputMatch]) -> tuple[str | None, float | None]:
    """The output that differs most from the dense model's, and by how much.

    Outputs of another shape than the dense model's cannot be compared and do not count.
    """
    errors = {n: m.relative_error for n, m in outputs.items() if not math.isnan(m.relative_error)}
    worst = max(errors, key=errors.__getitem__, default=None)
    return worst, None if worst is None else errors[worst]


def worst_cosine(outputs: Mapping[str, OutputMatch]) -> tuple[str | None, float | None]:
    """The output that is least like the dense model's, and its cosine; see ``worst_error``."""
    cosines = {n: m.cosine for n, m in outputs.items() if not math.isnan(m.cosine)}
    worst = min(cosines, key=cosines.__getitem__, default=None)
    return worst, None if worst is None else cosines[worst]


@dataclass(frozen=True)
class Failure:
    """What speaks against the model called ``model``: the ``gate`` (an option) it fails, if any."""

    model: str
    gate: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.model}: {self.reason}"


@dataclass(frozen=True)
class Check:
    """A gate, an option or a sentence, as it was held against the model called ``model``.

    ``value`` of ``what`` was measured; the ``bound`` is the least it may be if ``lower``, else the
    most.  ``reason`` says why it fails, empty if it does not; a ``waived`` one speaks not against
    the model.
    """

    model: str
    gate: str
    what: str
    value: float | None
    bound: float | None
    lower: bool
    reason: str = ""
    waived: bool = False

    @property
    def outcome(self) -> str:
        """``passed``, ``failed`` or ``waived``"""
        return ("waived" if self.waived else "failed") if self.reason else "passed"


def checks(gates: Gates, measured: Measured, name: str) -> list[Check]:
    """Every gate that is set, held against the model called ``name``.

    A gate on something that was not measured, or is NaN, fails.
    """
    found = []
    for gate, bound, what, value, sign in _checks(gates, measured):
        if bound is None:
            continue
        asked, reason = f"{gate}{'' if gate.endswith('=') else ' '}{bound:g}", ""
        if value is None:
            reason = f"{what} was not measured ({asked})"
        elif not sign * value >= sign * bound - ROUNDING:
            side = "below" if sign > 0 else "above"
            reason = f"{what} {value:.4f} is {side} {asked}"
            reason += within_noise(value, bound, _counted(gate, measured))
        found.append(Check(name, gate, what, value, bound, sign > 0, reason))
    return found


def failures(gates: Gates, measured: Measured, name: str) -> list[Failure]:
    """The gates that the model called ``name`` fails; see ``checks``."""
    return failed(checks(gates, measured, name))


def failed(found: Iterable[Check]) -> list[Failure]:
    """Those of the checks that speak against a model."""
    return [Failure(c.model, c.gate, c.reason) for c in found if c.outcome == "failed"]


def figures(gates: Gates, measured: Measured) -> dict[str, float]:
    """What was measured for each gate there is, by its option."""
    checks = _checks(gates, measured)
    return {g: value for g, bound, _, value, _ in checks if bound is not None and value is not None}


def _counted(gate: str, measured: Measured) -> int:
    """Of how many independent samples the gate's value is a share; 0 where it is none."""
    if gate == "--min-accuracy":
        return measured.labelled
    output, _ = worst_agreement(measured.outputs)
    if gate != "--min-agreement" or output is None:
        return 0
    match = measured.outputs[output]
    return match.samples if match.answers == match.samples else 0


def within_noise(share: float, bound: float, count: int) -> str:
    """What to add where a ``share`` of ``count`` misses its bound by no more than chance may.

    Chance is 1.96 standard errors of a binomial share at the bound; as many samples as make that
    the distance would settle it.
    """
    spread, distance = bound * (1 - bound), abs(bound - share)
    if not count or not spread or distance >= 1.96 * math.sqrt(spread / count):
        return ""
    enough = math.ceil(1.96**2 * spread / max(distance, 1e-3) ** 2)
    return f", within the noise of {count} samples: about {enough} would settle it"


def _checks(
    gates: Gates, measured: Measured
) -> Iterator[tuple[str, float | None, str, float | None, int]]:
    """Option, bound, what it is of, its value, and whether that has to be higher (1) or lower."""

    def at(output: str | None) -> str:
        return f" (output '{output}')" if output else ""

    outputs = measured.outputs
    output, error = worst_error(outputs)
    yield "--max-error", gates.max_error, f"error{at(output)}", error, -1
    output, cosine = worst_cosine(outputs)
    yield "--min-cosine", gates.min_cosine, f"cosine{at(output)}", cosine, 1
    for name, bound in gates.metrics.items():
        value = (measured.metrics or {}).get(name)
        yield f"--min-metric {name}=", bound, f"metric {name}", value, 1
    output, agreement = worst_agreement(outputs)
    what = f"agreement with the dense model{at(output)}"
    if output is None and any(m.one_answer for m in outputs.values()):
        what = "agreement with the dense model, which gives the same answer to all samples,"
    yield "--min-agreement", gates.min_agreement, what, agreement, 1
    yield "--min-accuracy", gates.min_accuracy, "accuracy", measured.accuracy, 1
    drop = None
    if measured.accuracy is not None and measured.dense_accuracy is not None:
        drop = measured.dense_accuracy - measured.accuracy
    yield "--max-drop", gates.max_drop, "drop of accuracy", drop, -1


def require_measurable(
    gates: Gates, outputs: Mapping[str, OutputMatch], metrics: Mapping[str, float] | None
) -> None:
    """Raise ``UsageError`` for a gate on what these outputs and ``metrics`` cannot be told of."""
    if gates.min_agreement is not None and not any(m.has_classes for m in outputs.values()):
        names = ", ".join(f"'{n}'" for n in outputs)
        raise UsageError(
            f"--min-agreement: the class axis of {names} is not known: declare it with "
            "--class-axis OUTPUT:AXIS, or use --max-error, --min-cosine or --metric-script"
        )
    for name in gates.metrics:
        if metrics is not None and name not in metrics:
            known = ", ".join(f"'{n}'" for n in metrics)
            raise UsageError(f"--min-metric {name}: the metric script gives {known}")
