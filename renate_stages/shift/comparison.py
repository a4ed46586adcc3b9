"""Compare an update's new examples with those of its parent, for `shift` in the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.errors import ModelMismatchError, UncomparableRowsError, UserConfigError
from renate_stages.memory import ExampleStore
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.shift.detector import LEAST_ROWS, ShiftResult
from renate_stages.shift.detectors import DETECTORS
from renate_stages.shift.features import FeatureShift, attribute
from renate_stages.shift.multiple_testing import holm
from renate_stages.shift.rows import (
    Sample,
    function_rows,
    model_rows,
    raw_fields,
    raw_names,
    raw_rows,
)
from renate_stages.state import State
from renate_stages.user.config import UserConfig

if TYPE_CHECKING:
    from renate_stages.evaluation.examined import Examined
    from renate_stages.models import RenateModule


LABEL_TESTS = ("label_chi2", "bbse")  # tests that compare classes; the others compare features


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


def compare(
    user: UserConfig,
    params: Params,
    parent: State,
    new: ExampleStore,
    feature_names: Sequence[str] = (),
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
        feature_names: Names of an example's input values; if empty, positions are used.
        labels: Number of named labels; the parent's model may have fewer outputs.

    Returns:
        Figures and features. The figures are:

        - `reference` and `new`: the number of `rows` of each;
        - `tests`: by name, `statistic`, `p_value`, `corrected_p_value` (Holm's, over the tests) and
          `effect_size`;
        - `alarms`: the number of corrected p-values that are at most alpha;
        - `features`: the number `compared`, the number `shifted` (whose own corrected p-value is at
          most alpha), and the `most_shifted` one;
        - `model`: metrics of the parent's model on the new rows, by name;
        - `parent`: its metrics on all its holdouts;
        - `skipped`: why a test or the model was skipped.
    """
    generators = Generators(params.seed, params.update.number)
    generator = generators.numpy("shift")
    most = params.shift.max_rows
    reference = Sample.draw(reference_stores(parent, params.shift.reference), most, generator)
    sample = Sample.draw([new], most, generator)
    if min(len(reference), len(sample)) < LEAST_ROWS:
        return None
    generators.seed_global("shift")
    return Comparison(user, params, parent, reference, sample, feature_names, labels).shift(
        generators
    )


def reference_stores(parent: State, of: str) -> list[ExampleStore]:
    """Return the parent's examples to compare with: its holdouts or, without any, its memory.

    Holdouts are random samples that the model was not trained on. A memory's examples may be
    selected by a policy, and the model may have memorised them.
    """
    holdouts = [] if of == "memory" else list(parent.split("holdouts").values())
    memory = [parent.memory()] if of != "holdouts" or not any(map(len, holdouts)) else []
    return [store for store in (*holdouts, *memory) if len(store)]


