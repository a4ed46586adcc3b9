"""Each task's checks, loss, metrics, distillation and distribution, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from renate_stages import errors
from renate_stages.tasks import MEASURED, TASKS, is_known, make_task
from renate_stages.tasks.detect import detect
from renate_stages.tasks.task import IGNORED, Task


def batch(name: str, rows: int = 8) -> tuple[Tensor, Tensor]:
    """Return random outputs and targets of a task."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    return {
        "classification": lambda: (normal(rows, 4), whole(4, rows)),
        "binary": lambda: (normal(rows, 1), whole(2, rows)),
        "multilabel": lambda: (normal(rows, 3), whole(2, rows, 3)),
        "regression": lambda: (normal(rows, 2), normal(rows, 2)),
        "tokens": lambda: (normal(rows, 5, 4), whole(4, rows, 5)),
        "ranking": lambda: (normal(rows, 5), whole(4, rows, 5)),
        "ranking_pairwise": lambda: (normal(rows, 5), whole(4, rows, 5)),
        "custom": lambda: (normal(rows, 2), normal(rows, 2)),
    }[name]()


KNOWN = [name for name in TASKS if name != "custom"]


@pytest.mark.parametrize("name", [name for name in KNOWN if not name.startswith("ranking")])
def test_task_of_a_typical_batch_is_detected(name):
    assert detect(*batch(name)).name == name


def test_structured_outputs_or_targets_are_a_custom_task():
    outputs, targets = batch("regression")
    assert detect({"a": outputs}, targets).name == "custom"
    assert detect(outputs, (targets, targets)).name == "custom"


@pytest.mark.parametrize(
    ("outputs", "targets", "candidates"),
    [
        (torch.zeros(4, 1), torch.tensor([0, 1, 2, 1]), "They could be regression"),
        (torch.zeros(4, 1), torch.tensor([0.0, 1, 0, 1]), "They could be binary or regression"),
        (torch.zeros(4, 3), torch.zeros(4, 3), "They could be multilabel or regression"),
        (torch.zeros(4, 3), torch.full((4, 3), 2), "They could be regression or ranking"),
        (torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.long), "auto cannot tell"),
    ],
    ids=["counts", "float zeros", "float matrix of zeros", "relevances", "labels (B, 1)"],
)
def test_ambiguous_batch_is_refused_with_the_possible_tasks(outputs, targets, candidates):
    with pytest.raises(errors.AmbiguousTaskError, match=candidates):
        detect(outputs, targets)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_classification_accepts_labels_of_any_integer_type(dtype):
    outputs, targets = batch("classification")
    task = detect(outputs, targets.to(dtype))
    task.check(outputs, targets.to(dtype))
    assert torch.equal(task.loss(outputs, targets.to(dtype)), task.loss(outputs, targets))


WRONG = [
    ("classification", lambda t: t.float(), "float32"),
    ("classification", lambda t: t[:, None], r"shape \(8, 1\)"),
    (
        "classification",
        lambda t: t.index_fill(0, torch.tensor([3]), 4),
        "target 4 in row 103 of holdout 3",
    ),
    (
        "classification",
        lambda t: t.index_fill(0, torch.tensor([5]), -1),
        "target -1 in row 105 of holdout 3",
    ),
    ("binary", lambda t: t.index_fill(0, torch.tensor([2]), 2), "target 2 in row 102 of holdout 3"),
    ("multilabel", lambda t: t[:, :2], r"shape \(8, 2\)"),
    (
        "multilabel",
        lambda t: t.index_fill(0, torch.tensor([7]), 3),
        "target 3 in row 107 of holdout 3",
    ),
    ("regression", lambda t: t[:, 0], r"shape \(8,\)"),
    (
        "regression",
        lambda t: t.index_fill(0, torch.tensor([1]), torch.nan),
        "nan in row 101 of holdout 3",
    ),
    ("tokens", lambda t: t[:, :3], r"shape \(8, 3\)"),
    ("tokens", lambda t: t.index_fill(0, torch.tensor([6]), 9), "target 9 in row 106 of holdout 3"),
]


@pytest.mark.parametrize(("name", "change", "says"), WRONG)
def test_wrong_targets_are_refused_with_row_and_type(name, change, says):
    outputs, targets = batch(name)
    make_task(name).check(outputs, targets, 100, "holdout 3")
    with pytest.raises(errors.TargetsError, match=says):
        make_task(name).check(outputs, change(targets), 100, "holdout 3")


