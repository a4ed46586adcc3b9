"""Intervals of metrics that are not means over rows, against a plain loop over resamples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassF1Score,
)
from torchmetrics.regression import R2Score

from renate_stages.evaluation import counted_rows, intervals
from renate_stages.evaluation.evaluator import examine
from renate_stages.evaluation.examined import ExaminedHoldouts
from renate_stages.evaluation.intervals import metric_difference_interval, metric_interval
from renate_stages.models import RenateWrapper
from renate_stages.tasks import named

PARTS = {1: slice(0, 150), 2: slice(150, 210)}
SAMPLE = np.random.default_rng(1)
VALUES = SAMPLE.normal(size=210)
SCORES = {
    "old": VALUES + SAMPLE.normal(size=210),
    "new": VALUES + 0.5 * SAMPLE.normal(size=210),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def loop(
    figure: Callable[[np.ndarray], float], average: bool, resamples: int = 1500
) -> tuple[float, float]:
    """The textbook loop: draw rows of each holdout, compute the figure, take the quantiles."""
    generator, figures = rng(99), []
    for _ in range(resamples):
        drawn = [
            part.start + generator.integers(part.stop - part.start, size=part.stop - part.start)
            for part in PARTS.values()
        ]
        figures.append(
            np.mean([figure(each) for each in drawn]) if average else figure(np.concatenate(drawn))
        )
    return tuple(np.quantile(figures, [0.025, 0.975]))


def measured(
    scores: np.ndarray, targets: Tensor, task: str, **kinds: Callable[[], Metric]
) -> ExaminedHoldouts:
    """Examine a model whose outputs are the given scores."""
    outputs = torch.from_numpy(scores).float()[:, None]
    data = {n: TensorDataset(outputs[part], targets[part]) for n, part in PARTS.items()}
    metrics_fn = (lambda: {name: kind() for name, kind in kinds.items()}) if kinds else None
    model = RenateWrapper(nn.Identity())
    return examine(
        model, data, metrics_fn=metrics_fn, task=named(task), batch_size=32, keep_rows=True
    )


def r2_of(name: str) -> ExaminedHoldouts:
    return measured(SCORES[name], torch.from_numpy(VALUES).float(), "regression", r2=R2Score)


def auroc_of(name: str) -> ExaminedHoldouts:
    labels = torch.from_numpy(VALUES > 0.3).long()
    return measured(SCORES[name], labels, "binary", auroc=BinaryAUROC)


def r2(name: str) -> Callable[[np.ndarray], float]:
    def value(rows: np.ndarray) -> float:
        truth, found = VALUES[rows], SCORES[name][rows]
        return 1 - ((truth - found) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()

    return value


def auroc(name: str) -> Callable[[np.ndarray], float]:
    """The share of pairs of a positive and a negative row that are in the right order."""

    def value(rows: np.ndarray) -> float:
        positive = VALUES[rows] > 0.3
        scores = SCORES[name][rows]
        difference = scores[positive][:, None] - scores[~positive]
        return float(np.mean((difference > 0) + 0.5 * (difference == 0)))

    return value


def test_the_loop_computes_scikit_learns_figures() -> None:
    rows = rng().integers(210, size=210)
    truth, scores = VALUES[rows], SCORES["new"][rows]
    assert r2("new")(rows) == pytest.approx(sklearn_metrics.r2_score(truth, scores))
    expected = sklearn_metrics.roc_auc_score(truth > 0.3, scores)
    assert auroc("new")(rows) == pytest.approx(expected)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize(
    ("metric", "examined", "plain"), [("r2", r2_of, r2), ("auroc", auroc_of, auroc)]
)
def test_interval_equals_that_of_a_plain_loop(
    monkeypatch, metric, examined, plain, average
) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    new, old = examined("new"), examined("old")
    found = metric_interval(metric, new, rng(), average=average)
    expected = loop(plain("new"), average)
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected, abs=width / 5)
    assert found[0] < new.together[metric] < found[1]
    found = metric_difference_interval(metric, old, new, rng(), average=average)
    expected = loop(lambda rows: plain("new")(rows) - plain("old")(rows), average)
    assert found == pytest.approx(expected, abs=(expected[1] - expected[0]) / 5)


def test_equal_models_have_a_difference_of_zero_width() -> None:
    new = auroc_of("new")
    assert metric_difference_interval("auroc", new, new, rng(), average=False) == (0, 0)


def test_fewer_rows_are_drawn_from_many_with_the_same_interval(monkeypatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    whole = metric_interval("auroc", auroc_of("new"), rng(), average=False)
    monkeypatch.setattr(intervals, "MOST_ROWS", 105)
    half = metric_interval("auroc", auroc_of("new"), rng(), average=False)
    assert half != whole
    assert half == pytest.approx(whole, abs=(whole[1] - whole[0]) / 5)


def test_loss_has_an_interval_if_it_has_values_of_rows() -> None:
    targets = torch.from_numpy(VALUES).float()
    new = measured(SCORES["new"], targets, "regression")
    low, high = metric_interval("loss", new, rng(), average=False)
    errors = (VALUES - SCORES["new"]) ** 2
    half_width = 1.96 * errors.std() / np.sqrt(len(errors))
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.1)
    assert low < errors.mean() < high
    data = {1: TensorDataset(targets[:, None], targets[:, None])}
    scalar = examine(RenateWrapper(nn.Identity()), data, loss_fn=nn.L1Loss(), keep_rows=True)
    assert metric_interval("loss", scalar, rng(), average=False) is None


def token_data(rows: int = 60) -> tuple[Tensor, Tensor]:
    """Logits (rows, 5, 3) and labels (rows, 5); rows have 0 to 5 labels that count."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (rows, 5), generator=generator)
    logits = nn.functional.one_hot(labels, 3) + torch.randn(rows, 5, 3, generator=generator)
    labels[torch.arange(5) >= (torch.arange(rows) % 6)[:, None]] = -100
    return logits, labels


