"""Compare an update's new examples with those of its parent, for `shift` in the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from renate_stages.errors import UncomparableRowsError
from renate_stages.memory import ExampleStore
from renate_stages.memory.spec import IGNORED
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.shift.detector import LEAST_ROWS, ShiftResult
from renate_stages.shift.detectors import DETECTORS
from renate_stages.shift.feature_source import FeatureSource
from renate_stages.shift.features import COLUMN_TESTS, FeatureShift, attribute
from renate_stages.shift.multiple_testing import holm
from renate_stages.shift.parents_model import ParentsModel, parents_metrics
from renate_stages.shift.reference import reference_rows
from renate_stages.shift.rows import Sample, texts_of
from renate_stages.state import State
from renate_stages.state.new_data import Splits
from renate_stages.user.config import UserConfig

WITHOUT_FEATURES = ("label_chi2", "bbse", "words")  # tests of classes and texts
MOST_COLUMNS = 200  # named columns whose figures are in `metrics/data.json`


@dataclass(frozen=True)
class Shift:
    """The result of a comparison.

    Args:
        figures: The block `shift` of `metrics/data.json`.
        features: All compared features, the most shifted first; empty if only classes were
            compared.
    """

    figures: dict[str, Any]
    features: list[FeatureShift]


class _NothingToCompareError(Exception):
    """No column is of the kind that a test compares."""


def compare(
    user: UserConfig,
    params: Params,
    parent: State,
    new: ExampleStore,
    splits: Splits | None = None,
    labels: int = 0,
) -> Shift | None:
    """Compare new examples with the parent's; None if there are too few rows to compare.

    Figures are rounded to six significant digits, because further digits depend on the number of
    threads.

    Args:
        user: The configuration whose functions build the model and transform inputs.
        params: The tests to run, what they compare, and the maximum number of rows.
        parent: The state whose holdouts or memory are the reference, and whose model is measured.
        new: The new training examples.
        splits: The data module's datasets, with the names of an example's input values, of those that
            are categorical and of those to exclude; without names, positions are used.
        labels: Number of named labels; the parent's model may have fewer outputs.

    Returns:
        Figures and features. The figures are:

        - `reference` and `new`: the number of `rows` of each;
        - `tests`: by name, `statistic`, `p_value`, `corrected_p_value` (Holm's, over the tests) and
          `effect_size`;
        - `alarms`: the number of corrected p-values that are at most alpha;
        - `features`: the number `compared`, the number `shifted` (whose own corrected p-value is at
          most alpha), and the `most_shifted` one;
        - `columns`: the figures of each named column, by name;
        - `thresholds`: p-value and effect of the columns with their own threshold;
        - `model`: metrics of the parent's model on the new rows with labels, by name, and `interval`:
          the 95 % interval of the headline metric;
        - `estimated_performance`: its accuracy on new rows without labels (`ParentsModel.estimate`);
        - `parent`: its metrics on all its holdouts;
        - `skipped`: why a test or the model was skipped.

    Raises:
        InvalidParamsError: If `shift.exclude` or `shift.thresholds` names an unknown column.
    """
    generators = Generators(params.seed, params.update.number)
    generator = generators.numpy("shift")
    most = params.shift.max_rows
    reference = Sample.draw(reference_rows(parent, params.shift.reference), most, generator)
    sample = Sample.draw([(new, np.arange(len(new)))], most, generator)
    if min(len(reference), len(sample)) < LEAST_ROWS:
        return None
    generators.seed_global("shift")
    comparison = Comparison(user, params, parent, reference, sample, splits or Splits(), labels)
    return comparison.shift(generators)


@dataclass
class Comparison:
    """Two samples to compare, with cached features and predictions.

    Args:
        user: The user's functions.
        params: The update's parameters.
        parent: The state that the update starts from.
        reference: Examples of the parent.
        new: New training examples.
        splits: The names of input values from the user's data module.
        labels: Number of named labels.
    """

    user: UserConfig
    params: Params
    parent: State
    reference: Sample
    new: Sample
    splits: Splits = field(default_factory=Splits)
    labels: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def shift(self, generators: Generators) -> Shift:
        """Run the tests and measure the model; see `compare`."""
        results: dict[str, ShiftResult] = {}
        for name in self.params.shift.tests:
            try:
                results[name] = self.run(name, generators.numpy(f"shift {name}"))
            except UncomparableRowsError as error:
                self.skipped[name] = str(error).split("\n")[0]
            except _NothingToCompareError:
                continue  # such as categories in data without categorical columns
        features = self.features(results)
        judged = {name: found for name in results if (found := self._together(name, results[name]))}
        corrected = holm(np.array([result.p_value for result in judged.values()]))
        figures: dict[str, Any] = {
            "alarms": int((corrected <= self.params.shift.alpha).sum()),
            "new": {"rows": len(self.new)},
            "reference": {"rows": len(self.reference)},
            "tests": {
                name: {
                    "corrected_p_value": rounded(p_value),
                    "effect_size": rounded(result.effect_size),
                    "p_value": rounded(result.p_value),
                    "statistic": rounded(result.statistic),
                }
                for (name, result), p_value in zip(judged.items(), corrected, strict=True)
            },
            **self._of_features(features, len(results)),
            **self._of_model(generators),
        }
        return Shift({**figures, "skipped": self.skipped} if self.skipped else figures, features)

    def run(self, name: str, generator: np.random.Generator) -> ShiftResult:
        """Run one test.

        Raises:
            UncomparableRowsError: If the test cannot compare these examples.
        """
        detector = DETECTORS[name]()
        if "permutations" in detector.settings:
            detector = DETECTORS[name](permutations=self.params.shift.permutations)  # pyright: ignore[reportCallIssue]
        reference, new = self.compared(name)
        return detector.fit(reference).test(new, generator)

    def compared(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a test's input for the reference and for the new examples.

        Raises:
            UncomparableRowsError: If the test cannot compare these examples.
        """
        if name == "label_chi2":
            return self._labels(self.reference), self._labels(self.new)
        if name == "bbse":
            model = self.parents_model
            return model.labelled_classes(self.reference), model.classes(self.new)[0]
        if name == "words":
            reference, new = texts_of(self.reference), texts_of(self.new)
            if reference is None or new is None:
                raise _NothingToCompareError
            return reference, new
        rows = self.source.rows
        if name not in COLUMN_TESTS:
            return rows.encoded
        kind = rows.of_kind(name)
        reference, new = rows.reference[:, kind], rows.new[:, kind]
        is_missing = name == "missing" and (np.isnan(reference).any() or np.isnan(new).any())
        if not kind.any() or (name == "missing" and not is_missing):
            raise _NothingToCompareError
        return reference, new

    def _labels(self, sample: Sample) -> np.ndarray:
        labels = sample.labels()
        if labels is None or not (labels != IGNORED).any():
            problem = (
                "the targets are not class labels" if labels is None else "rows have no labels"
            )
            raise UncomparableRowsError(problem, "remove label_chi2 from shift.tests")
        return labels[labels != IGNORED]

    def _together(self, name: str, result: ShiftResult) -> ShiftResult | None:
        """Return a test's result without columns that are judged alone; None if no other is left.

        Of a test that compares columns, the effect is the largest of the significant ones.
        """
        if name not in COLUMN_TESTS:
            return result
        assert result.attribution is not None and result.feature_p_values is not None
        counted = ~self.source.rows.is_judged_alone[self.source.rows.of_kind(name)]
        if not counted.any():
            return None
        effects, p_values = result.attribution[counted], result.feature_p_values[counted]
        significant = p_values <= self.params.shift.alpha
        effect = float(effects[significant].max() if significant.any() else effects.max())
        statistic = result.statistic if counted.all() else effect
        return ShiftResult(name, statistic, float(p_values.min()), effect)

    def features(self, results: Mapping[str, ShiftResult]) -> list[FeatureShift]:
        """Return the shift of each feature; empty if no test compared features.

        Tests of single features are run for this, even if they are not among the tests.
        """
        if set(results) <= {*WITHOUT_FEATURES}:
            return []
        by_column = dict(results)
        for name in COLUMN_TESTS:
            if name not in results:
                try:
                    by_column[name] = self.run(name, np.random.default_rng(0))
                except _NothingToCompareError:
                    continue
        named = len(self.splits.feature_names) > 0 and self.source.kind == "raw"
        return attribute(
            self.source.rows, by_column, self.params.shift.alpha, MOST_COLUMNS if named else 0
        )

    def _of_features(self, features: Sequence[FeatureShift], tests: int) -> dict[str, Any]:
        if not features:
            return {}
        alpha, thresholds = self.params.shift.alpha, self.params.shift.thresholds
        figures: dict[str, Any] = {
            "features": {
                "compared": len(features),
                "most_shifted": features[0].feature,
                "shifted": sum(feature.smallest_p_value <= alpha for feature in features),
            }
        }
        if self.source.kind == "raw" and self.splits.feature_names:
            in_order = sorted(features, key=lambda each: self.source.rows.names.index(each.feature))
            figures["columns"] = {
                each.feature: {
                    name: rounded(value)
                    for name, value in vars(each).items()
                    if isinstance(value, float)
                }
                for each in in_order[:MOST_COLUMNS]
            }
        if thresholds:
            figures["thresholds"] = {}
        for each in features:
            if each.feature in thresholds:
                effect, p_value = each.effect_at(alpha / max(tests, 1))
                figures["thresholds"][each.feature] = {
                    "effect_size": rounded(effect),
                    "corrected_p_value": rounded(min(1.0, p_value * max(tests, 1))),
                }
        return figures

    def _of_model(self, generators: Generators) -> dict[str, Any]:
        """Return the figures of the parent's model on the new rows; empty without a model."""
        from renate_stages.evaluation.intervals import metric_interval

        model, metric = self.parents_model, self.params.evaluation.metric
        if model.model is None:
            return {}
        figures: dict[str, Any] = {"model": {}, "parent": parents_metrics(self.parent)}
        examined = model.examined(self.new, "the sample of the new data")
        if examined is not None:
            figures["model"] = {name: rounded(value) for name, value in examined.metrics.items()}
            generator = generators.numpy("shift interval")
            found = metric_interval(metric, {1: examined}, generator, average=False)
            if found is not None:
                figures["interval"] = {"low": rounded(found[0]), "high": rounded(found[1])}
        estimate = model.estimate(self.new, examined, generators.numpy("shift estimate"))
        if estimate is not None:
            figures["estimated_performance"] = _rounded_all(estimate)
        return figures

    @cached_property
    def parents_model(self) -> ParentsModel:
        """The parent's model."""
        return ParentsModel(self.user, self.params, self.parent, self.labels, self.skipped)

    @cached_property
    def source(self) -> FeatureSource:
        """Where the compared features come from."""
        return FeatureSource(
            self.user, self.params, self.parents_model, self.reference, self.new, self.splits
        )


def rounded(value: float) -> float | None:
    """Return a figure with six significant digits; None, for JSON, if it is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _rounded_all(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _rounded_all(each) for key, each in tree.items()}
    return rounded(tree) if isinstance(tree, float) else tree
