"""Encode a strategy's state as tensors and JSON, without objects of Avalanche.

`KEPT` lists the attributes that make up the state of each known class. All other attributes are
hyperparameters or are rebuilt by each update. A plugin of another class must have `state_dict()` and
`load_state_dict()` with tensors and plain values.

Examples are stored as row numbers; see `examples.py`. The state is restored into objects that were
built for this update, so changed hyperparameters take effect.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.training.storage_policy import ExemplarsBuffer, ReservoirSamplingBuffer
from avalanche.training.utils import ParamData
from torch import Tensor, nn

from renate_stages.errors import AvalancheStateError
from renate_stages.learners.avalanche.examples import Examples, columns_of, rows_of, tasks_of
from renate_stages.learners.avalanche.tables import Table
from renate_stages.learners.base.new_rows import with_new_rows

_RWALK = ("params", "loss", "scores")
KEPT: dict[str, tuple[str, ...]] = {
    "AGEMPlugin": ("buffers",),
    "ClassBalancedBuffer": ("seen_classes", "buffer_groups"),
    "ClassBalancedBufferWithLogits": ("seen_classes", "buffer_groups"),
    "Clock": (
        "train_iterations",
        "train_exp_counter",
        "train_exp_epochs",
        "train_exp_iterations",
        "train_epoch_iterations",
        "total_iterations",
    ),
    "DER": ("storage_policy",),
    "Distilled": ("old_classes", "old_model", "again"),
    "ER_ACE": ("storage_policy",),
    "EWCPlugin": ("saved_params", "importances"),
    "EvaluationPlugin": (),
    "Exemplars": ("groups", "embedding_size", "input_size", "output_size"),
    "ExperienceBalancedBuffer": ("_num_exps", "buffer_groups"),
    "GDumbPlugin": ("storage_policy", "init_model"),
    "GEMPlugin": ("memory_x", "memory_y", "memory_tid"),
    "Intelligence": ("ewc_data", "trajectories"),
    "LFLPlugin": ("prev_model",),
    "LearningWithoutForgetting": ("prev_model", "expcount", "prev_classes_by_task"),
    "LwFPlugin": ("lwf",),
    "MASPlugin": ("params", "importance"),
    "MaximallyInterfered": ("storage_policy", "last_classes"),
    "PeriodicEval": (),
    "RWalkPlugin": (
        *(f"checkpoint_{name}" for name in _RWALK),
        "iter_importance",
        *(f"exp_{name}" for name in ("scores", "params", "importance", "penalties")),
    ),
    "ReplayPlugin": ("storage_policy",),
    "SupervisedTemplate": (),
}
"""State attributes by class name; an entry applies to subclasses too."""

DEFAULTS: dict[str | None, type] = {"set": set, "dict": dict}  # factories of a defaultdict
OWN = "own"  # marks what a plugin's `state_dict()` returned


def kept_by(value: Any) -> tuple[str, ...] | None:
    """Return the attributes that make up an object's state; None if its class is unknown."""
    for base in type(value).__mro__:
        if base.__name__ in KEPT:
            return KEPT[base.__name__]
    return None


def check_known(plugin: Any) -> None:
    """Check that a plugin's state can be stored.

    Raises:
        AvalancheStateError: If its class is unknown and has no `state_dict` methods.
    """
    if kept_by(plugin) is None and not _keeps_itself(plugin):
        name = type(plugin).__name__
        raise AvalancheStateError(
            f"the plugin {name} has no known state, so its state would be lost between updates",
            f"give {name} `state_dict()` and `load_state_dict(state)`, of tensors, numbers, texts, "
            "and lists and dicts of these",
        )


# -- out ------------------------------------------------------------------------------------------


