"""onnxsim: pruning masks, pruning with compensation, block-wise fine-tuning, INT8.

``simplify``, which folds BatchNormalization, comes first where its documentation asks for that
(channels), where nothing is trained otherwise (fine-tuning), and for INT8.  Global magnitude and
SparseGPT do better without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import onnx
import onnxsim
from onnxsim.full_qdq import quantize_full_qdq


def constants_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constant nodes as initializers: one that is read late keeps blocks from being found."""
    nodes = [n for n in model.graph.node if n.op_type == "Constant"]
    for node in nodes:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        model.graph.node.remove(node)
    return model


def mask(how: str, model: onnx.ModelProto, data: list[common.Batch], **amount: Any) -> Any:
    """The model pruned; ``amount`` is a sparsity, or n and m."""
    if "magnitude" in how:
        together = {"global_sparsity": True} if how.startswith("global") else {}
        return onnxsim.apply_magnitude_pruning(model, **amount, **together)
    apply = onnxsim.apply_sparsegpt_pruning if how == "SparseGPT" else onnxsim.apply_wanda_pruning
    return apply(model, data, **amount)


def structured(how: str, model: onnx.ModelProto, data: list[common.Batch]) -> Any:
    """Channels removed until half of the multiply-accumulates are left."""

    def prune(share: float) -> onnx.ModelProto:
        if how == "Wanda":
            return onnxsim.apply_structured_wanda_pruning(model, data, sparsity=share)
        return onnxsim.apply_structured_pruning(model, sparsity=share)

    return common.least(prune, common.macs(model), 0.5)


def int8(how: str, model: onnx.ModelProto, data: list[common.Batch]) -> onnx.ModelProto:
    """INT8 with the ranges that do best in a cross-fit on the data, or with reduced weights."""
    if how != "static":
        return quantize_full_qdq(model, data, reduce_range=True)
    return onnxsim.pick_calibration(model, data, folds=4).model


def run(model: Path, calibration: Path, output: Path, cell: str, variant: str) -> None:
    """Write what ``variant`` ("Wanda", "Wanda + fine-tuning 0.02", ...) makes of a cell."""
    how, _, repair = variant.partition(" + ")
    data = common.batches(calibration)
    dense = onnx.load(model)
    if cell in ("channel", "int8") or "fine-tuning" in repair:
        dense = constants_out(onnxsim.simplify(dense)[0])
    if cell == "int8":
        result = int8(how, dense, data)
    elif cell == "channel":
        result = structured(how, dense, data)
    else:
        amount = {"n": 2, "m": 4} if cell == "2of4" else {"sparsity": common.sparsity(cell)}
        result = mask(how, dense, data, **amount)
    if repair == "bias correction":
        result = onnxsim.correct_bias(dense, result, data)
    elif repair:
        result, blocks = onnxsim.apply_block_finetune_all_blocks(
            dense,
            result,
            calibration_data=data,
            num_iterations=300,
            learning_rate=float(repair.split()[-1]),
            batch_size=common.BATCH,
            preserve_sparsity=True,
        )
        for block in blocks:
            print(block.block.output_name, block.trained, block.skipped_reason)
    onnx.save(result, output)


if __name__ == "__main__":
    common.main(run)