def test_tokens_are_resampled_by_row_with_their_positions() -> None:
    logits, labels = token_data()
    data = {1: TensorDataset(logits[:25], labels[:25]), 2: TensorDataset(logits[25:], labels[25:])}

    def metrics_fn() -> dict:
        return {
            "f1": MulticlassF1Score(3),
            "micro": MulticlassAccuracy(3, average="micro"),
        }

    model = RenateWrapper(nn.Identity())
    arguments = {"task": named("tokens"), "batch_size": 8, "keep_rows": True}
    own = examine(model, data, metrics_fn=metrics_fn, **arguments)
    rows = own[2].counted
    assert rows is not None and len(rows) == 35
    taken = rows.taken(np.array([4, 0, 4]))
    assert taken is not None
    chosen = labels[25:][[4, 0, 4]]
    assert torch.equal(taken[1], chosen[chosen != -100])
    assert torch.equal(taken[0], logits[25:][[4, 0, 4]][chosen != -100])
    # The share of correct labels has the same interval as the task's own accuracy, a mean.
    default = examine(model, data, **arguments)
    expected = metric_interval("accuracy", default, rng(), average=False)
    found = metric_interval("micro", own, rng(), average=False)
    assert found == pytest.approx(expected, abs=(expected[1] - expected[0]) / 5)
    assert metric_interval("f1", own, rng(), average=True) is not None


def test_rows_that_take_too_much_memory_give_no_interval(monkeypatch) -> None:
    monkeypatch.setattr(counted_rows, "MOST_BYTES", 210 * 8 - 1)  # two float32 values per row
    found = r2_of("new")
    assert found[1].counted is not None and found[2].counted is None
    assert metric_interval("r2", found, rng(), average=False) is None
    monkeypatch.setattr(counted_rows, "MOST_BYTES", 210 * 8)
    assert metric_interval("r2", r2_of("new"), rng(), average=False) is not None


class Undefined(R2Score):
    def compute(self) -> Tensor:
        return torch.tensor(float("nan"))


def test_metric_that_is_undefined_has_no_interval() -> None:
    values = torch.from_numpy(VALUES).float()
    found = measured(SCORES["new"], values, "regression", r2=Undefined)
    assert metric_interval("r2", found, rng(), average=False) is None
    assert metric_interval("unknown", found, rng(), average=False) is None
