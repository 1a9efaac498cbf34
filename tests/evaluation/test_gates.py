"""Quality gates: a bound that is met passes, all else is one line each."""

from __future__ import annotations

import math

import pytest

from asr_onnx import UsageError
from asr_onnx.evaluation.gates import (
    Gates,
    Measured,
    checks,
    failed,
    failures,
    figures,
    require_measurable,
    worst_agreement,
    worst_cosine,
    worst_error,
)
from asr_onnx.evaluation.match import OutputMatch

BOUNDS = {"max_error": 0.2, "min_cosine": 0.9, "min_metric": ("f1=0.8",)}
BOUNDS |= {"min_agreement": 0.95, "min_accuracy": 0.9, "max_drop": 0.01}
ALL = Gates(**BOUNDS)


def match(agreement=1.0, cosine=1.0, error=0.0, **more):
    return OutputMatch(10, agreement, cosine, error, **more)


def measured(accuracy=0.95, dense=0.95, metrics=None, outputs=None, **figures):
    found = outputs or {"y": match(**figures)}
    return Measured(found, accuracy, dense, {"f1": 1.0} if metrics is None else metrics)


def test_what_just_meets_its_bounds_passes():
    # 0.91 - 0.90 is a little more than 0.01 in floating point.
    assert 0.91 - 0.9 > 0.01
    met = measured(0.9, 0.91, {"f1": 0.8}, agreement=0.95, cosine=0.9, error=0.2)
    assert failures(ALL, met, "m") == []


def test_what_passes_is_told_with_its_figure_and_bound():
    """In the order of the options; what fails is what ``failures`` has."""
    missed = measured(0.8, 0.95, {"f1": 0.8}, agreement=0.95, cosine=0.8, error=0.2)
    found = checks(ALL, missed, "m")
    assert [(c.gate, c.value, c.bound, c.lower, c.outcome) for c in found] == [
        ("--max-error", 0.2, 0.2, False, "passed"),
        ("--min-cosine", 0.8, 0.9, True, "failed"),
        ("--min-metric f1=", 0.8, 0.8, True, "passed"),
        ("--min-agreement", 0.95, 0.95, True, "passed"),
        ("--min-accuracy", 0.8, 0.9, True, "failed"),
        ("--max-drop", pytest.approx(0.15), 0.01, False, "failed"),
    ]
    assert failed(found) == failures(ALL, missed, "m")
    assert checks(Gates(), missed, "m") == []
    (unknown,) = checks(Gates(max_drop=0.1), measured(None), "m")
    assert (unknown.value, unknown.outcome) == (None, "failed")


def test_no_gates_no_failures():
    lost = measured(0.0, 1.0, {"f1": 0.0}, agreement=0.0, cosine=-1.0, error=math.inf)
    assert failures(Gates(), lost, "m") == []


@pytest.mark.parametrize(
    "found, option",
    [
        (measured(error=0.2001), "--max-error"),
        (measured(cosine=0.8999), "--min-cosine"),
        (measured(metrics={"f1": 0.7999, "recall": 1.0}), "--min-metric f1="),
        (measured(agreement=0.9499), "--min-agreement"),
        (measured(0.8999, 0.9), "--min-accuracy"),
        (measured(0.95, 0.9601), "--max-drop"),
    ],
)
def test_what_is_just_beyond_one_bound_fails_that_gate_alone(found, option):
    (failure,) = failures(ALL, found, "m.onnx")
    assert (failure.model, failure.gate) == ("m.onnx", option)
    assert option in failure.reason and str(failure) == f"m.onnx: {failure.reason}"


def test_every_failed_gate_has_a_line():
    lost = measured(0.2, 0.9, {"f1": 0.1}, agreement=0.1, cosine=0.3, error=math.inf)
    found = failures(ALL, lost, "m")
    assert [f.gate for f in found] == [
        "--max-error", "--min-cosine", "--min-metric f1=", "--min-agreement", "--min-accuracy",
        "--max-drop",
    ]  # fmt: skip
    assert "error (output 'y') inf is above --max-error 0.2" in found[0].reason
    assert "metric f1 0.1000 is below --min-metric f1=0.8" in found[2].reason
    assert "0.7000 is above --max-drop 0.01" in found[5].reason


def test_a_better_model_passes_a_drop_of_zero():
    assert failures(Gates(max_drop=0.0), measured(0.95, 0.9), "m") == []


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_cannot_be_measured_fails(value):
    """NaN is how outputs of another shape are told of; no metric of that name, no labels."""
    metrics = {} if value is None else {"f1": value}
    outputs = {"y": match(value, math.nan, math.nan)}
    assert len(failures(ALL, measured(value, value, metrics, outputs), "m")) == 6


def test_a_dense_model_with_one_answer_is_nothing_to_agree_with():
    outputs = {"y": match(None, one_answer=True)}
    (failure,) = failures(Gates(min_agreement=0.5), measured(outputs=outputs), "m")
    assert "gives the same answer to all samples" in failure.reason


@pytest.mark.parametrize("name", ["min_agreement", "min_accuracy", "max_drop"])
@pytest.mark.parametrize("value", [-0.1, 1.1, 95, math.nan])
def test_a_bound_is_a_share(name, value):
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        Gates(**{name: value})


