"""Every option of every record takes each value its declaration allows, and no other kind."""

from __future__ import annotations

from dataclasses import fields

import pytest

from asr_onnx.data.source import CalibrationOptions, ImageOptions, LabelOptions
from asr_onnx.declare import declared, fields_of
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates
from asr_onnx.machine import Execution
from asr_onnx.options import PruneOptions, RepairOptions

RECORDS = (
    CalibrationOptions, ImageOptions, LabelOptions, Figures, Gates, Execution, PruneOptions,
    RepairOptions,
)  # fmt: skip
OPTIONS = [(kind, name) for kind in RECORDS for name in fields_of(kind)]


@pytest.mark.parametrize("kind, name", OPTIONS, ids=lambda v: getattr(v, "__name__", v))
def test_what_is_not_of_the_declared_kind_is_refused_by_name(kind, name):
    with pytest.raises(UsageError, match=name):
        kind(**{name: {"no": "option"}})


CHOICES = [
    (kind, f.name, choice)
    for kind in RECORDS
    for f in fields(kind)
    if declared(f)
    for choice in declared(f).get("choices") or ()
    if isinstance(choice, str)
]


@pytest.mark.parametrize("kind, name, choice", CHOICES)
def test_every_choice_is_taken(kind, name, choice):
    options = kind(**{name: choice})
    assert getattr(options, name) == choice
