"""The options of the Olive pass: as Olive wants them declared, and as the records that check them.

Both are made from the fields that declare the options, so that the command line, the Python API and
Olive have the same ones, of the same names: ``--min-agreement`` is ``min_agreement``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar

from olive.common.config_utils import ParamCategory
from olive.data.config import DataConfig
from olive.passes.olive_pass import PassParamDefault
from olive.passes.onnx.common import get_external_data_config
from olive.passes.pass_config import PassConfigParam
from olive.search.search_parameter import (
    Categorical,
    Conditional,
    SearchParameter,
    SpecialParamValue,
)

from asr_onnx.data.source import CalibrationOptions, LabelOptions
from asr_onnx.declare import declared, fields_of
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates
from asr_onnx.machine import Execution
from asr_onnx.options import INT8, RepairOptions
from asr_onnx.recipes import HOW, LADDER
from asr_onnx.repairing.trials import AMOUNTS
from asr_onnx.sweeps.automatic import AUTO, AutoOptions, check_open

T = TypeVar("T")

RECORDS = (
    RepairOptions, CalibrationOptions, LabelOptions, Gates, Figures, AutoOptions, Execution
)  # fmt: skip
LEFT_OUT = ("work_dir",)  # Olive keeps what was done itself
SEARCHED = ("sparsity", "recipe")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)  # what a search tries, unless it is told
CALIBRATION, LABELLED = "data_config", "labelled_data_config"
ALLOW_WORSE = "allow_worse"

# What has another name here than on the command line.
_NAMES = {"for": "engine", "force": ALLOW_WORSE}
_TYPES: dict[str, Any] = {
    "numbers": float | list[float] | str, "size": int | list[int] | str,
    "bool": bool, "int": int, "positive": int, "natural": int, "bytes": int, "float": float,
    "number": float, "percent": float, "share": float, "str": str, "text": str, "path": str,
    "words": list[str],
}  # fmt: skip
_NOT_GIVEN = frozenset(v.value for kind in (PassParamDefault, SpecialParamValue) for v in kind)


def parameters() -> dict[str, PassConfigParam]:
    """All options of the pass as Olive declares them."""
    found = {f.name: _parameter(f) for _, f in _fields()}
    found["sparsity"].search_defaults = Conditional(
        ("pattern", "macs"),
        {(None, None): Categorical(list(SPARSITIES))},
        Conditional.get_ignored_choice(),
    )
    found["recipe"].search_defaults = Categorical(list(LADDER))
    for name, text in (
        (CALIBRATION, "Calibration data, instead of calib: a data config of Olive's."),
        (LABELLED, "Labelled data, instead of data: a data config of Olive's that gives labels."),
    ):
        found[name] = PassConfigParam(type_=DataConfig | dict, description=text)
    found[ALLOW_WORSE] = PassConfigParam(
        type_=bool,
        default_value=False,
        description="Let pass what is worse than plain pruning, and take very few or equal "
        "calibration samples; no gate is waived.",
    )
    found |= get_external_data_config()
    return found


def spelled(text: str) -> str:
    """The text with options of the command line under the names they have here."""

    def name(found: re.Match[str]) -> str:
        return _NAMES.get(found[1], found[1].replace("-", "_"))

    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)", name, text)


@dataclass(frozen=True)
class Asked:
    """What a config asks for.  ``amount`` names what is to be found, if anything."""

    options: RepairOptions
    calibration: CalibrationOptions
    labels: LabelOptions
    gates: Gates
    figures: Figures
    execution: Execution
    automatic: AutoOptions
    amount: str | None
    allow_worse: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Asked:
        """Of the values by name; what is ``None``, or left to a search, counts as not given.

        Raises ``UsageError`` for a value that is invalid, goes with no other, or is no option.
        """
        if unknown := sorted(config.keys() - parameters().keys()):
            raise UsageError(f"AsrRepair has no option {', '.join(map(repr, unknown))}")
        given = {name: value for name, value in config.items() if _is_given(name, value)}
        found = [name for name in AMOUNTS if given.get(name) == AUTO]
        settings = {name: value for name, value in given.items() if name not in found}
        asked = cls(
            options=_record(RepairOptions, settings),
            calibration=_record(CalibrationOptions, settings),
            labels=_record(LabelOptions, settings),
            gates=_record(Gates, settings),
            figures=_record(Figures, settings),
            execution=_record(Execution, settings),
            automatic=_record(AutoOptions, settings),
            amount=found[0] if found else None,
            allow_worse=bool(given.get(ALLOW_WORSE)),
        )
        asked._check(given, found)
        return asked

    def _check(self, given: Mapping[str, Any], found: list[str]) -> None:
        """What no record by itself can see."""
        if len(found) > 1:
            raise UsageError(f"{' and '.join(found)} exclude each other: leave one out")
        if self.amount:
            check_open(self.options, self.amount)
            if self.gates == Gates():
                raise UsageError(f"{self.amount} {AUTO} needs a quality gate: give one")
        self._check_sources(given)
        if self.gates.label_gates and not (self.labels.data or LABELLED in given):
            gate = self.gates.label_gates[0]
            raise UsageError(f"{gate} needs labelled data: give data or {LABELLED}")
        if self.gates.metrics and not self.figures.metric_script:
            raise UsageError("min_metric is about metric_script: give that, too")
        if self.gates.min_agreement is not None and not self.calibration.holdout:
            raise UsageError("min_agreement is about samples held out: give a larger holdout")
        plain = RepairOptions(precision=INT8)
        of_int8 = [n for n in ("engine", "ranges")
                   if getattr(self.options, n) != getattr(plain, n)]  # fmt: skip
        if of_int8 and not self.options.quantizes:
            raise UsageError(f"{of_int8[0]} goes with precision {INT8}: give that, too")

    def _check_sources(self, given: Mapping[str, Any]) -> None:
        """One source of calibration data, at most one of labelled data."""
        calibration, labelled = self.calibration, self.labels.data
        if labelled and LABELLED in given:
            raise UsageError(f"data and {LABELLED} exclude each other: leave one out")
        others = calibration.calib, calibration.data_loader_script, calibration.load_inputs
        if CALIBRATION not in given:
            if not any(others):
                raise UsageError(f"no calibration data: give {CALIBRATION} or calib")
            calibration.check()
        elif any(others):
            raise UsageError(f"{CALIBRATION} is calibration data already: leave out the other")
        elif calibration.without_images() != calibration and not labelled:
            raise UsageError(f"{CALIBRATION} is fed as it is: leave out the preprocessing")


def _fields() -> Iterator[tuple[type[Any], Field[Any]]]:
    for kind in RECORDS:
        for f in fields(kind):
            if declared(f) is not None and f.name not in LEFT_OUT:
                yield kind, f


def _parameter(f: Field[Any]) -> PassConfigParam:
    """An option as its field declares it."""
    about = declared(f)
    assert about is not None
    default, text = about["default"], spelled(about["help"])
    kind, multiple = about.get("kind") or type(default).__name__, bool(about.get("multiple"))
    if choices := about.get("choices"):
        text += f"  One of {', '.join(choices)}."
    if default not in (None, ()) and "[default" not in text:
        text += f"  [default: {default}]"
    if f.name in HOW or f.name == "recipe" or default == ():
        default = None  # what a recipe may settle is not given unless somebody gives it
    return PassConfigParam(
        type_=_type(f.name, kind, multiple),
        default_value=list(default) if isinstance(default, tuple) else default,
        category=ParamCategory.PATH if kind == "path" and not multiple else ParamCategory.NONE,
        description=text,
    )


def _type(name: str, kind: str, multiple: bool) -> Any:
    if name in AMOUNTS:
        return float | str
    return GenericAlias(list, (_TYPES[kind],)) if multiple else _TYPES[kind]


def _is_given(name: str, value: Any) -> bool:
    if name in (CALIBRATION, LABELLED) or value is None:
        return value is not None
    searched = isinstance(value, SearchParameter | dict)
    searched = searched or (name in SEARCHED and isinstance(value, list))
    return not searched and not (isinstance(value, str) and value in _NOT_GIVEN)


def _record(kind: Callable[..., T], settings: Mapping[str, Any]) -> T:
    """The record of those settings that are its own."""
    abouts = {f.name: declared(f) or {} for f in fields(kind)}  # type: ignore[arg-type]
    names = [n for n in fields_of(kind) if n in settings]  # type: ignore[arg-type]
    return kind(**{n: _value(settings[n], abouts[n]) for n in names})


def _value(value: Any, about: Mapping[str, Any]) -> Any:
    """A value of JSON as the record has it."""
    if about.get("kind") == "numbers" and not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else (value,)
    if isinstance(value, list):
        return tuple(_value(v, about) for v in value)
    if about.get("kind") == "path" and isinstance(value, str):
        return Path(value)
    return value
