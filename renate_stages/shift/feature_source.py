"""Where the compared features come from: stored inputs, the parent's model, or the user's function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from renate_stages.errors import UncomparableRowsError, UserConfigError
from renate_stages.params import Params
from renate_stages.shift.compared_rows import ComparedRows, check_names
from renate_stages.shift.parents_model import ParentsModel
from renate_stages.shift.rows import (
    Sample,
    function_rows,
    model_rows,
    raw_are_columns,
    raw_fields,
    raw_names,
    raw_rows,
)
from renate_stages.state.new_data import Splits
from renate_stages.user.config import UserConfig


@dataclass
class FeatureSource:
    """Computes the features of both samples once.

    Args:
        user: The user's functions.
        params: The update's parameters.
        model: The parent's model.
        reference: Examples of the parent.
        new: New training examples.
        splits: The names of input values from the user's data module.
    """

    user: UserConfig
    params: Params
    model: ParentsModel
    reference: Sample
    new: Sample
    splits: Splits

    @property
    def kind(self) -> str:
        """The features that are compared: `raw`, `model` or `feature_fn`."""
        if self.params.shift.features != "auto":
            return self.params.shift.features
        if "feature_fn" in self.user.functions:
            return "feature_fn"
        return "raw" if raw_fields(self.reference) is not None else "model"

    @cached_property
    def rows(self) -> ComparedRows:
        """Features of the reference and of the new examples, according to `shift.features`."""
        shift, kind, splits = self.params.shift, self.kind, self.splits
        if kind != "raw":
            check_names("shift.exclude", shift.exclude, (), kind)
            check_names("shift.thresholds", shift.thresholds, (), kind)
            reference, new = self._computed(self.reference), self._computed(self.new)
            names = [f"{kind}[{place}]" for place in range(reference.shape[1])]
            return ComparedRows.of(names, reference, new, scaled=kind == "feature_fn")
        reference, new = raw_rows(self.reference), raw_rows(self.new)
        names = raw_names(self.reference, splits.feature_names)
        check_names("shift.exclude", shift.exclude, names, kind)
        excluded = {*splits.excluded_features, *shift.exclude}
        compared = [name for name in names if name not in excluded]
        check_names("shift.thresholds", shift.thresholds, compared, kind)
        return ComparedRows.of(
            names,
            reference,
            new,
            categorical=splits.categorical_features,
            excluded=excluded,
            thresholds=shift.thresholds,
            scaled=raw_are_columns(self.reference),
        )

    def _computed(self, sample: Sample) -> np.ndarray:
        """Return the features of a sample that the model or the user's function computes."""
        model, batch_size = self.model, self.params.evaluation.batch_size
        transform = self.user.test_transforms(model.hyperparameters)[0]
        settings: Any = {"transform": transform, "batch_size": batch_size}
        if self.kind == "feature_fn":
            function = self.user.callable_of("feature_fn", model.hyperparameters)
            if function is None:
                raise UserConfigError(
                    self.user.path,
                    "params.yaml sets shift.features: feature_fn, but feature_fn is missing or "
                    "returned None",
                    "define feature_fn so that it returns a function of a batch of inputs",
                )
            return function_rows(sample, function=function, **settings)
        if model.model is None:
            raise UncomparableRowsError(
                "the parent has no model", "set shift.features to raw or feature_fn"
            )
        rows = model_rows(sample, model=model.model, task_id=self.params.update.task_id, **settings)
        if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
            raise UncomparableRowsError(
                f"the model's features are not finite for {bad} of {len(rows)} rows",
                "replace missing values in a transform, or set shift.features to raw",
            )
        return rows
