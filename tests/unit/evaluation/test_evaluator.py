"""The evaluator, against plain loops over single examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, TensorDataset
from torchmetrics import ConfusionMatrix, MeanSquaredError, R2Score
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, MulticlassAccuracy

from renate_stages.errors import (
    EmptyHoldoutError,
    LossShapeError,
    MetricError,
    NotFiniteRowError,
    UnknownTaskError,
)
from renate_stages.evaluation.evaluator import evaluate, examine
from renate_stages.evaluation.examined import ExaminedHoldouts
from renate_stages.models import MLP, RenateModule, RenateWrapper
from renate_stages.tasks import named
from renate_stages.tasks.custom import Custom


class Collated(Dataset):
    """Batches as `data/stored.py` returns them: collated, in trees of any kind."""

    def __init__(self, inputs: Tensor, targets: Any, wrap: Callable = lambda x: x) -> None:
        self.inputs, self.targets, self.wrap = inputs, targets, wrap
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: list[int]) -> tuple[Any, Any]:
        self.asked += indices
        return self.wrap(self.inputs[indices]), self.targets[indices]


def labelled(rows: int = 11, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 4, generator=generator)
    return inputs, torch.randint(0, 3, (rows,), generator=generator)


def norm_dropout_model() -> RenateModule:
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    return RenateWrapper(layers)


def reference(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    model.eval()
    losses, correct = [], []
    with torch.no_grad():
        for x, y in zip(inputs, targets, strict=True):
            outputs = model(x[None])
            losses.append(F.cross_entropy(outputs, y[None]).item())
            correct.append(int(outputs[0].argmax()) == int(y))
    return {"loss": sum(losses) / len(losses), "accuracy": sum(correct) / len(correct)}


@pytest.mark.parametrize("batch_size", [1, 4, 11, 256])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_evaluation_equals_a_row_loop_at_any_batch_size(batch_size: int, reduction: str) -> None:
    model, (inputs, targets) = norm_dropout_model(), labelled()
    holdouts = {
        3: Collated(inputs, targets),
        1: TensorDataset(inputs[:5], targets[:5]),  # has only __getitem__
        2: Subset(TensorDataset(inputs, targets), [9, 2, 4]),  # __getitems__ returns a list
    }
    loss_fn = nn.CrossEntropyLoss(reduction=reduction)
    results = evaluate(model, holdouts, loss_fn=loss_fn, batch_size=batch_size)
    assert list(results) == [1, 2, 3]
    assert results[1] == pytest.approx(reference(model, inputs[:5], targets[:5]))
    assert results[2] == pytest.approx(reference(model, inputs[[9, 2, 4]], targets[[9, 2, 4]]))
    assert results[3] == pytest.approx(reference(model, inputs, targets))
    assert holdouts[3].asked == list(range(11))


def test_evaluation_leaves_the_model_unchanged() -> None:
    model, (inputs, targets) = norm_dropout_model(), labelled()
    model.train()
    model.wrapped[1].eval()  # such as a frozen batch norm
    model.register_intermediate_representation_caching_hook(model.wrapped[0])
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items() if name[0] != "_"}

    evaluate(model, {1: Collated(inputs, targets)}, loss_fn=F.cross_entropy, batch_size=4)

    assert [module.training for module in model.modules()] == modes
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.get_intermediate_representation() == []
    F.cross_entropy(model(inputs), targets).backward()  # no inference tensors are left in it
    assert model.wrapped[0].weight.grad is not None


def test_training_modes_are_restored_after_an_error() -> None:
    model, (inputs, targets) = norm_dropout_model().train(), labelled()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, {1: Collated(inputs, targets)}, loss_fn=lambda *_: 1 / 0)
    assert all(module.training for module in model.modules())


def test_user_metrics_are_created_per_holdout_and_replace_accuracy() -> None:
    model, (inputs, targets) = norm_dropout_model(), labelled()
    made = []

    def metrics_fn() -> dict:
        made.append(
            {"macro": MulticlassAccuracy(3), "micro": MulticlassAccuracy(3, average="micro")}
        )
        return made[-1]

    halves = {1: Collated(inputs[:6], targets[:6]), 2: Collated(inputs[6:], targets[6:])}
    results = evaluate(model, halves, loss_fn=F.cross_entropy, metrics_fn=metrics_fn, batch_size=4)
    assert len(made) == 3  # and once for the rows of all holdouts
    for number, half in halves.items():
        assert list(results[number]) == ["loss", "macro", "micro"]
        plain = reference(model, half.inputs, half.targets)
        assert results[number]["micro"] == pytest.approx(plain["accuracy"])
        assert results[number]["loss"] == pytest.approx(plain["loss"])


def test_metrics_on_all_rows_equal_scikit_learns_and_are_not_means_over_holdouts() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(90, 1, generator=generator)
    values = 2 * scores[:, 0] + torch.rand(90, generator=generator) + (torch.arange(90) > 60)
    labels = (values > 2).long()
    model = RenateWrapper(nn.Identity())

    def measured(targets, metrics_fn, task=None):
        parts = {1: slice(0, 61), 2: slice(61, 90)}
        data = {n: Collated(scores[part], targets[part]) for n, part in parts.items()}
        return examine(model, data, metrics_fn=metrics_fn, task=task, batch_size=8)

    r2 = measured(values, lambda: {"r2": R2Score()}, named("regression"))
    assert r2.together["r2"] == pytest.approx(sklearn_metrics.r2_score(values, scores), abs=1e-5)
    assert r2.together["loss"] == pytest.approx(float(F.mse_loss(scores[:, 0], values)))
    auroc = examine(
        model,
        {1: Collated(scores[:61], labels[:61]), 2: Collated(scores[61:], labels[61:])},
        task=named("binary"),
        metrics_fn=lambda: {"auroc": BinaryAUROC(), "f1": BinaryF1Score(threshold=0.7)},
        batch_size=8,
    )
    expected = sklearn_metrics.roc_auc_score(labels, scores)
    assert auroc.together["auroc"] == pytest.approx(expected, abs=1e-6)
    expected = sklearn_metrics.f1_score(labels, scores > 0.7)
    assert auroc.together["f1"] == pytest.approx(expected, abs=1e-6)
    for found, name in ((r2, "r2"), (auroc, "auroc"), (auroc, "f1")):
        means = ExaminedHoldouts.of_means(found).together[name]
        assert abs(means - found.together[name]) > 0.005, name


def test_default_metrics_on_all_rows_are_means_over_the_rows_that_count() -> None:
    model, (inputs, targets) = norm_dropout_model(), labelled()
    targets = targets.clone()
    targets[[0, 1, 8]] = -100
    halves = {1: Collated(inputs[:6], targets[:6]), 2: Collated(inputs[6:], targets[6:])}
    found = examine(model, halves, batch_size=4)
    model.eval()
    counted, outputs = targets != -100, model(inputs).detach()
    right = outputs.argmax(1)[counted] == targets[counted]
    assert found.together["accuracy"] == pytest.approx(right.float().mean().item())
    assert found.together["loss"] == pytest.approx(F.cross_entropy(outputs, targets).item())
    pairs = np.concatenate([each.scores["accuracy"] for each in found.values()])
    assert pairs.shape == (len(targets), 2)
    assert pairs.sum(0).tolist() == [int(right.sum()), int(counted.sum())]


def test_regression_has_a_loss_and_no_accuracy() -> None:
    model, inputs = RenateWrapper(nn.Linear(4, 2)), torch.rand(7, 4)
    data = Collated(inputs, torch.rand(7, 2))
    expected = F.mse_loss(model(inputs), data.targets).item()
    for reduction in ("none", "mean"):  # "none" gives a loss of (B, 2)
        loss_fn = nn.MSELoss(reduction=reduction)
        result = evaluate(model, {1: data}, loss_fn=loss_fn, batch_size=3)[1]
        assert set(result) == {"loss", "mse", "mae"}
        assert result["loss"] == pytest.approx(expected) == result["mse"]
    result = evaluate(
        model, {1: data}, loss_fn=F.mse_loss, metrics_fn=lambda: {"mse": MeanSquaredError()}
    )
    assert result[1]["mse"] == pytest.approx(expected)


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class ReadsPair(RenateModule):
    """Accepts a named tuple, or a dict that contains one."""

    def __init__(self) -> None:
        super().__init__({})
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Any, task_id: str | None = None) -> Tensor:
        pair = x["pair"] if isinstance(x, dict) else x
        return self.linear(pair.a - pair[1])


@pytest.mark.parametrize("wrap", [lambda x: Pair(2 * x, x), lambda x: {"pair": Pair(2 * x, x)}])
def test_nested_inputs_keep_their_container_types(wrap: Callable) -> None:
    model, (inputs, targets) = ReadsPair(), labelled()
    result = evaluate(model, {1: Collated(inputs, targets, wrap)}, loss_fn=F.cross_entropy)
    assert result[1] == pytest.approx(reference(RenateWrapper(model.linear), inputs, targets))


def test_nested_inputs_and_targets_are_moved_to_the_device() -> None:
    class Seen(RenateModule):
        def __init__(self) -> None:
            super().__init__({})
            self.devices: set[str] = set()

        def forward(self, x: Any, task_id: str | None = None) -> Tensor:
            self.devices |= {x["x"].device.type, x["more"][0].device.type}
            return x["x"][:, 0]  # not class scores, whose values would be kept

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        model.devices.add(targets.device.type)
        return torch.zeros(())

    model, (inputs, targets) = Seen(), labelled()
    data = Collated(inputs, targets, lambda x: {"x": x, "more": [x]})
    # The meta device stands in for an accelerator: it has shapes and no values.
    evaluate(model, {1: data}, loss_fn=loss_fn, metrics_fn=dict, task=Custom(), device="meta")
    assert model.devices == {"meta"}


def test_each_holdout_is_evaluated_with_its_task_id() -> None:
    model, (inputs, targets) = MLP(4, 3, heads="per_task"), labelled()
    for task in ("a", "b"):
        model.add_task_params(task)
    data = {1: Collated(inputs, targets), 2: Collated(inputs, targets)}
    loss_fn = F.cross_entropy
    by_number = evaluate(model, data, loss_fn=loss_fn, task_ids={1: "a", 2: "b"})
    assert by_number[1]["loss"] == pytest.approx(loss_fn(model(inputs, "a"), targets).item())
    assert by_number[2]["loss"] == pytest.approx(loss_fn(model(inputs, "b"), targets).item())
    with pytest.raises(UnknownTaskError, match="'a', 'b'"):
        evaluate(model, data, loss_fn=loss_fn, task_ids={1: "a"})


def test_empty_holdout_error_names_its_number() -> None:
    inputs, targets = labelled(0)
    with pytest.raises(EmptyHoldoutError, match="Holdout 4 has no examples"):
        evaluate(norm_dropout_model(), {4: Collated(inputs, targets)}, loss_fn=F.cross_entropy)


def test_loss_with_an_unexpected_shape_is_refused() -> None:
    inputs, targets = labelled()
    with pytest.raises(LossShapeError, match=r"11 rows has shape \(3,\)"):
        evaluate(
            norm_dropout_model(),
            {1: Collated(inputs, targets)},
            loss_fn=lambda outputs, _: outputs.mean(dim=0),
        )


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"confusion": lambda: ConfusionMatrix("multiclass", num_classes=3)}, r"shape \(3, 3\)"),
        ({"loss": MeanSquaredError}, "'loss'.*reserved"),
    ],
)
def test_unreportable_metric_error_names_the_metric(metrics: dict, message: str) -> None:
    inputs, targets = labelled()
    with pytest.raises(MetricError, match=message):
        evaluate(
            norm_dropout_model(),
            {1: Collated(inputs, targets)},
            loss_fn=F.cross_entropy,
            metrics_fn=lambda: {name: make() for name, make in metrics.items()},
        )


def test_predictions_of_each_row_are_kept() -> None:
    model, (inputs, targets) = MLP(4, 3), labelled()
    data = {1: Collated(inputs, targets)}
    (found,) = examine(model, data, loss_fn=F.cross_entropy, batch_size=3).values()
    with torch.no_grad():
        probabilities = model.eval()(inputs).softmax(dim=1)
    assert found.rows == len(targets) and found.predictions is not None
    assert found.predictions.labels.tolist() == targets.tolist()
    assert found.predictions.predicted.tolist() == probabilities.argmax(dim=1).tolist()
    assert found.predictions.confidence == pytest.approx(probabilities.amax(dim=1).numpy())
    assert found.metrics["accuracy"] == pytest.approx(found.predictions.correct.mean())


def test_targets_that_are_not_classes_give_no_predictions() -> None:
    model, (inputs, _) = MLP(4, 3), labelled()
    data = {1: Collated(inputs, torch.rand(len(inputs), 3))}
    (found,) = examine(model, data, loss_fn=F.mse_loss).values()
    assert found.predictions is None and set(found.metrics) == {"loss", "mse", "mae"}


@pytest.mark.parametrize("batch_size", [2, 11])
def test_users_metrics_leave_out_rows_with_an_ignored_label(batch_size: int) -> None:
    model, (inputs, targets) = MLP(4, 3), labelled()
    partly = targets.clone()
    partly[:5] = -100
    kept = Collated(inputs[5:], targets[5:])

    def metrics_fn() -> dict:
        return {"accuracy": MulticlassAccuracy(3, average="micro")}

    found, expected = (
        evaluate(model, {1: data}, metrics_fn=metrics_fn, batch_size=batch_size)[1]
        for data in (Collated(inputs, partly), kept)
    )
    assert found == pytest.approx(expected)
    nothing = Collated(inputs, torch.full_like(targets, -100))
    with pytest.raises(EmptyHoldoutError, match=r"only examples with ignored targets \(11\)"):
        evaluate(model, {1: nothing})


def test_row_with_a_loss_that_is_nan_is_named() -> None:
    inputs, targets = torch.rand(9, 4), torch.rand(9, 2)
    inputs[[6, 8], 1] = float("nan")
    model = RenateWrapper(nn.Linear(4, 2))
    with pytest.raises(NotFiniteRowError, match=r"holdout 3 is NaN for 2 of 9 rows.*row 6\."):
        examine(model, {3: Collated(inputs, targets)}, batch_size=4)
    ignored = torch.randint(2, (9,))
    ignored[[6, 8]] = -100
    counted = torch.ones(9, dtype=torch.bool)
    counted[[6, 8]] = False
    found = examine(model, {3: Collated(inputs, ignored)}, batch_size=4)[3].metrics["loss"]
    expected = F.cross_entropy(model(inputs[counted]), ignored[counted]).item()
    assert found == pytest.approx(expected), "NaN in the inputs of ignored rows does not count"
