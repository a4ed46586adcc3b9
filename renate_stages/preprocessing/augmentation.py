"""`Augmentation`: random changes of training images, by the setting `augment` of a data module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from renate_stages.errors import InvalidAugmentationError, did_you_mean
from renate_stages.preprocessing import random_images
from renate_stages.preprocessing.random_images import RandomChange

CHANGES: dict[str, type[RandomChange]] = {
    each.__name__: each
    for each in (
        random_images.RandomHorizontalFlip,
        random_images.RandomVerticalFlip,
        random_images.RandomCrop,
        random_images.RandomResizedCrop,
        random_images.RandomRotation,
        random_images.ColorJitter,
        random_images.RandomErasing,
    )
}
_FORM = "a name, or a mapping such as {name: RandomCrop, padding: 4}"


class Augmentation:
    """Random changes of images in training, one after the other.

    Args:
        given: Names, or mappings with a name and arguments, as torchvision.transforms.v2 has them;
            None: images are not changed.
        size: Height and width of the images; None: not known.

    Raises:
        InvalidAugmentationError: If a name or an argument is unknown, or a value is out of range.
    """

    def __init__(
        self,
        given: Sequence[str | Mapping[str, Any]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        if given is not None and not isinstance(given, list | tuple):
            raise InvalidAugmentationError(
                f"it is {given!r:.80}; expected a list, each entry {_FORM}"
            )
        self.settings: list[dict[str, Any]] = []
        self._changes: list[RandomChange] = []
        for entry in given or ():
            setting = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(setting, Mapping) or not isinstance(setting.get("name"), str):
                raise InvalidAugmentationError(f"an entry is {entry!r:.80}; expected {_FORM}")
            self._changes.append(_change(setting, size))
            self.settings.append({key: _listed(value) for key, value in setting.items()})

    def __bool__(self) -> bool:
        return bool(self._changes)

    def __call__(self, images: Tensor) -> Tensor:
        """Change images, float32 `(B, C, H, W)` in [0, 1]; the result has the same form."""
        for change in self._changes:
            images = change(images)
        return images


def _change(setting: Mapping[str, Any], size: tuple[int, int] | None) -> RandomChange:
    """Build the random change that an entry describes."""
    name = setting["name"]
    if name not in CHANGES:
        hint, known = did_you_mean(name, CHANGES), ", ".join(CHANGES)
        raise InvalidAugmentationError(f"unknown '{name}'{hint} (known: {known})")
    change = CHANGES[name]
    parameters = inspect.signature(change).parameters
    arguments = {key: value for key, value in setting.items() if key != "name"}
    if not change.keeps_size:
        _check_size(name, arguments.pop("size", None), size)
    for argument in arguments:
        if argument not in parameters:
            hint, known = did_you_mean(str(argument), parameters), ", ".join(parameters)
            problem = f"{name} has no argument '{argument}'{hint} (known: {known})"
            raise InvalidAugmentationError(problem)
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty:
            arguments.setdefault(argument, None)
    for argument, value in arguments.items():
        expected, converted = _ARGUMENTS[argument]
        arguments[argument] = converted(value)
        if arguments[argument] is None:
            found = "missing" if value is None else f"{value!r:.80}"
            problem = f"{argument} of {name} is {found}; expected {expected}"
            raise InvalidAugmentationError(problem)
    return change(**arguments)


def _check_size(name: str, found: Any, size: tuple[int, int] | None) -> None:
    """Check that an argument `size`, which torchvision needs, is the size of the images."""
    if found is None or (size is not None and _pair_of(found) == list(size)):
        return
    expected = "no size, because images keep the one that the data module's setting size gives"
    raise InvalidAugmentationError(f"size of {name} is {found!r:.80}; expected {expected}")


def _pair_of(size: Any) -> Any:
    return [size, size] if isinstance(size, int) else _listed(size)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _share(value: Any) -> float | None:
    """Return a number in [0, 1]; None if it is another value, as the functions below do."""
    return float(value) if _is_number(value) and 0 <= value <= 1 else None


def _padding(value: Any) -> tuple[int, ...] | None:
    """Return the padding left, top, right and bottom."""
    sides = [value] if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) not in (1, 2, 4):
        return None
    if not all(type(each) is int and each >= 0 for each in sides) or not any(sides):
        return None
    return tuple(sides) * (4 // len(sides))


def _angles(value: Any) -> tuple[float, float] | None:
    if _is_number(value):
        return (-float(value), float(value)) if value >= 0 else None
    return _range(value, -math.inf, math.inf)


def _factors(value: Any) -> tuple[float, float] | None:
    if _is_number(value):
        return (max(0.0, 1.0 - value), 1.0 + value) if value >= 0 else None
    return _range(value, 0.0, math.inf)


def _turns(value: Any) -> tuple[float, float] | None:
    if _is_number(value):
        return (-float(value), float(value)) if 0 <= value <= 0.5 else None
    return _range(value, -0.5, 0.5)


def _range(value: Any, least: float, most: float) -> tuple[float, float] | None:
    """Return two numbers in ascending order, both between two bounds."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return None
    low, high = map(float, value)
    return (low, high) if least <= low <= high <= most else None


def _one_of(*known: str) -> Callable[[Any], str | None]:
    return lambda value: value if value in known else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_FACTORS = "a number >= 0, or [min, max] with 0 <= min <= max", _factors
_LEAST = 1e-9  # above 0
# What is expected of an argument, and a function that returns it in the form of the constructor.
_ARGUMENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "brightness": _FACTORS,
    "contrast": _FACTORS,
    "degrees": ("a number >= 0, or [min, max] with min <= max", _angles),
    "fill": ("a number from 0 to 1", _share),
    "hue": ("a number from 0 to 0.5, or [min, max] with -0.5 <= min <= max <= 0.5", _turns),
    "interpolation": ("nearest or bilinear", _one_of("nearest", "bilinear")),
    "p": ("a number from 0 to 1", _share),
    "padding": ("a whole number >= 1, or two or four, of which one is >= 1", _padding),
    "padding_mode": (
        "constant, edge, reflect or symmetric",
        _one_of("constant", "edge", "reflect", "symmetric"),
    ),
    "ratio": (
        "[min, max] with 0 < min <= max",
        lambda value: _range(value, _LEAST, math.inf),
    ),
    "saturation": _FACTORS,
    "scale": (
        "[min, max] with 0 < min <= max <= 1",
        lambda value: _range(value, _LEAST, 1.0),
    ),
    "value": ("a number from 0 to 1", _share),
}