class Encoder:
    """Turns values into JSON, and collects their tensors in `tensors`, on the CPU."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def encode(self, value: Any, path: str) -> Any:
        """Return a value as JSON.

        Args:
            value: A value of a supported type.
            path: Prefix for the names of its tensors.

        Raises:
            AvalancheStateError: If the type is not supported.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        for kind, encode in self._kinds().items():
            if isinstance(value, kind):
                return encode(value, path)
        if kept_by(value) is not None:
            return {"fields": self.fields(value, path)}
        raise AvalancheStateError(
            f"{path} is of class {type(value).__name__}, which cannot be stored",
            "let the plugin's state_dict() return tensors, numbers, texts, and lists and dicts",
        )

    def fields(self, value: Any, path: str) -> dict[str, Any]:
        """Return the state of an object of a known class."""
        names = kept_by(value)
        if names is None:
            return {OWN: self.encode(value.state_dict(), f"{path}.{OWN}")}
        return {name: self.encode(getattr(value, name), f"{path}.{name}") for name in names}

    def _kinds(self) -> dict[Any, Callable[[Any, str], Any]]:
        return {
            Tensor: self._tensor,
            np.generic: lambda value, _: value.item(),
            ParamData: lambda value, path: {**self._tensor(value.data, path), "of": value.name},
            nn.Module: self._module,
            AvalancheDataset: self._dataset,
            ReservoirSamplingBuffer: self._reservoir,
            Table: lambda value, path: self._table(value.columns, path),
            Mapping: self._dict,
            tuple: lambda value, path: {"tuple": self._list(value, path)},
            set: lambda value, path: {"set": self._list(value, path)},
            list: self._list,
        }

    def _tensor(self, value: Tensor, path: str) -> Any:
        self.tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}

    def _module(self, value: nn.Module, path: str) -> Any:
        state = {k: each for k, each in value.state_dict().items() if isinstance(each, Tensor)}
        for name, each in state.items():
            self.tensors[f"{path}/{name}"] = each.detach().cpu().clone()
        trained = [each.requires_grad for each in value.parameters()]
        return {"module": path, "names": list(state), "training": value.training, "grads": trained}

    def _dataset(self, value: AvalancheDataset, path: str) -> Any:
        return {"examples": self._table(columns_in(value), path)}

    def _reservoir(self, value: ReservoirSamplingBuffer, path: str) -> Any:
        columns = {**columns_in(value.buffer), "weights": value._buffer_weights}
        return {"reservoir": self._table(columns, path), "size": value.max_size}

    def _table(self, columns: Mapping[str, Tensor], path: str) -> Any:
        for name, each in columns.items():
            self.tensors[f"{path}/{name}"] = each.detach().cpu().contiguous()
        return {"table": path, "columns": list(columns)}

    def _dict(self, value: Mapping, path: str) -> Any:
        entries = [
            [self.encode(key, path), self.encode(each, f"{path}/{key}")]
            for key, each in value.items()
        ]
        return {"dict": entries, "default": _default_of(value)}

    def _list(self, value: Any, path: str) -> Any:
        return [self.encode(each, f"{path}/{index}") for index, each in enumerate(value)]


def columns_in(dataset: AvalancheDataset) -> dict[str, Tensor]:
    """Return a dataset as columns: `rows` and `tasks`, int64, and its values for each row."""
    if not len(dataset):
        return {"rows": torch.empty(0, dtype=torch.int64)}
    rows, tasks = torch.from_numpy(rows_of(dataset)), torch.from_numpy(tasks_of(dataset))
    return {"rows": rows, "tasks": tasks, **columns_of(dataset)}


# -- in -------------------------------------------------------------------------------------------


