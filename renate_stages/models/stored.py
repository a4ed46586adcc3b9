"""Store a model as safetensors and JSON, without loading any pickle.

A user's `model_fn(model_state_url)`, which calls `torch.load`, gets a temporary file in torch's
format.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from renate_stages import files
from renate_stages.errors import MalformedFileError, ModelMismatchError, shortage
from renate_stages.models.module import EXTRA_STATE, RenateModule, RenateWrapper, plain, unwrap
from renate_stages.user.config import UserConfig

OTHER_STATES = "extra_states"  # in model.json: what other modules return from `get_extra_state`
ARGUMENTS = {"constructor_arguments", "task_ids"}


def write_model(folder: Path, model: RenateModule) -> None:
    """Write `model.safetensors` and `model.json` (class, constructor arguments, task ids).

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
    files.write_json(folder / "model.json", content | ({OTHER_STATES: others} if others else {}))


def _is_of_renate_module(extra: Any) -> bool:
    return isinstance(extra, dict) and extra.keys() == ARGUMENTS


def read_state_dict(folder: Path) -> dict[str, Any]:
    """Return the state dict of a stored model, with its extra state if it has one.

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
    if extra:
        state[EXTRA_STATE] = extra
    return state | others


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


def write_checkpoint(folder: Path, path: Path) -> None:
    """Write a stored model in torch's format, for `torch.load(path, weights_only=True)`."""
    torch.save(read_state_dict(folder), path)


@contextmanager
def checkpoint_of(folder: Path) -> Iterator[Path]:
    """Yield the path of a temporary file in torch's format with a stored model's state dict."""
    with tempfile.TemporaryDirectory(prefix="renate-stages-") as scratch:
        path = Path(scratch) / "model.ckpt"
        with shortage.explained(path.parent):
            write_checkpoint(folder, path)
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
        model = _as_renate_module(user.call("model_fn", hyperparameters, model_state_url=None))
    else:
        with checkpoint_of(stored) as path:
            returned = user.call("model_fn", hyperparameters, model_state_url=str(path))
        model = _as_renate_module(returned)
        loads_itself = "model_state_url" in user.arguments_of("model_fn")
        _take_stored_tensors(model, read_state_dict(stored), loads_itself)
    model.add_task_params(task_id)
    if next(model.parameters(), None) is None:
        cure = "assign its layers to attributes of the module"
        raise ModelMismatchError("model_fn returned a model without parameters", cure)
    return model


def _as_renate_module(model: Any) -> RenateModule:
    if isinstance(model, RenateModule):
        return model
    if isinstance(model, nn.Module):
        return RenateWrapper(model)
    raise ModelMismatchError(
        f"model_fn returned {type(model).__name__}", "return a torch.nn.Module or a RenateModule"
    )


def _take_stored_tensors(model: RenateModule, stored: dict[str, Any], loads_itself: bool) -> None:
    """Load the stored tensors into the model, or check that `model_fn` has loaded them.

    A `model_fn` that takes `model_state_url` loads them itself, and may enlarge the model for new
    classes. If all shapes are equal but values differ, it has not loaded them.
    """
    module = unwrap(model)
    for name, child in list(module.named_modules()) if not loads_itself else ():
        key = f"{name}.{EXTRA_STATE}" if name else EXTRA_STATE
        if isinstance(child, RenateModule) and key in stored:
            child.set_extra_state(stored[key])  # adds task heads or random features
    tensors, present = _without_extra(stored), _without_extra(module.state_dict())
    same_shapes = {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in present.items()
    }
    if loads_itself:
        if same_shapes and any(not torch.equal(present[n].cpu(), tensors[n]) for n in tensors):
            raise ModelMismatchError(
                "model_fn received model_state_url, but the model that it returned does not have "
                "those weights",
                "load them in model_fn if model_state_url is not None, for example with "
                "`Model.from_state_dict(torch.load(model_state_url))`",
            )
        return
    if not same_shapes:
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


def _without_extra(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a state dict."""
    return {name: value for name, value in state.items() if name.rpartition(".")[2] != EXTRA_STATE}
