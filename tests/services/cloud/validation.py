"""Validate requests as SageMaker does: constraints of its API model, then its other rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape

from cloud.protocol import ServiceError

# Character classes of Java's regular expressions that Python lacks.
CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\w", r"\p{Z}": r"\s"}


@cache
def _model() -> Any:
    return botocore.session.Session().get_service_model("sagemaker")


def check_members(operation: str, parameters: dict[str, Any]) -> None:
    """Check the constraints that AWS publishes with its API and botocore contains.

    botocore itself checks only a few of them before it sends: no patterns, no maximum lengths.

    Raises:
        ServiceError: All violations at once, worded as by the service.
    """
    shape = _model().operation_model(operation).input_shape
    found = list(_violations(shape, parameters, ""))
    if found:
        many = "s" if len(found) > 1 else ""
        raise invalid(f"{len(found)} validation error{many} detected: {'; '.join(found)}")


def check_training_job(request: dict[str, Any]) -> None:
    """Check the rules of CreateTrainingJob that involve more than one member."""
    if not request.get("AlgorithmSpecification", {}).get("TrainingImage"):
        raise invalid("You must specify a training image or an algorithm name.")
    resources = request.get("ResourceConfig", {})
    for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB"):
        if name not in resources:
            raise invalid(f"{name} must be specified in ResourceConfig.")
    for name in ("InstanceCount", "VolumeSizeInGB"):
        if resources[name] < 1:  # the model allows 0, for jobs without instances
            raise invalid(f"{name} must be at least 1.")
    stopping = request.get("StoppingCondition", {})
    longest, wait = stopping.get("MaxRuntimeInSeconds"), stopping.get("MaxWaitTimeInSeconds")
    if longest is None:
        raise invalid("MaxRuntimeInSeconds must be specified in StoppingCondition.")
    spot = request.get("EnableManagedSpotTraining", False)
    if spot and wait is None:
        raise invalid("MaxWaitTimeInSeconds is required when EnableManagedSpotTraining is true.")
    if spot and wait < longest:
        raise invalid("MaxWaitTimeInSeconds must be equal to or greater than MaxRuntimeInSeconds.")
    if not spot and wait is not None:
        raise invalid("MaxWaitTimeInSeconds is for jobs with EnableManagedSpotTraining.")
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid(f"Channel names must be unique; more than once: {', '.join(twice)}.")


def invalid(message: str) -> ServiceError:
    """Return the error with which SageMaker refuses an invalid request."""
    return ServiceError("ValidationException", message)


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            where = f"{path}.{name[0].lower()}{name[1:]}".lstrip(".")
            if name in value:
                yield from _violations(member, value[name], where)
            elif name in shape.required_members:
                yield _violation(None, where, "Member must not be null")
        return
    yield from _own_violations(shape, value, path)
    if shape.type_name == "list":
        for number, each in enumerate(value, start=1):
            yield from _violations(shape.member, each, f"{path}.{number}.member")
    elif shape.type_name == "map":
        for key, each in value.items():
            yield from _violations(shape.key, key, f"{path}.key")
            yield from _violations(shape.value, each, f"{path}.{key}.value")


def _own_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    rules = shape.metadata
    if shape.type_name in ("integer", "long", "float", "double"):
        what, size = "value", value
    elif shape.type_name in ("string", "list", "map"):
        what, size = "length", len(value)
    else:
        return
    if size < rules.get("min", size):
        expected = f"Member must have {what} greater than or equal to {rules['min']}"
        yield _violation(value, path, expected)
    if size > rules.get("max", size):
        expected = f"Member must have {what} less than or equal to {rules['max']}"
        yield _violation(value, path, expected)
    if "enum" in rules and value not in rules["enum"]:
        yield _violation(value, path, f"Member must satisfy enum value set: {rules['enum']}")
    if "pattern" in rules:
        pattern = rules["pattern"]
        for theirs, ours in CLASSES.items():
            pattern = pattern.replace(theirs, ours)
        if not re.fullmatch(pattern, value):
            expected = f"Member must satisfy regular expression pattern: {rules['pattern']}"
            yield _violation(value, path, expected)


def _violation(value: Any, path: str, constraint: str) -> str:
    shown = "null" if value is None else value
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {constraint}"