class Decoder:
    """Restores values that `Encoder` has encoded.

    Args:
        tensors: Tensors by name.
        examples: The examples to which row numbers refer.
        model: The model to copy for a stored model, which then gets the stored weights.
        device: Device of the strategy's tensors.
        grown: Names of the model's tensors that may have gained rows; see `StartingPoint`.
        outputs: The number of outputs of a model that has grown for new labels, otherwise None.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        examples: Examples,
        model: nn.Module,
        device: torch.device,
        grown: Collection[str] = (),
        outputs: int | None = None,
    ) -> None:
        self.tensors, self.examples, self.model, self.device = tensors, examples, model, device
        self.grown, self.outputs = grown, outputs

    def fields(self, target: Any, stored: Mapping[str, Any]) -> None:
        """Set the state of an object to what `Encoder.fields` returned."""
        if OWN in stored:
            target.load_state_dict(self.decode(stored[OWN]))
            return
        for name, value in stored.items():
            setattr(target, name, self.decode(value, getattr(target, name, None)))

    def decode(self, stored: Any, present: Any = None) -> Any:
        """Return the decoded value.

        Args:
            stored: What `Encoder.encode` returned.
            present: The current value; if its class is known, its attributes are set.
        """
        if isinstance(stored, list):
            return [self.decode(each) for each in stored]
        if not isinstance(stored, Mapping):
            return stored
        if "fields" in stored:
            self.fields(present, stored["fields"])
            return present
        (kind,) = stored.keys() & self._kinds().keys()
        return self._kinds()[kind](stored)

    def _kinds(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "tensor": self._tensor,
            "module": self._module,
            "examples": lambda stored: self._dataset(self._table(stored["examples"])),
            "reservoir": self._reservoir,
            "table": lambda stored: Table(self._table(stored)),
            "dict": self._dict,
            "tuple": lambda stored: tuple(self.decode(stored["tuple"])),
            "set": lambda stored: set(self.decode(stored["set"])),
        }

    def _tensor(self, stored: Mapping[str, Any]) -> Any:
        value = self.tensors[stored["tensor"]].clone().to(self.device)
        if "of" in stored:
            return ParamData(stored["of"], init_tensor=value, device=self.device)
        return value

    def _module(self, stored: Mapping[str, Any]) -> nn.Module:
        module = copy.deepcopy(self.model)
        path = stored["module"]
        weights = {name: self.tensors[f"{path}/{name}"] for name in stored["names"]}
        own = module.state_dict()
        weights = with_new_rows(weights, own, self.grown)
        if changed := [n for n, each in weights.items() if _shape(own.get(n)) != each.shape]:
            raise AvalancheStateError(
                f"the model differs from the parent's ({', '.join(changed[:4])}), so this strategy "
                "cannot use its copy of the parent's model",
                "build the same model as the parent's, or choose a learner that stores no model",
            )
        module.load_state_dict(own | weights)
        module.train(stored["training"])
        for parameter, trained in zip(module.parameters(), stored["grads"], strict=False):
            parameter.requires_grad_(trained)
        return module.to(self.device)

    def _table(self, stored: Mapping[str, Any]) -> dict[str, Tensor]:
        path = stored["table"]
        return {name: self.tensors[f"{path}/{name}"].clone() for name in stored["columns"]}

    def _dataset(self, columns: dict[str, Tensor]) -> AvalancheDataset:
        rows = columns.pop("rows").numpy()
        tasks = columns.pop("tasks", torch.empty(0, dtype=torch.int64)).numpy()
        logits = columns.get("logits")
        if logits is not None and self.outputs not in (None, logits.shape[1]):
            raise AvalancheStateError(
                f"the memory has logits of {logits.shape[1]} labels, but the model has grown to "
                f"{self.outputs}, and Avalanche's DER compares all of them",
                "choose DER or DER++, which compare those of the labels known at that time",
            )
        return self.examples.of(rows, tasks, columns)

    def _reservoir(self, stored: Mapping[str, Any]) -> ExemplarsBuffer:
        columns = self._table(stored["reservoir"])
        buffer = ReservoirSamplingBuffer(stored["size"])
        buffer._buffer_weights = columns.pop("weights")
        if len(columns["rows"]):
            buffer.buffer = self._dataset(columns)
        return buffer

    def _dict(self, stored: Mapping[str, Any]) -> dict:
        default = DEFAULTS.get(stored["default"])
        result: dict = {} if default is None else defaultdict(default)
        for key, value in stored["dict"]:
            result[_hashable(self.decode(key))] = self.decode(value)
        return result


def _keeps_itself(plugin: Any) -> bool:
    return callable(getattr(plugin, "state_dict", None)) and callable(
        getattr(plugin, "load_state_dict", None)
    )


def _default_of(value: Mapping) -> str | None:
    factory = value.default_factory if isinstance(value, defaultdict) else None
    return next((name for name, each in DEFAULTS.items() if each is factory), None)


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
