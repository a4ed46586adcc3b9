"""Convert a program to ONNX; the only module that imports ONNX."""

# pyright: reportMissingImports=false
from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from renate_stages import files
from renate_stages.errors import shortage
from renate_stages.export.program import CLOSE, Program, UnexportableModelError


def write_onnx(program: Program, batch: Any, path: Path) -> None:
    """Write a program in ONNX format, and run the file once to compare it with the program.

    `onnx_name` gives the names of inputs and outputs; the batch size is dynamic and named `batch`.
    Equal programs give equal bytes, because PyTorch's notes about the conversion are removed.

    Args:
        program: What `trace` returned.
        batch: A batch of inputs, B >= 1, to run both on; it is not stored.
        path: The file; weights above ONNX's limit of 2 GB are written to a separate file.

    Raises:
        UnexportableModelError: If PyTorch cannot convert the program, or ONNX Runtime cannot run
            the file or gives other outputs. Files are removed in this case.
    """
    inputs = [onnx_name("inputs", each) for each in program.inputs]
    outputs = [onnx_name("outputs", each) for each in program.outputs]
    try:
        with _quiet():
            converted = torch.onnx.export(
                program.exported,
                (),
                dynamo=True,
                verbose=False,
                input_names=inputs,
                output_names=outputs,
            )
        assert converted is not None
        _tidy(converted.model)
        converted.save(os.fspath(path))
        path.chmod(0o666 & ~files.umask())
        given = _run(path, dict(zip(inputs, pytree.tree_leaves(batch), strict=True)))
        with torch.no_grad():
            expected = pytree.tree_leaves(program.exported.module()(batch))
        same = all(
            torch.allclose(one, other, **CLOSE, equal_nan=True)
            for one, other in zip(given, expected, strict=True)
        )
        if not same:
            raise UnexportableModelError("the ONNX file gives other outputs than the model")
    except Exception as error:  # the model, PyTorch's converter or ONNX Runtime may raise anything
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
        shortage.reraise(error)
        if isinstance(error, UnexportableModelError):
            raise
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise UnexportableModelError(reason) from error


def onnx_name(kind: str, described: Mapping[str, Any]) -> str:
    """Return a tensor's name in the ONNX file: `inputs`, or `inputs.left` if there are several.

    Args:
        kind: `inputs` or `outputs`.
        described: The tensor's entry in `program.json`.
    """
    return f"{kind}.{described['name']}" if described["name"] else kind


def _run(path: Path, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # only errors; users need not know what it cannot optimise
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    used = {each.name for each in session.get_inputs()}  # unused inputs are removed
    outputs = session.run(None, {name: array for name, array in arrays.items() if name in used})
    return [torch.from_numpy(array) for array in outputs]


def _tidy(model: Any) -> None:
    """Name the dynamic sizes, and remove notes that differ between conversions."""
    graph = model.graph
    sizes: dict[Any, str] = {}  # our names by PyTorch's symbol
    for value in graph.inputs:
        for place, size in enumerate(value.shape):
            if not isinstance(size, int):
                sizes.setdefault(size.value, f"length_{len(sizes)}" if place else "batch")
    nodes = list(graph.all_nodes())
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in nodes for value in node.outputs]
    for value in values:
        if value.shape is not None:
            named = [sizes.get(getattr(size, "value", None), size) for size in value.shape]
            value.shape = type(value.shape)(named)
    for each in (model, graph, *nodes, *values):
        each.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the converter's messages on torchvision and its own deprecation warnings."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
