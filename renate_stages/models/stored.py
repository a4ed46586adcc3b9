"""Store a model as safetensors and JSON, without loading any pickle.

A user's `model_fn(model_state_url)`, which calls `torch.load`, gets a temporary file in torch's
format.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from renate_stages import files
from renate_stages.errors import MalformedFileError, ModelMismatchError, shortage
from renate_stages.models.extra_state import EXTRA_STATE, plain
from renate_stages.models.growth import is_growth
from renate_stages.models.module import RenateModule, RenateWrapper, unwrap
from renate_stages.user.config import UserConfig

OTHER_STATES = "extra_states"  # in model.json: what other modules return from `get_extra_state`
ARGUMENTS = {"constructor_arguments", "task_ids"}
GROWN = "grown"  # in model.json: outputs or rows of the layers that have grown, as built and now


def write_model(folder: Path, model: RenateModule) -> None:
    """Write `model.safetensors` and `model.json` (class, arguments, task ids, layers that have grown).

    `model.json` also has what modules inside the model return from `get_extra_state`, unless it is a
    tensor.

    Raises:
        StoredArgumentError: If a module's extra state is neither a tensor nor plain values.
    """
    module = unwrap(model)
    state = dict(module.state_dict())
    others = {
        name: plain(state.pop(name), f"the extra state {name}")
        for name, value in list(state.items())
        if not isinstance(value, torch.Tensor)
    }
    own = others.pop(EXTRA_STATE) if _is_of_renate_module(others.get(EXTRA_STATE)) else {}
    write_tensors(folder / "model.safetensors", state)
    content = {"class": type(module).__qualname__, **own}
    content |= {GROWN: model.grown} if model.grown else {}
    files.write_json(folder / "model.json", content | ({OTHER_STATES: others} if others else {}))


def _is_of_renate_module(extra: Any) -> bool:
    return isinstance(extra, dict) and extra.keys() - {GROWN} == ARGUMENTS


def read_state_dict(folder: Path, *, built: bool = False) -> dict[str, Any]:
    """Return the state dict of a stored model, with its extra state if it has one.

    Args:
        folder: Folder with the model's files.
        built: Whether layers that have grown have only the outputs that they were built with. Not
            for a `RenateModule`, which lets them grow as it loads its state.

    Raises:
        MalformedFileError: If a file does not have the form that `write_model` writes.
    """
    state: dict[str, Any] = dict(read_tensors(folder / "model.safetensors"))
    extra = files.read_json(folder / "model.json")
    if not (isinstance(extra, dict) and isinstance(extra.pop("class", None), str)):
        reason = "expected the name of its class and its arguments"
        raise MalformedFileError(folder / "model.json", "a model's description", reason)
    others = extra.pop(OTHER_STATES, {})
    if not isinstance(others, dict):
        reason = f"{OTHER_STATES} is no mapping"
        raise MalformedFileError(folder / "model.json", "a model's description", reason)
    if extra.keys() >= ARGUMENTS:
        state[EXTRA_STATE] = extra
    elif built:
        for layer, (first, now) in _growth(folder, extra).items():
            for name in _tensors_of(layer, state):
                if len(state[name]) == now:
                    state[name] = state[name][:first].clone()
    return state | others


def grown_tensors(model: RenateModule) -> frozenset[str]:
    """Return the names of the tensors of layers that have grown, without a wrapper's prefix."""
    names = _without_extra(unwrap(model).state_dict())
    return frozenset(name for layer in model.grown for name in _tensors_of(layer, names))


