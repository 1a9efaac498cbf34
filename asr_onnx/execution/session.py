"""Run ONNX graphs by tensor name, on the execution provider that was asked for or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort

from asr_onnx.arrays import AnyArray, Feeds
from asr_onnx.errors import AsrError, ModelError, ProviderError, UsageError
from asr_onnx.graph.cut import Segment
from asr_onnx.graph.tensor_values import ROOT

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_WHERE_WEIGHTS_LIE = "session.model_external_initializers_file_folder_path"
_WARNING = 2  # ONNX Runtime's default severity


@dataclass(frozen=True)
class Device:
    """An execution provider that was seen to work; ``device`` is the CUDA ordinal."""

    provider: str = _CPU
    device: int = 0

    def __str__(self) -> str:
        return "cpu" if self.provider == _CPU else f"cuda:{self.device}"


def choose_device(request: str = "auto") -> Device:
    """``auto``: CUDA when a test convolution really runs there, else CPU; ``cpu``; ``cuda[:n]``.

    Raises ``ProviderError`` when CUDA was asked for by name and does not work (ONNX Runtime itself
    only warns and uses the CPU), ``UsageError`` for another word.
    """
    if request == "cpu":
        return Device()
    name, _, number = request.partition(":")
    if not (request == "auto" or (name == "cuda" and (not number or number.isdecimal()))):
        raise UsageError(f"provider '{request}' is not one of auto, cpu, cuda, cuda:N")
    device = Device(_CUDA, int(number or 0))
    problem = _problem(device)
    if problem and request != "auto":
        raise ProviderError(
            f"provider '{request}' does not work here ({problem}): install the CUDA and cuDNN "
            "libraries onnxruntime-gpu needs, or use --providers cpu"
        )
    return Device() if problem else device


@cache
def _problem(device: Device) -> str:
    """Why the device does not work, as a phrase; empty when a test convolution did."""
    if device.provider not in ort.get_available_providers():
        return "this ONNX Runtime was built without it"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> probe (float[1,1,4,4] x, float[1,1,3,3] w) '
        "=> (float[1,1,2,2] y) { y = Conv (x, w) }"
    )
    ones = {"x": np.ones((1, 1, 4, 4), np.float32), "w": np.ones((1, 1, 3, 3), np.float32)}
    ort.set_default_logger_severity(4)  # a missing CUDA library is told in one line
    try:
        right = np.allclose(Runner(model, device).run(ones)["y"], 9.0)
    except AsrError as error:
        return str(error)
    finally:
        ort.set_default_logger_severity(_WARNING)
    return "" if right else "a test convolution gave wrong values"


@cache
def _share_memory() -> None:
    """One arena for all sessions: a walk opens hundreds, and fresh memory costs more than work."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    grow = ort.OrtArenaCfg({"arena_extend_strategy": 1})  # by what is asked for, not by doubling
    ort.create_and_register_allocator(memory, grow)


def _ort_value(array: AnyArray) -> ort.OrtValue:
    """The array as ONNX Runtime takes it, bfloat16 and the like included."""
    if array.dtype.kind in "fiubc":
        return ort.OrtValue.ortvalue_from_numpy(array)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind)


class Runner:
    """One ONNX Runtime session; ``run`` maps input names to arrays and back.

    ``weights`` are a segment's; without them the model is a whole one.
    With ``once`` it opens fast rather than runs fast.  Pairs of Q and DQ are computed as they are
    written; ``fused``: in integers where ONNX Runtime can, as those who deploy the model have it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        device: Device,
        outputs: Sequence[str] | None = None,
        single_threaded: bool = False,
        weights: Feeds | None = None,
        once: bool = False,
        fused: bool = False,
    ) -> None:
        _share_memory()
        options = ort.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Patterns ask for blocks of ever other sizes, which the arena never gives back.
        options.enable_mem_pattern = False
        # Weights come and go with the session; in the arena they would stay.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.add_session_config_entry(_WHERE_WEIGHTS_LIE, ROOT)
        options.log_severity_level = 4  # failures arrive as exceptions
        if not fused:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if single_threaded:
            options.intra_op_num_threads = 1
        if once:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
        if weights is None:
            segment = Segment.whole(model)
            model, weights = segment.model, segment.weights
        # The session reads them in place, so they have to live as long.
        self._weights = {n: np.require(a, requirements=["C", "A"]) for n, a in weights.items()}
        if self._weights:
            values = [_ort_value(a) for a in self._weights.values()]
            options.add_external_initializers(list(self._weights), values)
        providers: list[str | tuple[str, dict[str, str]]] = [_CPU]
        if device.provider != _CPU:
            providers.insert(0, (device.provider, {"device_id": str(device.device)}))
        source = model.SerializeToString()
        try:
            self._session = ort.InferenceSession(source, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            why = _first_line(error) + (_unusual(model) if "NOT_IMPLEMENTED" in str(error) else "")
            raise ModelError(f"ONNX Runtime refuses the model: {why}") from None
        if device.provider not in self._session.get_providers():
            raise ProviderError("ONNX Runtime fell back to the CPU")
        self.inputs = [i.name for i in self._session.get_inputs()]
        halves = (i.name for i in self._session.get_inputs() if i.type == "tensor(float16)")
        self._halves = frozenset(halves)
        self.outputs = list(outputs or (o.name for o in self._session.get_outputs()))

    def run(self, feeds: Feeds) -> dict[str, AnyArray]:
        """Outputs by name; what it wants in float16 may be float32.

        Raises ``ModelError`` with ONNX Runtime's reason when a node fails.
        """
        fed = {n: feeds[n] for n in self.inputs}
        fed |= {n: np.asarray(fed[n], np.float16) for n in self._halves}
        try:
            values = self._session.run(self.outputs, fed)
        except Exception as error:  # see __init__
            raise ModelError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from None
        return dict(zip(self.outputs, values, strict=True))


def _unusual(model: onnx.ModelProto) -> str:
    """What weights the provider may have no operators for, and the cure, as a phrase."""
    for tensor in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        if kind in ("DOUBLE", "BFLOAT16", "FLOAT16"):
            return f" ('{tensor.name}' is {kind.lower()}: export the model in float32)"
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].removeprefix("[ONNXRuntimeError] : ")
