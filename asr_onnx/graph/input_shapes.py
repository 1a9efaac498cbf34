"""``--input-shapes``: sizes for the dimensions a model leaves open.

Three spellings that mean the same, so that a command can be taken over from another tool:
``input:[1,3,224,224]`` (Polygraphy), ``input:1x3x224x224`` (trtexec, ModelOpt; several separated by
commas) and ``input:1,3,224,224`` (onnxsim).  Without a name it is the model's only input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from asr_onnx.errors import UsageError
from asr_onnx.graph.inputs import ModelInput, shape_text

# A number that a colon follows is the next input's name, not a dimension.
_DIMS = r"\[\s*\d+(?:\s*,\s*\d+)*\s*\]|\d+(?:x\d+)+|\d+(?:,\d+(?![\d]*:))*"
_ITEM = re.compile(rf"(?:(?P<name>\S+?):)?(?P<dims>{_DIMS})\s*(?:,\s*|$)")


def parse_input_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, the batch axis first; the name is empty where none was given.

    Raises ``UsageError`` for anything that is not ``name:dims``, for a dimension of 0 and for an
    input named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        start, rest = 0, text.strip()
        while start < len(rest):
            found = _ITEM.match(rest, start)
            if not found:
                raise UsageError(
                    f"input shape '{text}' is not one of name:[1,3,224,224], name:1x3x224x224, "
                    "name:1,3,224,224"
                )
            name = (found["name"] or "").strip("'\"")
            dims = tuple(int(d) for d in re.findall(r"\d+", found["dims"]))
            if 0 in dims:
                raise UsageError(f"input shape '{text}' has a dimension of 0")
            if name in shapes:
                raise UsageError(f"input shapes name input '{name}' twice")
            shapes[name] = dims
            start = found.end()
        if not rest:
            raise UsageError("an input shape is empty: give name:1x3x224x224")
    return shapes


def with_shapes(
    inputs: Sequence[ModelInput], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[ModelInput, ...]:
    """The inputs with their open dimensions set; the first one sets the batch size.

    A batch size set here is as good as one the model fixes: it overrides ``--batch-size``, and
    calibration batches that are not full are left out.

    Raises ``UsageError`` for an unknown input, another rank or a dimension the model fixes
    differently.
    """
    names = [i.name for i in inputs]
    for name in shapes:
        if name not in names and (name or len(names) != 1):
            known = ", ".join(f"'{n}'" for n in names)
            what = f"name '{name}'" if name else "have no name"
            raise UsageError(f"input shapes {what}, but the model's inputs are {known}")
    if "" in shapes and names[0] in shapes:
        raise UsageError(f"input shapes give input '{names[0]}' twice, once without its name")
    return tuple(_with_shape(i, shapes.get(i.name, shapes.get(""))) for i in inputs)


def _with_shape(input: ModelInput, shape: tuple[int, ...] | None) -> ModelInput:
    if shape is None:
        return input
    if len(shape) != len(input.shape) or any(
        have not in (None, want) for have, want in zip(input.shape, shape, strict=True)
    ):
        raise UsageError(
            f"input shape {shape_text(shape)} does not go with {input}: "
            "only dimensions shown as ? can be set"
        )
    return replace(input, shape=shape)