@pytest.mark.parametrize("name", KNOWN)
def test_outputs_that_are_no_float_tensor_are_refused(name):
    outputs, targets = batch(name)
    for wrong in ({"logits": outputs}, (outputs,), outputs.long()):
        with pytest.raises(errors.OutputsError, match=f"task {name}"):
            make_task(name).check(wrong, targets)


# -- losses ----------------------------------------------------------------------------------------


def test_classification_loss_is_cross_entropy():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1000.0, 0.0]])
    expected = torch.tensor([2.0, 1 + torch.tensor(-2.0).exp(), 1.0]).log()
    expected[2] = 1000  # log(1 + e^1000), without overflow
    found = make_task("classification").loss(logits, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(found, expected)


def test_binary_loss_is_cross_entropy_of_two_logits():
    outputs, targets = batch("binary")
    two = torch.cat([torch.zeros_like(outputs), outputs], 1)
    expected = F.cross_entropy(two, targets, reduction="none")
    for logits, labels in ((outputs, targets), (outputs[:, 0], targets[:, None].bool())):
        torch.testing.assert_close(make_task("binary").loss(logits, labels), expected)


def test_multilabel_loss_is_the_mean_over_the_labels_of_a_row():
    outputs, targets = batch("multilabel")
    probability = outputs.sigmoid()
    terms = -torch.where(targets == 1, probability, 1 - probability).log()
    torch.testing.assert_close(make_task("multilabel").loss(outputs, targets), terms.mean(1))


def test_regression_loss_is_the_squared_error_for_any_equal_size():
    task = make_task("regression")
    outputs, targets = torch.tensor([[1.0], [4.0]]), torch.tensor([3.0, 3.0])
    assert task.loss(outputs, targets).tolist() == [4, 1]
    outputs, targets = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    expected = torch.stack([F.mse_loss(o, t) for o, t in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(task.loss(outputs, targets), expected)


@pytest.mark.parametrize("name", ["classification", "binary", "multilabel", "tokens"])
def test_ignored_targets_count_in_no_loss_and_no_metric(name):
    task = make_task(name)
    outputs, targets = batch(name)
    partly = targets.clone()
    partly[:3] = IGNORED
    task.check(outputs, partly)
    weights = task.weights(partly)
    assert weights is not None and weights[:3].tolist() == [0, 0, 0] and (weights[3:] > 0).all()
    assert task.loss(outputs, partly)[:3].tolist() == [0, 0, 0]
    for metric, (right, count) in task.metrics(outputs, partly).items():
        kept, rows = task.metrics(outputs[3:], targets[3:])[metric]
        assert right.sum() == kept.sum() and count.sum() == rows.sum()


# -- metrics against scikit-learn ------------------------------------------------------------------


def mean(task: Task, metric: str, outputs: Tensor, targets: Tensor) -> float:
    right, count = task.metrics(outputs, targets)[metric]
    return float(right.sum()) / float(count.sum())


def test_default_metrics_equal_those_of_scikit_learn():
    outputs, targets = batch("classification", 50)
    expected = sklearn_metrics.accuracy_score(targets, outputs.argmax(1))
    assert mean(make_task("classification"), "accuracy", outputs, targets) == expected

    outputs, targets = batch("binary", 50)
    expected = sklearn_metrics.accuracy_score(targets, outputs[:, 0] > 0)
    assert mean(make_task("binary"), "accuracy", outputs, targets) == expected

    outputs, targets = batch("multilabel", 50)
    task, predicted = make_task("multilabel"), (outputs > 0).long()
    exact = sklearn_metrics.accuracy_score(targets, predicted)
    assert mean(task, "exact_match", outputs, targets) == exact
    loss = sklearn_metrics.hamming_loss(targets, predicted)
    assert mean(task, "accuracy", outputs, targets) == pytest.approx(1 - loss)

    outputs, targets = batch("regression", 50)
    task = make_task("regression")
    expected = sklearn_metrics.mean_squared_error(targets, outputs)
    assert mean(task, "mse", outputs, targets) == pytest.approx(expected)
    expected = sklearn_metrics.mean_absolute_error(targets, outputs)
    assert mean(task, "mae", outputs, targets) == pytest.approx(expected)

    outputs, targets = batch("tokens", 50)
    expected = sklearn_metrics.accuracy_score(targets.flatten(), outputs.argmax(2).flatten())
    assert mean(make_task("tokens"), "accuracy", outputs, targets) == expected


def test_binary_answer_has_the_label_of_the_logits_sign_and_its_probability():
    outputs, targets = torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 1])
    answer = make_task("binary").answer(outputs, targets)
    assert answer is not None and answer.predicted.tolist() == [1, 0]
    expected = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))]
    assert answer.confidence.tolist() == pytest.approx(expected)