@dataclass
class Comparison:
    """Two samples to compare, with cached features and predictions.

    Args:
        user: The user's functions.
        params: The update's parameters.
        parent: The state that the update starts from.
        reference: Examples of the parent.
        new: New training examples.
        feature_names: Names of input values from the user's data module.
        labels: Number of named labels.
    """

    user: UserConfig
    params: Params
    parent: State
    reference: Sample
    new: Sample
    feature_names: Sequence[str] = ()
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
        corrected = holm(np.array([feature.p_value for feature in results.values()]))
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
                for (name, result), p_value in zip(results.items(), corrected, strict=True)
            },
        }
        features = self.features(results)
        if features:
            figures["features"] = {
                "compared": len(features),
                "most_shifted": features[0].feature,
                "shifted": sum(feature.p_value <= self.params.shift.alpha for feature in features),
            }
        if self.model is not None:
            metrics = self.examined[1].metrics
            figures["model"] = {name: rounded(value) for name, value in metrics.items()}
            figures["parent"] = parents_metrics(self.parent)
        return Shift({**figures, "skipped": self.skipped} if self.skipped else figures, features)

    def features(self, results: Mapping[str, ShiftResult]) -> list[FeatureShift]:
        """Return the shift of each feature; empty if the tests compared only classes.

        It is computed by the Kolmogorov-Smirnov test, even if that is not among the tests.
        """
        if set(results) <= {*LABEL_TESTS}:
            return []
        ks = results.get("ks") or self.run(
            "ks", np.random.default_rng(0)
        )  # the generator is not used
        reference, new = self.rows
        kind, width = self.kind, reference.shape[1]
        if kind == "raw":
            names = raw_names(self.reference, self.feature_names)
        else:
            names = [f"{kind}[{place}]" for place in range(width)]
        return attribute(names, reference, new, ks, results.get("c2st"))

    def run(self, name: str, generator: np.random.Generator) -> ShiftResult:
        """Run one test.

        Raises:
            UncomparableRowsError: If the test cannot compare these examples.
        """
        detector = DETECTORS[name]()
        if "permutations" in detector.settings:
            detector = DETECTORS[name](permutations=self.params.shift.permutations)  # pyright: ignore[reportCallIssue]
        return detector.fit(self.compared(name, 0)).test(self.compared(name, 1), generator)

    def compared(self, name: str, which: int) -> np.ndarray:
        """Return a test's input for the reference (0) or the new examples (1)."""
        sample = (self.reference, self.new)[which]
        if name == "label_chi2":
            labels = sample.labels()
            if labels is None:
                raise UncomparableRowsError(
                    "the targets are not class labels", "remove label_chi2 from shift.tests"
                )
            return labels
        if name == "bbse":
            predictions = self.examined[which].predictions if self.model is not None else None
            if predictions is None:
                raise UncomparableRowsError(
                    "the parent has no model that predicts classes",
                    "remove bbse from shift.tests",
                )
            pairs = np.stack([predictions.predicted, predictions.labels], axis=1)
            return pairs[:, 0] if which else pairs
        return self.rows[which]

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Features of the reference and of the new examples, float32 `(n, d)` each."""
        rows = self.rows_of
        return rows(self.reference), rows(self.new)

    @property
    def kind(self) -> str:
        """The features that are compared: `raw`, `model` or `feature_fn`."""
        if self.params.shift.features != "auto":
            return self.params.shift.features
        if "feature_fn" in self.user.functions:
            return "feature_fn"
        return "raw" if raw_fields(self.reference) is not None else "model"

    @property
    def rows_of(self) -> Callable[[Sample], np.ndarray]:
        """The function that computes the rows of a sample, according to `shift.features`."""
        if self.kind == "raw":
            return raw_rows
        batch_size = self.params.evaluation.batch_size
        transform = self.user.test_transforms(self.hyperparameters)[0]
        if self.kind == "feature_fn":
            function = self.user.callable_of("feature_fn", self.hyperparameters)
            if function is None:
                raise UserConfigError(
                    self.user.path,
                    "params.yaml sets shift.features: feature_fn, but feature_fn is missing or "
                    "returned None",
                    "define feature_fn so that it returns a function of a batch of inputs",
                )
            return partial(
                function_rows, function=function, transform=transform, batch_size=batch_size
            )
        if self.model is None:
            raise UncomparableRowsError(
                "the parent has no model", "set shift.features to raw or feature_fn"
            )
        return partial(
            model_rows,
            model=self.model,
            transform=transform,
            task_id=self.params.update.task_id,
            batch_size=batch_size,
        )

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The constant hyperparameters, and the middle of each search space."""
        return dict(self.params.fixed().hyperparameters)

    @cached_property
    def model(self) -> RenateModule | None:
        """The parent's model; None if the parent has no model, or it cannot be built."""
        if not self.parent.has_model:
            return None
        from renate_stages.models.stored import build_model

        try:
            return build_model(
                self.user, self.hyperparameters, self.parent.folder, self.params.update.task_id
            )
        except ModelMismatchError as error:
            self.skipped["model"] = str(error).split("\n")[0]
            return None

    @cached_property
    def examined(self) -> dict[int, Examined]:
        """Results of the parent's model on the reference (0) and on the new examples (1)."""
        from renate_stages.evaluation.evaluator import examine
        from renate_stages.evaluation.widened import widened
        from renate_stages.tasks import named
        from renate_stages.user import optimization

        assert self.model is not None
        transforms = self.user.test_transforms(self.hyperparameters)
        samples = {0: self.reference, 1: self.new}
        metrics_fn = None
        if "metrics_fn" in self.user.functions:
            metrics_fn = partial(self.user.call, "metrics_fn", self.hyperparameters)
        with widened(self.model, self.labels):
            return examine(
                self.model,
                {place: sample.dataset(transforms) for place, sample in samples.items()},
                loss_fn=optimization.loss_fn(self.user, self.hyperparameters),
                metrics_fn=metrics_fn,
                task=named(self.parent.provenance.task or self.params.task),
                task_ids=dict.fromkeys(samples, self.params.update.task_id),
                places={0: "the sample of the parent's data", 1: "the sample of the new data"},
                batch_size=self.params.evaluation.batch_size,
            )


def parents_metrics(parent: State) -> dict[str, float | None]:
    """Return each metric of the parent's model over all rows of its holdouts."""
    history, number = parent.evaluations(), parent.provenance.update
    measured = [name for name in history.metrics if number in history.matrix(name)]
    return {name: history.summary(number, name)["overall"] for name in measured}  # pyright: ignore[reportReturnType]


def rounded(value: float) -> float | None:
    """Return a figure with six significant digits; None, for JSON, if it is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
