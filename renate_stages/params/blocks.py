"""Base classes and types of the blocks in `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from renate_stages.errors import InvalidParamsError, did_you_mean

TIME_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Block(BaseModel):
    """A block of keys; unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def seconds(given: Any) -> Any:
    """Convert a time such as '30 min' to seconds; return other types unchanged."""
    if not isinstance(given, str):
        return given
    number, _, unit = given.strip().partition(" ")
    try:
        return float(number) * TIME_UNITS[unit.strip() or "s"]
    except (ValueError, KeyError) as error:
        units = ", ".join(TIME_UNITS)
        raise ValueError(
            f"expected seconds, or a number and one of {units}, such as '30 min', found {given!r}"
        ) from error


Seconds = Annotated[float, BeforeValidator(seconds)]
"""A time in seconds; a text such as '30 min' is converted."""
OptionalSeconds = Annotated[float | None, BeforeValidator(seconds)]

Model = TypeVar("Model", bound=Block)


def validated(model: type[Model], content: Any, where: str) -> Model:
    """Return the content of a file as a model.

    Args:
        model: The model.
        content: The parsed content.
        where: Name of the file, for the message.

    Raises:
        InvalidParamsError: If there are problems; lists all of them.
    """
    if not isinstance(content, dict):
        raise InvalidParamsError(where, [f"expected keys and values, found {content!r}"])
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidParamsError(where, problems_in(error, model)) from error


def problems_in(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe each problem of a model's content in one line."""
    return [_describe(problem, model) for problem in error.errors()]


def _describe(problem: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in problem["loc"] if not _is_model(part))
    if problem["type"] == "extra_forbidden":
        known = _keys_of(problem["loc"][:-1], model)
        hint = did_you_mean(str(problem["loc"][-1]), known)
        return f"{path}: unknown key{hint} (known here: {', '.join(sorted(known))})"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}: {message}, found {problem['input']!r}"


def _keys_of(path: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Return the known keys of the block at a path of keys and indices."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = model if inner is None else inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model of an annotation such as `Block`, `Block | None` or `list[str | Block]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _is_model(part: Any) -> bool:
    """Return whether a part of a location names an alternative of a union, not a key."""
    return isinstance(part, str) and (part == "str" or part.endswith("Params"))