# -- distillation and distributions ----------------------------------------------------------------


@pytest.mark.parametrize("name", list(TASKS))
def test_distillation_is_zero_for_equal_outputs_and_pulls_towards_the_teacher(name):
    task = make_task(name)
    taught = batch(name)[0]
    outputs = (taught + torch.randn(taught.shape)).requires_grad_()
    assert float(task.distillation(taught, taught, 2.0)) == pytest.approx(0, abs=1e-6)
    before = task.distillation(outputs, taught, 2.0)
    (gradient,) = torch.autograd.grad(before, outputs)
    after = task.distillation(outputs.detach() - 0.1 * gradient, taught, 2.0)
    assert float(after) < float(before.detach())


def test_binary_distillation_is_that_of_a_softmax_over_two_logits():
    outputs, taught = torch.randn(6, 1), torch.randn(6, 1)
    two, two_taught = (torch.cat([torch.zeros_like(z), z], 1) for z in (outputs, taught))
    expected = make_task("classification").distillation(two, two_taught, 3.0)
    torch.testing.assert_close(make_task("binary").distillation(outputs, taught, 3.0), expected)


@pytest.mark.parametrize("name", KNOWN)
def test_sampled_targets_have_the_distribution_of_the_outputs(name):
    """The mean gradient of log p(y | x) at sampled y is zero: the score has mean 0."""
    task, rows = make_task(name), 20_000
    one = batch(name, 1)[0].expand(rows, *batch(name, 1)[0].shape[1:]).clone().requires_grad_()
    draws = torch.rand(rows, task.draws_per_row(one), dtype=torch.float64)
    targets = task.sampled(one.detach(), draws)
    task.check(one, targets)
    (score,) = torch.autograd.grad(task.negative_log_likelihood(one, targets).sum(), one)
    assert float(score.mean(0).abs().max()) < 0.03
    assert float(score.abs().max()) > 0.1


def test_probability_of_the_true_label_is_that_of_its_class():
    outputs, targets = batch("classification")
    expected = outputs.softmax(1)[torch.arange(8), targets]
    found = make_task("classification").true_probability(outputs, targets)
    torch.testing.assert_close(found, expected)
    outputs, targets = batch("binary")
    expected = torch.where(targets == 1, outputs[:, 0].sigmoid(), 1 - outputs[:, 0].sigmoid())
    found = make_task("binary").true_probability(outputs, targets)
    torch.testing.assert_close(found, expected)


# -- names -----------------------------------------------------------------------------------------


def test_custom_class_is_a_task_by_its_dotted_name():
    assert is_known("renate_stages.tasks.binary:Binary") and not is_known("binry")
    assert make_task("renate_stages.tasks.binary:Binary").name == "binary"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("binry", "did you mean 'binary'"),
        ("no_such_module:Task", "No module named"),
        ("renate_stages.tasks.binary:Nothing", "has no attribute 'Nothing'"),
        ("collections:Counter", "not a subclass of Task"),
    ],
)
def test_unknown_task_is_refused(name, says):
    with pytest.raises(errors.UnknownTaskNameError, match=says):
        make_task(name)


@pytest.mark.parametrize("name", MEASURED)
def test_tasks_measure_the_metrics_that_are_listed(name):
    outputs = torch.randn(3, 2, 2) if name == "tokens" else torch.randn(3, 2)
    outputs = outputs[:, 0] if name == "binary" else outputs
    whole = (
        torch.zeros(3, 2)
        if name in ("regression", "multilabel", "ranking_pairwise", "ranking")
        else None
    )
    targets = torch.zeros(3, 2).long() if name == "tokens" else torch.zeros(3).long()
    found = make_task(name).metrics(outputs, targets if whole is None else whole + 1)
    assert sorted(found) == sorted(MEASURED[name])
