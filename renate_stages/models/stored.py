"""Store a model as safetensors and JSON. No pickle is ever loaded.

A user's `model_fn(model_state_url)` that calls `torch.load` is handed a file in torch's format,
made on the fly.
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
from renate_stages.models.module import RenateModule, RenateWrapper, unwrap
from renate_stages.user.config import UserConfig

EXTRA_STATE = "_extra_state"


def write_model(folder: Path, model: RenateModule) -> None:
    """Write `model.safetensors` and `model.json` (class, constructor arguments, task ids)."""
    module = unwrap(model)
    state = dict(module.state_dict())
    extra = state.pop(EXTRA_STATE, {})
    write_tensors(folder / "model.safetensors", state)
    files.write_json(folder / "model.json", {"class": type(module).__qualname__, **extra})


def read_state_dict(folder: Path) -> dict[str, Any]:
    """Return the state dict of a stored model, with its extra state where it has one.

    Raises:
        MalformedFileError: If one of its files is not what `write_model` writes.
    """
    state: dict[str, Any] = dict(read_tensors(folder / "model.safetensors"))
    extra = files.read_json(folder / "model.json")
    if not (isinstance(extra, dict) and isinstance(extra.pop("class", None), str)):
        reason = "expected the name of its class and its arguments"
        raise MalformedFileError(folder / "model.json", "a model's description", reason)
    if extra:
        state[EXTRA_STATE] = extra
    return state


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, equal bytes for equal tensors; those that share memory apart."""
    save_file({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}, path)
    path.chmod(0o666 & ~files.umask())  # safetensors makes it readable by its owner alone


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; nothing in it is run.

    Raises:
        MalformedFileError: If it is not one, or is cut short.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MalformedFileError(path, "tensors in safetensors' format", str(error)) from error


def write_checkpoint(folder: Path, path: Path) -> None:
    """Write a stored model in torch's own format, for `torch.load(path, weights_only=True)`."""
    torch.save(read_state_dict(folder), path)


@contextmanager
def checkpoint_of(folder: Path) -> Iterator[Path]:
    """Yield a passing file in torch's format with a stored model's state dict."""
    with tempfile.TemporaryDirectory(prefix="renate-stages-") as scratch:
        path = Path(scratch) / "model.ckpt"
        with shortage.explained(path.parent):
            write_checkpoint(folder, path)
        yield path


def build_model(
    user: UserConfig, hyperparameters: Mapping[str, Any], stored: Path | None, task_id: str
) -> RenateModule:
    """Build the user's model, new or with a stored model's tensors.

    Args:
        user: Its `model_fn` builds the model.
        hyperparameters: Of which `model_fn` gets those it names.
        stored: Folder with `model.safetensors` and `model.json`; None builds a new one.
        task_id: Task whose parameters the model is to have.

    Raises:
        ModelMismatchError: If it is not a module, or does not hold the stored tensors.
    """
    if stored is None:
        model = _as_renate_module(user.call("model_fn", hyperparameters, model_state_url=None))
    else:
        with checkpoint_of(stored) as path:
            built = user.call("model_fn", hyperparameters, model_state_url=str(path))
        model = _as_renate_module(built)
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
    """Make sure that the model holds the stored tensors.

    A `model_fn` that takes `model_state_url` loads them itself, and may grow the model for new
    classes. Equal shapes with other values mean that it did not load them.
    """
    module = unwrap(model)
    if not loads_itself and isinstance(module, RenateModule) and EXTRA_STATE in stored:
        module.set_extra_state(stored[EXTRA_STATE])  # heads of tasks, random features
    tensors = {name: value for name, value in stored.items() if name != EXTRA_STATE}
    present = {name: value for name, value in module.state_dict().items() if name != EXTRA_STATE}
    same_shapes = {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in present.items()
    }
    if loads_itself:
        if same_shapes and any(not torch.equal(present[n].cpu(), tensors[n]) for n in tensors):
            raise ModelMismatchError(
                "model_fn was given model_state_url, but the model it returned does not have "
                "those weights",
                "load them in model_fn, for example `Model.from_state_dict(torch.load("
                "model_state_url))` where model_state_url is not None",
            )
        return
    if not same_shapes:
        names = sorted(set(tensors) ^ set(present)) or sorted(
            name for name in tensors if tensors[name].shape != present[name].shape
        )
        raise ModelMismatchError(
            f"these parameters differ from the parent's in name or shape: {', '.join(names[:8])}",
            "build the same architecture, or take `model_state_url` in model_fn and load what fits",
        )
    module.load_state_dict(stored if EXTRA_STATE in module.state_dict() else tensors)
