"""The entry of a state dict that rebuilds a model: constructor arguments, tasks, growth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from renate_stages.errors import ModelStateError, StoredArgumentError
from renate_stages.models.growth import is_growth

EXTRA_STATE = "_extra_state"  # the name PyTorch gives to what `get_extra_state` returns


def plain(value: Any, where: str) -> Any:
    """Return a deep copy of a JSON value, with subclasses converted to the plain types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # converts, for example, a string enum
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)  # np.float64 is a float
    if isinstance(value, list | tuple):
        items = [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StoredArgumentError(f"a key of {where}", key)
        return {plain(k, where): plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    raise StoredArgumentError(where, value)


def checked_extra_state(extra: Any, model: str) -> dict[str, Any]:
    keys = {"constructor_arguments", "task_ids"}
    if isinstance(extra, Mapping) and keys <= extra.keys() and is_growth(extra.get("grown", {})):
        return dict(extra)
    problem = "is missing" if extra is None else f"is of type {type(extra).__name__}"
    if isinstance(extra, Tensor):
        problem += ", pickled bytes as written by awslabs/Renate"
    raise ModelStateError(
        model,
        f"its entry '{EXTRA_STATE}' {problem}; expected a dict with {' and '.join(sorted(keys))}.",
        "build the model yourself, remove that entry, and load only the tensors with "
        "load_state_dict(..., strict=False)",
    )
