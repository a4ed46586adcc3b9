"""Types of `metrics/update.json`, which validate it on reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from renate_stages import files
from renate_stages.files import typed
from renate_stages.files.typed import Content, Count, Ends, Figure, Finite, UpdateNumber


class _Metric(Content):
    """The block of one metric; the headline metric also has changes and intervals."""

    average: Figure = None
    overall: Figure = None
    change: Figure = None
    change_on_earlier: Figure = None
    holdout: dict[str, Figure] = Field(default={})
    interval: dict[str, Ends] = Field(default={})


class _Flip(Content):
    negative: Figure
    positive: Figure


class _Flips(_Flip):
    holdout: dict[str, _Flip] = Field(default={})


class _Calibration(Content):
    error: Figure
    holdout: dict[str, Figure] = Field(default={})


class _Figures(Content):
    dead_units: Figure = None
    weight_norm: Figure = None
    effective_rank: Figure = None
    feature_dimension: Figure = None


class _Plasticity(_Figures):
    before: _Figures = _Figures()


class _UpdateMetrics(Content):
    """The whole file: `evaluation.figures.TAKEN`, and a block for each metric under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Metric]  # pyright: ignore[reportIncompatibleVariableOverride]

    update: UpdateNumber
    memory: dict[str, Count] = Field(default={})
    training: dict[str, Count] = Field(default={})
    plasticity: _Plasticity | None = None
    flips: _Flips | None = None
    calibration: _Calibration | None = None
    classes: dict[str, Finite] = Field(default={})
    slices: dict[str, dict[str, Finite]] = Field(default={})


def read_update_metrics(path: Path) -> dict[str, Any]:
    """Return the content of the file, as made by `update_figures`; empty if it is missing.

    Raises:
        MalformedFileError: If it does not have the form that `train` writes.
    """
    if not path.is_file():  # projects of old releases do not have it
        return {}
    content = files.read_json(path, typed.RUN_AGAIN)
    typed.checked(_UpdateMetrics, content, path, "figures of the update", typed.RUN_AGAIN)
    return content