def _growth(folder: Path, content: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the layers of a stored model that have grown, from the content of `model.json`."""
    grown = content.get(GROWN, {})
    if not is_growth(grown):
        reason = f"{GROWN} is {grown!r:.80}"
        raise MalformedFileError(folder / "model.json", "a model's description", reason)
    return grown


def _tensors_of(layer: str, names: Iterable[str]) -> list[str]:
    """Return the names of a layer's tensors."""
    return [name for name in names if name.startswith(f"{layer}." if layer else "")]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors; equal tensors give equal bytes, and shared memory is copied."""
    save_file({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}, path)
    path.chmod(0o666 & ~files.umask())  # safetensors makes it readable only for its owner


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, without running any code from it.

    Raises:
        MalformedFileError: If it is not a safetensors file, or is truncated.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MalformedFileError(path, "tensors in safetensors' format", str(error)) from error


def write_checkpoint(folder: Path, path: Path, *, built: bool = False) -> None:
    """Write a stored model in torch's format, for `torch.load(path, weights_only=True)`.

    If a module that is not a `RenateModule` has grown, the file has an entry with the layers that have
    grown, which a `RenateWrapper` needs to load it.

    Args:
        folder: Folder with the model's files.
        path: The file to write.
        built: As in `read_state_dict`.
    """
    state = read_state_dict(folder, built=built)
    grown = _growth(folder, files.read_json(folder / "model.json"))
    if grown and not built and EXTRA_STATE not in state:
        state[EXTRA_STATE] = {"constructor_arguments": {}, "task_ids": [], GROWN: grown}
    torch.save(state, path)


@contextmanager
def checkpoint_of(folder: Path) -> Iterator[Path]:
    """Yield a temporary file in torch's format with a stored model's state dict, for `model_fn`."""
    with tempfile.TemporaryDirectory(prefix="renate-stages-") as scratch:
        path = Path(scratch) / "model.ckpt"
        with shortage.explained(path.parent):
            write_checkpoint(folder, path, built=True)
        yield path


def build_model(
    user: UserConfig, hyperparameters: Mapping[str, Any], stored: Path | None, task_id: str
) -> RenateModule:
    """Build the user's model, either new or with a stored model's tensors.

    Args:
        user: The configuration whose `model_fn` builds the model.
        hyperparameters: Values for `model_fn`, which gets those that its signature names.
        stored: Folder with `model.safetensors` and `model.json`; None builds a new model.
        task_id: Task whose parameters the model must have.

    Raises:
        ModelMismatchError: If `model_fn` does not return a module, or the module does not have the
            stored tensors.
    """
    if stored is None:
        model = as_renate_module(user.call("model_fn", hyperparameters, model_state_url=None))
    else:
        with checkpoint_of(stored) as path:
            returned = user.call("model_fn", hyperparameters, model_state_url=str(path))
        model = as_renate_module(returned)
        loads_itself = "model_state_url" in user.arguments_of("model_fn")
        if loads_itself:
            _check_loaded(model, read_state_dict(stored, built=True))
        _take_stored_tensors(model, stored, loads_itself)
    model.add_task_params(task_id)
    if next(model.parameters(), None) is None:
        cure = "assign its layers to attributes of the module"
        raise ModelMismatchError("model_fn returned a model without parameters", cure)
    return model


def as_renate_module(model: Any) -> RenateModule:
    """Return a model as a `RenateModule`, wrapped if it is another module.

    Raises:
        ModelMismatchError: If it is no module.
    """
    if isinstance(model, RenateModule):
        return model
    if isinstance(model, nn.Module):
        return RenateWrapper(model)
    raise ModelMismatchError(
        f"model_fn returned {type(model).__name__}", "return a torch.nn.Module or a RenateModule"
    )


def _check_loaded(model: RenateModule, stored: Mapping[str, Any]) -> None:
    """Check that a `model_fn` that takes `model_state_url` has loaded the stored tensors.

    It may enlarge the model for new classes. If all shapes are equal but values differ, it has not
    loaded them.
    """
    tensors, present = _without_extra(stored), _without_extra(unwrap(model).state_dict())
    same_shapes = _shapes(tensors) == _shapes(present)
    if same_shapes and any(not torch.equal(present[n].cpu(), tensors[n]) for n in tensors):
        raise ModelMismatchError(
            "model_fn received model_state_url, but the model that it returned does not have "
            "those weights",
            "load them in model_fn if model_state_url is not None, for example with "
            "`Model.from_state_dict(torch.load(model_state_url))`",
        )


def _take_stored_tensors(model: RenateModule, folder: Path, loads_itself: bool) -> None:
    """Let the model's layers grow as the stored model's have, and load the stored tensors.

    A `model_fn` that loads tensors itself has loaded all but those of layers that have grown.
    """
    module, stored = unwrap(model), read_state_dict(folder)
    for name, child in list(module.named_modules()) if not loads_itself else ():
        key = f"{name}.{EXTRA_STATE}" if name else EXTRA_STATE
        if isinstance(child, RenateModule) and key in stored:
            child.set_extra_state(stored[key])  # adds task heads or random features
    grown = _growth(folder, files.read_json(folder / "model.json"))
    with torch.random.fork_rng(devices=[]):  # the new rows' initial weights are not used
        for layer, (_, number) in grown.items():
            model.grow_outputs(layer, number)
    tensors, present = _without_extra(stored), _without_extra(module.state_dict())
    if loads_itself:
        for layer in grown:
            for name in _tensors_of(layer, tensors):
                _copy_rows(name, tensors[name], present.get(name))
        return
    if _shapes(tensors) != _shapes(present):
        names = sorted(set(tensors) ^ set(present)) or sorted(
            name for name in tensors if tensors[name].shape != present[name].shape
        )
        raise ModelMismatchError(
            f"these parameters differ from the parent's in name or shape: {', '.join(names[:8])}",
            "build the same architecture, or take `model_state_url` in model_fn and load the "
            "matching parameters",
        )
    extra = {name for name in module.state_dict() if name not in present}
    module.load_state_dict({n: value for n, value in stored.items() if n in tensors or n in extra})


def _copy_rows(name: str, rows: torch.Tensor, target: torch.Tensor | None) -> None:
    """Copy a stored tensor to the first rows of the model's, which may have more.

    Raises:
        ModelMismatchError: If the model's tensor is missing or too small.
    """
    if target is not None and target.shape == rows.shape:
        target.copy_(rows)
    elif target is not None and target.ndim and target.shape[1:] == rows.shape[1:]:
        target[: len(rows)].copy_(rows)
    else:
        found = "is missing" if target is None else f"has shape {tuple(target.shape)}"
        raise ModelMismatchError(
            f"its parameter {name} {found}, but the stored one has shape {tuple(rows.shape)}",
            "let model_fn build the same output layer as before",
        )


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _without_extra(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a state dict."""
    return {name: value for name, value in state.items() if name.rpartition(".")[2] != EXTRA_STATE}
