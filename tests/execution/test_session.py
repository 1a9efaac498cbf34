"""Sessions: the provider that was asked for or none, and failures in one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
from models import ROOT, bare_net, build, normal

from asr_onnx import Execution, repair
from asr_onnx.errors import ModelError, ProviderError, UsageError
from asr_onnx.execution.session import Device, Runner, choose_device
from asr_onnx.options import RepairOptions


def cuda_works():
    try:
        return choose_device("cuda").provider == "CUDAExecutionProvider"
    except ProviderError:
        return False


CUDA = cuda_works()
needs_cuda = pytest.mark.skipif(not CUDA, reason="CUDA does not work here")
without_cuda = pytest.mark.skipif(CUDA, reason="CUDA works here")


def test_cpu_is_cpu():
    assert (choose_device("cpu"), str(choose_device("cpu"))) == (Device(), "cpu")


@without_cuda
@pytest.mark.parametrize("word", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_by_name_fails_where_there_is_none(word):
    with pytest.raises(
        ProviderError, match=f"provider '{word}' does not work here.*--providers cpu"
    ):
        choose_device(word)


@without_cuda
def test_auto_falls_back_to_the_cpu():
    assert choose_device("auto") == Device()


@without_cuda
def test_nothing_is_printed_when_auto_finds_no_cuda():
    code = "from asr_onnx.execution.session import choose_device; choose_device('auto')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "word", ["gpu", "", "CPU", "cuda:x", "cuda:-1", "cpu:0", "auto:1", "cuda0"]
)
def test_other_words_are_refused(word):
    with pytest.raises(
        UsageError, match=f"provider '{word}' is not one of auto, cpu, cuda, cuda:N"
    ):
        choose_device(word)


def test_a_fallback_that_only_warns_is_an_error(rng):
    """ONNX Runtime gives a CPU session when a provider cannot be loaded."""
    missing = next(p for p in ("TensorrtExecutionProvider", "CUDAExecutionProvider")
                   if p not in ort.get_available_providers() or not CUDA)  # fmt: skip
    with pytest.raises((ProviderError, ModelError)):
        Runner(bare_net(rng), Device(missing))


def test_outputs_come_by_name_and_inputs_may_be_more_than_needed(rng):
    model = build("net (float[N] x) => (float[N] a, float[N] b) { a = Neg (x) b = Abs (x) }", {})
    x = normal(rng, 5)
    found = Runner(model, Device()).run({"unknown": x, "x": x})
    np.testing.assert_array_equal(found["a"], -x)
    np.testing.assert_array_equal(found["b"], np.abs(x))
    assert Runner(model, Device(), ["b"]).run({"x": x}).keys() == {"b"}


@pytest.mark.parametrize(
    "nodes", ["y = NoSuchOperator (x)", "y = Conv (x, x, x, x)", "y = Relu (nowhere)"]
)
def test_a_model_onnx_runtime_refuses_is_told_in_one_line(nodes):
    model = build(f"net (float[N,3,4,4] x) => (float[N,3,4,4] y) {{ {nodes} }}", {})
    with pytest.raises(ModelError, match=r"^ONNX Runtime refuses the model: ") as caught:
        Runner(model, Device())
    assert "\n" not in str(caught.value)


def test_a_run_that_fails_is_told_in_one_line(rng):
    model = build("net (float[N] x, float[M] z) => (float[K] y) { y = Add (x, z) }", {})
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot run the model: ") as caught:
        Runner(model, Device()).run({"x": normal(rng, 3), "z": normal(rng, 4)})
    assert "\n" not in str(caught.value)


@needs_cuda
def test_auto_takes_cuda_where_it_works():
    assert choose_device("auto") == Device("CUDAExecutionProvider", 0)
    assert str(choose_device("cuda:0")) == "cuda:0"


@needs_cuda
def test_cuda_and_cpu_give_the_same_repair(rng):
    model, x = bare_net(rng), normal(rng, 32, 3, 8, 8)
    found = [
        repair(model, x, RepairOptions(0.5, recipe="asr"), execution=Execution(providers=p))
        for p in ("cpu", "cuda")
    ]
    assert [f.device for f in found] == ["cpu", "cuda:0"]
    for one, other in zip(*(f.sites for f in found), strict=True):
        assert one.zeros == other.zeros
        np.testing.assert_allclose(one.gamma, other.gamma, rtol=1e-2)
