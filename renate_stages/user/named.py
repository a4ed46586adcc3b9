"""Functions for a data module and a model that `params.yaml` names, in place of the user's own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from renate_stages.errors import UserConfigError, did_you_mean

if TYPE_CHECKING:
    from renate_stages.preprocessing import Preprocessing

MODELS = "renate_stages.models.registry"  # imported by name, because models import this folder
OF_PIPELINE = ("data_path", "seed", "val_size", "task")  # arguments that are not the user's


@dataclass(frozen=True)
class Named:
    """What `params.yaml` names in place of functions of `renate_config.py`.

    Args:
        model: Name of a model in `models.registry`; None: `model_fn`.
        module: Name of a data module in `data.modules.registry`; None: `data_module_fn`.
        arguments: Arguments of the data module.
        task: Name of the task, which decides what a data module makes of targets.
        optional: Whether a function of the user's is used instead, if there is one.
        reads_data: Whether data is read, so that `data_module_fn` is needed if no module is named.
    """

    model: str | None = None
    module: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    task: str = "auto"
    optional: bool = False
    reads_data: bool = True

    def functions(self, preprocessing: Callable[[], Preprocessing | None]) -> dict[str, Callable]:
        """Return `model_fn` and `data_module_fn`, those that are named.

        Args:
            preprocessing: Returns the preprocessing, on which the sizes of the model depend.

        Raises:
            UnknownModelError, UnknownDataModuleError: If the name is not in the registry.
            UserConfigError: If the data module does not have an argument.
        """
        functions: dict[str, Callable] = {}
        if self.model is not None:
            functions["model_fn"] = model_function(self.model, preprocessing)
        if self.module is not None:
            functions["data_module_fn"] = self._module_function(self.module)
        return functions

    def in_place_of(self, function: str) -> str | None:
        """Return the key and the name in `params.yaml` that replace a function; None: nothing does."""
        named = {"model_fn": ("model", self.model), "data_module_fn": ("data.module", self.module)}
        key, name = named.get(function, ("", None))
        return None if name is None else f"{key}: {name}"

    def _module_function(self, name: str) -> Callable:
        from renate_stages.data.modules.registry import module_class

        built = module_class(name)
        parameters = _parameters(built)
        known = [each.name for each in parameters if each.name not in OF_PIPELINE]
        for argument in self.arguments:
            if argument not in known:
                raise UserConfigError(
                    "params.yaml",
                    f"data.module: {name} has no setting '{argument}'"
                    f"{did_you_mean(argument, known)}",
                    f"remove it, or choose from {', '.join(sorted(known))}",
                )
        task = {"task": self.task} if any(each.name == "task" for each in parameters) else {}

        def data_module_fn(data_path: str, seed: int = 0, **arguments: Any) -> Any:
            return built(data_path, **task, **arguments, seed=seed)

        kept = [each for each in parameters if each.name not in ("val_size", "task")]
        return _with_signature(data_module_fn, kept, built)


def model_function(name: str, preprocessing: Callable[[], Preprocessing | None]) -> Callable:
    """Return a `model_fn` for a model of ours, which takes its arguments as hyperparameters.

    Sizes that depend on the data are those of the first update, which the preprocessing has; the
    model grows from there. A stored model is built with the arguments that it was built with.

    Args:
        name: A name in `models.registry`.
        preprocessing: Returns the preprocessing, if there is one.

    Raises:
        UnknownModelError: If there is no model of this name.
    """
    registry = importlib.import_module(MODELS)
    built, names = registry.model_class(name), registry.arguments_of(name)

    def model_fn(model_state_url: str | None = None, **arguments: Any) -> Any:
        given = {name: value for name, value in arguments.items() if value is not FROM_DATA}
        if model_state_url is not None:
            return registry.restore(name, model_state_url, given)
        fitted = preprocessing()
        found = {} if fitted is None or fitted.built is None else fitted.built
        sizes = {key: value for key, value in found.items() if key in names}
        model = registry.build(name, {**sizes, **given})
        if "means" in found:
            model.begin_at(found["means"], found["scales"])
        return model

    url = inspect.Parameter("model_state_url", inspect.Parameter.KEYWORD_ONLY, default=None)
    # Arguments without a default are sizes, which the data gives, so that none is required.
    parameters = [
        each.replace(default=FROM_DATA) if each.default is each.empty else each
        for each in _parameters(built)
    ]
    return _with_signature(model_fn, [url, *parameters], built)


class _FromData:
    """The default of arguments that depend on the data."""


FROM_DATA = _FromData()


def _parameters(built: type) -> list[inspect.Parameter]:
    """Return the parameters of a constructor, as keyword arguments."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    given = list(inspect.signature(built).parameters.values())
    return [each.replace(kind=kinds[1]) for each in given if each.kind in kinds]


def _with_signature(
    function: Callable, parameters: list[inspect.Parameter], built: type
) -> Callable:
    """Return a function that shows the parameters and the types of a constructor."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    try:
        hints = get_type_hints(built.__init__)
    except (NameError, TypeError):  # an annotation may exist only for type checkers
        hints = {}
    function.__annotations__ = {name: hint for name, hint in hints.items() if name != "return"}
    return function
