"""Convert a program to ONNX. The only module that imports ONNX."""

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

    Its inputs and outputs are named as `onnx_name` says, its batch size is free and called `batch`.
    Equal programs give equal bytes: what PyTorch notes of how the file came about is left out.

    Args:
        program: What `trace` returned.
        batch: Of inputs, B >= 1, that both are run on; nothing of it is kept.
        path: The file; above 2 GB, which ONNX cannot hold, its weights lie beside it.

    Raises:
        UnexportableModelError: If PyTorch cannot convert it, or if ONNX Runtime cannot run the file
            or gives other outputs. No file is left then.
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
            raise UnexportableModelError("its ONNX form gives other outputs than the model itself")
    except Exception as error:  # of a user's model, PyTorch's converter and ONNX Runtime
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
        shortage.reraise(error)
        if isinstance(error, UnexportableModelError):
            raise
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise UnexportableModelError(reason) from error


def onnx_name(kind: str, described: Mapping[str, Any]) -> str:
    """Return what the ONNX file calls a tensor: `inputs`, or `inputs.left` where there are several.

    Args:
        kind: `inputs` or `outputs`.
        described: An entry of it in `program.json`.
    """
    return f"{kind}.{described['name']}" if described["name"] else kind


def _run(path: Path, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; what it cannot optimise is no concern of the user
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    taken = {each.name for each in session.get_inputs()}  # an input that nothing reads is no more
    found = session.run(None, {name: array for name, array in arrays.items() if name in taken})
    return [torch.from_numpy(array) for array in found]


def _tidy(model: Any) -> None:
    """Name the free sizes, and take out notes that differ from one conversion to the next."""
    graph = model.graph
    sizes: dict[Any, str] = {}  # by PyTorch's name of the symbol
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
    """Leave out what the converter says of torchvision, and its use of what PyTorch deprecates."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