@pytest.mark.parametrize("bound", ["f1", "f1=", "=0.5", "f1=x", "f1=nan", "f1=inf", ""])
def test_a_metrics_bound_is_a_name_and_a_number(bound):
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        Gates(min_metric=(bound,))
    assert Gates(min_metric=("a=b=-3", "f1=0.5")).metrics == {"a=b": -3.0, "f1": 0.5}


@pytest.mark.parametrize("bounds", [{"max_error": -0.1}, {"max_error": math.nan},
                                    {"min_cosine": 1.1}, {"min_cosine": math.nan}])  # fmt: skip
def test_a_bound_that_makes_no_sense_is_refused(bounds):
    with pytest.raises(UsageError, match="--m"):
        Gates(**bounds)


@pytest.mark.parametrize(
    "outputs, wanted",
    [
        ({"y": match(0.9)}, ("y", 0.9)),
        ({"y": match(0.9), "z": match(0.7), "a": match(1.0)}, ("z", 0.7)),
        ({"embedding": match(None), "y": match(0.9)}, ("y", 0.9)),
        ({"still": match(None, one_answer=True), "y": match(0.9)}, ("y", 0.9)),
        ({"embedding": match(None), "still": match(None, one_answer=True)}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_agreement_is_that_of_the_worst_output_with_classes(outputs, wanted):
    assert worst_agreement(outputs) == wanted


def test_error_and_cosine_are_those_of_the_worst_output_that_can_be_compared():
    lists = match(None, math.nan, math.nan)
    outputs = {"list": lists, "y": match(error=0.1, cosine=0.9), "z": match(error=0.3, cosine=0.95)}
    assert worst_error(outputs) == ("z", 0.3)
    assert worst_cosine(outputs) == ("y", 0.9)
    spoiled = outputs | {"nan": match(None, 0.0, math.inf)}
    assert worst_error(spoiled) == ("nan", math.inf)
    assert worst_cosine(spoiled) == ("nan", 0.0)
    assert worst_error({"list": lists}) == worst_cosine({}) == (None, None)


def test_the_output_a_gate_fails_at_is_named():
    (failure,) = failures(ALL, measured(outputs={"mask": match(0.5), "y": match()}), "m")
    assert str(failure) == (
        "m: agreement with the dense model (output 'mask') 0.5000 is below --min-agreement 0.95"
    )


def test_a_gate_on_what_cannot_be_told_of_these_outputs_is_refused():
    unknown, known = {"a": match(None), "b": match(None)}, {"y": match(None, one_answer=True)}
    with pytest.raises(UsageError, match=r"'a', 'b' is not known.*--class-axis OUTPUT:AXIS"):
        require_measurable(Gates(min_agreement=0.9), unknown, None)
    require_measurable(Gates(min_agreement=0.9), unknown | known, None)
    require_measurable(Gates(max_error=0.1, min_cosine=0.9), unknown, None)
    with pytest.raises(UsageError, match="--min-metric f2: the metric script gives 'f1', 'map'"):
        require_measurable(Gates(min_metric=("f2=1",)), known, {"f1": 1.0, "map": 0.5})


def test_a_share_missed_by_chance_says_how_many_samples_would_settle_it():
    """0.93 of 100 is within 1.96 sqrt(0.95 0.05 / 100) = 0.043 of 0.95; 457 make that 0.02."""
    near = {"y": OutputMatch(100, 0.93, 1.0, 0.0, answers=100)}
    (failure,) = failures(Gates(min_agreement=0.95), Measured(near), "m")
    assert "within the noise of 100 samples: about 457 would settle it" in failure.reason
    far = {"y": OutputMatch(100, 0.90, 1.0, 0.0, answers=100)}
    (failure,) = failures(Gates(min_agreement=0.95), Measured(far), "m")
    assert "noise" not in failure.reason
    # Positions of a text are no samples of their own.
    text = {"y": OutputMatch(10, 0.93, 1.0, 0.0, answers=100)}
    (failure,) = failures(Gates(min_agreement=0.95), Measured(text), "m")
    assert "noise" not in failure.reason
    labelled = Measured(near, accuracy=0.89, dense_accuracy=0.9, labelled=200)
    (failure,) = failures(Gates(min_accuracy=0.9), labelled, "m")
    assert "within the noise of 200 samples" in failure.reason


def test_figures_are_what_each_gate_there_is_looks_at():
    found = figures(ALL, measured(accuracy=0.93, metrics={"f1": 0.7}, agreement=0.8, error=0.3))
    assert found == {
        "--max-error": 0.3,
        "--min-cosine": 1.0,
        "--min-metric f1=": 0.7,
        "--min-agreement": 0.8,
        "--min-accuracy": 0.93,
        "--max-drop": pytest.approx(0.02),
    }
    assert figures(Gates(min_cosine=0.5), measured()) == {"--min-cosine": 1.0}
    assert figures(Gates(max_drop=0.1), measured(dense=None)) == {}


def test_gates_of_outputs_are_those_without_labels():
    assert not ALL.of_outputs.label_gates and ALL.of_outputs.min_cosine == 0.9
    assert Gates(max_drop=0.1, min_accuracy=0.5).of_outputs == Gates()
