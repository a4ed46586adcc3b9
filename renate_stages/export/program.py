"""Export a model as a `torch.export` program, which runs without the user's code or this library."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from renate_stages import files
from renate_stages.errors import shortage
from renate_stages.models.module import RenateModule

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # tolerance between program and model, in float32


class UnexportableModelError(ValueError):
    """A model that cannot be exported as a program; the update continues without one."""


@dataclass(frozen=True)
class Program:
    """A traced model.

    Args:
        exported: The program for batches of any size; contains no example.
        inputs: `name`, `dtype` and `shape` of each input tensor; dynamic sizes are None.
        outputs: The same for each output tensor.
    """

    exported: ExportedProgram
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]

    def columns(self, dimensions: int = 2) -> int | None:
        """Return the size of the outputs' last dimension, such as K of `(B, K)`.

        Args:
            dimensions: 2, or 3 for outputs `(B, T, K)`.

        Returns:
            The size; None unless the outputs are one tensor with so many dimensions.
        """
        shapes = [each["shape"] for each in self.outputs]
        is_one = len(shapes) == 1 and len(shapes[0]) == dimensions
        return shapes[0][-1] if is_one else None

    def write(self, path: Path) -> None:
        """Write a `.pt2` file; equal models give equal bytes, without paths, times or examples."""
        buffer = io.BytesIO()  # torch would write a file's name into the archive
        torch.export.save(self.exported, buffer)
        path.write_bytes(buffer.getvalue())
        path.chmod(0o666 & ~files.umask())


class _Call(nn.Module):
    """A model with a fixed task, because a program cannot have strings as inputs."""

    def __init__(self, model: RenateModule, task_id: str | None) -> None:
        super().__init__()
        self.model = model
        self.task_id = task_id

    def forward(self, inputs: Any) -> Any:
        return self.model(inputs, task_id=self.task_id)


def trace(
    model: RenateModule, batch: Any, task_id: str | None, *, ragged: Collection[str] = ()
) -> Program:
    """Trace a model in evaluation mode, and compare the program's outputs with the model's.

    Args:
        model: The model, called as `model(batch, task_id=...)`.
        batch: A tensor `(B, ...)`, or tuples and dicts of tensors, B >= 3, after the test transform.
        task_id: The task whose parameters the program uses.
        ragged: Names of the parts of `batch` whose second dimension varies too, because rows are
            padded; "" is the whole batch. If no part has such a name, all of them vary.

    Raises:
        UnexportableModelError: If PyTorch cannot trace the model, or the program gives other
            outputs than the model, or takes inputs of one length only. The message has one line.
    """
    call = _Call(model, task_id).eval()
    varies = _varying(batch, ragged)
    # A size of 1 would be a constant, so rows of one padded value get a second one.
    batch = pytree.tree_map(lambda tensor, each: _wider(tensor) if each else tensor, batch, varies)
    traced = pytree.tree_map(lambda tensor: tensor[:2], batch)
    size = Dim("batch")

    def dynamic(tensor: Any, each: bool) -> dict[int, Any]:
        return {0: size, 1: Dim.AUTO} if each else {0: size}

    try:
        with torch.no_grad():
            shapes = (pytree.tree_map(dynamic, traced, varies),)
            exported = torch.export.export(call, (traced,), dynamic_shapes=shapes)
            _make_anonymous(exported)
            actual, expected = exported.module()(batch), call(batch)
            given, taken = _symbolic_shapes(exported)
            inputs, outputs = _described(batch, given), _described(expected, taken)
            same = all(
                torch.allclose(one, other, **CLOSE, equal_nan=True)
                for one, other in zip(_tensors(actual), _tensors(expected), strict=True)
            )
    except Exception as error:  # tracing a user's code may raise anything
        shortage.reraise(error)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise UnexportableModelError(reason) from error
    if not same:
        raise UnexportableModelError("the program gives other outputs than the model")
    # torch unrolls recurrent layers
    if ragged and not _takes_shorter(exported, call, batch, varies):
        raise UnexportableModelError("the program takes only inputs of the length that was traced")
    return Program(exported, inputs, outputs)


def _varying(batch: Any, ragged: Collection[str]) -> Any:
    """Return which tensors of a batch vary in their second dimension, a tree of bool."""
    leaves, structure = pytree.tree_flatten_with_path(batch)
    names = [".".join(str(_key(step)) for step in path) for path, _ in leaves]
    named = [
        any(not each or f"{name}.".startswith(f"{each}.") for each in ragged) for name in names
    ]
    chosen = named if any(named) else [bool(ragged)] * len(names)
    varies = [each and leaf.ndim > 1 for each, (_, leaf) in zip(chosen, leaves, strict=True)]
    return pytree.tree_unflatten(varies, structure)


def _wider(tensor: Tensor) -> Tensor:
    """Return rows of padded values, `(B, T, ...)`, with T at least 2."""
    if tensor.shape[1] > 1:
        return tensor
    padding = tensor.new_zeros((len(tensor), 2 - tensor.shape[1], *tensor.shape[2:]))
    return torch.cat([tensor, padding], dim=1)


def _takes_shorter(exported: ExportedProgram, call: nn.Module, batch: Any, varies: Any) -> bool:
    """Return whether a program takes shorter rows, if the model does."""
    cut = pytree.tree_map(lambda tensor, each: tensor[:, :-1] if each else tensor, batch, varies)
    with torch.no_grad():
        try:
            call(cut)
        except Exception as error:  # noqa: BLE001 -- not all fields are of varying length
            shortage.reraise(error)
            return True
        try:
            exported.module()(cut)
        except Exception as error:  # noqa: BLE001 -- what torch raises is not documented
            shortage.reraise(error)
            return False
    return True


def name_of(transform: Callable | None) -> str | None:
    """Return a transform's name by which users find it in their file; None without one."""
    if transform is None:
        return None
    inner = getattr(transform, "transform", None) or getattr(transform, "func", None)
    own = getattr(transform, "__name__", type(transform).__name__)
    return f"{own}({name_of(inner)})" if callable(inner) else own


def _make_anonymous(exported: ExportedProgram) -> None:
    """Remove the traced example, which the user may have to delete, and file names."""
    exported.example_inputs = None
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _tensors(tree: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(tree)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise TypeError("the model returns values that are not tensors")
    return leaves


def _symbolic_shapes(exported: ExportedProgram) -> tuple[list[Any], list[Any]]:
    """Return the shapes of inputs and of outputs; a size that may vary is a symbol, not an int."""
    nodes = {node.name: node for node in exported.graph.nodes}
    signature = exported.graph_signature
    given, taken = (
        [nodes[str(name)].meta["val"].shape for name in names]
        for names in (signature.user_inputs, signature.user_outputs)
    )
    return given, taken


def _described(tree: Any, shapes: list[Any]) -> list[dict[str, Any]]:
    leaves, _ = pytree.tree_flatten_with_path(tree)
    return [
        {
            "name": ".".join(str(_key(step)) for step in path) or None,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [size if isinstance(size, int) else None for size in shape],
        }
        for (path, tensor), shape in zip(leaves, shapes, strict=True)
    ]


def _key(step: Any) -> str | int:
    return step.key if isinstance(step, pytree.MappingKey) else step.idx
