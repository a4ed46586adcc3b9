"""The mean of a loss over the rows that count, against PyTorch's over all rows at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from renate_stages import errors
from renate_stages.tasks import make_task
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.tasks.task import IGNORED

CLASSIFICATION = make_task("classification")
torch.manual_seed(0)
LOGITS, LABELS = torch.randn(20, 3), torch.randint(3, (20,))
PARTLY = LABELS.masked_fill(torch.arange(20) < 12, IGNORED)
WEIGHT = torch.tensor([10.0, 1.0, 3.0])


def over_batches(loss: RowLoss, outputs, targets, size: int) -> float:
    parts = [
        loss.sums(outputs[start : start + size], targets[start : start + size],
                  len(targets[start : start + size]))
        for start in range(0, len(targets), size)
    ]  # fmt: skip
    return sum(part.total for part in parts) / sum(part.divisor for part in parts)


@pytest.mark.parametrize("size", [3, 8, 19, 20])
@pytest.mark.parametrize("targets", [LABELS, PARTLY], ids=["all rows", "12 rows ignored"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "class weights"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_mean_of_cross_entropy_is_pytorchs_for_every_batch_size(reduction, weight, targets, size):
    loss = RowLoss(CLASSIFICATION, nn.CrossEntropyLoss(weight=weight, reduction=reduction))
    expected = float(F.cross_entropy(LOGITS, targets, weight=weight))
    assert over_batches(loss, LOGITS, targets, size) == pytest.approx(expected, rel=1e-6)
    assert float(loss.mean(LOGITS, targets)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [3, 20])
def test_mean_of_a_custom_loss_leaves_out_ignored_rows(size):
    def rows(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none") + 7.0 * (targets == IGNORED)

    expected = float(F.cross_entropy(LOGITS, PARTLY))
    for own in (rows, F.cross_entropy):
        found = over_batches(RowLoss(CLASSIFICATION, own), LOGITS, PARTLY, size)
        assert found == pytest.approx(expected, rel=1e-6)


def test_tokens_count_equally_in_the_default_loss_of_sequences():
    task = make_task("tokens")
    outputs, targets = torch.randn(6, 5, 3), torch.randint(3, (6, 5))
    targets[0, 1:] = IGNORED
    targets[3] = IGNORED
    expected = float(F.cross_entropy(outputs.transpose(1, 2), targets))
    assert float(RowLoss(task).mean(outputs, targets)) == pytest.approx(expected, rel=1e-6)
    assert over_batches(RowLoss(task), outputs, targets, 4) == pytest.approx(expected, rel=1e-6)


def test_batch_of_ignored_rows_has_a_training_loss_of_zero():
    nothing = torch.full((20,), IGNORED)
    for own in (
        None,
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        F.cross_entropy,
    ):
        logits = LOGITS.clone().requires_grad_()
        loss = RowLoss(CLASSIFICATION, own)
        assert loss.sums(LOGITS, nothing, 20)[:2] == (0.0, 0.0)
        loss.mean(logits, nothing).backward()
        assert logits.grad is not None and not logits.grad.any()


def test_sum_is_refused_by_name_and_by_value():
    with pytest.raises(errors.LossReductionError, match='reduction="sum"'):
        RowLoss(CLASSIFICATION, nn.CrossEntropyLoss(reduction="sum"))
    loss = RowLoss(CLASSIFICATION, lambda o, t: F.cross_entropy(o, t, reduction="sum"))
    with pytest.raises(errors.LossReductionError, match="a sum"):
        loss.check(LOGITS, LABELS)


def test_mean_in_which_rows_do_not_count_equally_is_refused():
    loss = RowLoss(CLASSIFICATION, lambda o, t: F.cross_entropy(o, t, weight=WEIGHT))
    with pytest.raises(errors.LossReductionError, match="is not the mean of those of its halves"):
        loss.check(LOGITS, LABELS)


def test_broadcast_squared_error_is_refused():
    loss = RowLoss(make_task("regression"), nn.MSELoss(reduction="none"))
    refused = pytest.raises(errors.LossReductionError, match=r"20 rows give \(20, 20\), 10")
    with pytest.warns(UserWarning, match="broadcast"), refused:
        loss.check(torch.randn(20, 1), torch.randn(20))


def test_loss_with_the_wrong_number_of_rows_is_refused():
    loss = RowLoss(CLASSIFICATION, lambda o, t: o[:3, 0])
    with pytest.raises(errors.LossShapeError, match=r"20 rows has shape \(3,\)"):
        loss.check(LOGITS, LABELS)


@pytest.mark.parametrize("own", [None, F.cross_entropy, nn.CrossEntropyLoss(reduction="none")])
def test_losses_of_single_rows_and_their_means_are_accepted(own):
    RowLoss(CLASSIFICATION, own).check(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        (None, True),
        (nn.CrossEntropyLoss(reduction="none"), True),
        (nn.CrossEntropyLoss(), True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), False),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), False),
        (nn.CrossEntropyLoss(ignore_index=0), False),
        (F.cross_entropy, False),
    ],
)
def test_plain_cross_entropy_is_distinguished_from_other_losses(own, plain):
    assert RowLoss(CLASSIFICATION, own).is_cross_entropy is plain
    assert RowLoss(make_task("binary")).is_cross_entropy is False


ROW_WEIGHTS = torch.rand(20).masked_fill(torch.arange(20) % 4 == 1, 0.0)


@pytest.mark.parametrize("targets", [LABELS, PARTLY], ids=["all rows", "12 rows ignored"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "class weights"])
@pytest.mark.parametrize("reduction", ["mean", "none", "default"])
def test_weights_of_rows_multiply_those_of_classes(reduction, weight, targets):
    own = nn.CrossEntropyLoss(weight, reduction=reduction) if reduction != "default" else None
    classes = torch.ones(3) if weight is None or own is None else weight
    counts = ROW_WEIGHTS * classes[targets.clamp(min=0)] * (targets != IGNORED)
    each = F.cross_entropy(LOGITS, targets, reduction="none")
    found, divisor = RowLoss(CLASSIFICATION, own).mean_and_divisor(LOGITS, targets, ROW_WEIGHTS)
    torch.testing.assert_close(found, (each * counts).sum() / counts.sum())
    torch.testing.assert_close(divisor, counts.sum())


@pytest.mark.parametrize("own", [None, nn.MSELoss(), nn.MSELoss(reduction="none")])
def test_weighted_squared_error_is_the_mean_over_columns_too(own):
    outputs, targets = torch.randn(20, 2), torch.randn(20, 2)
    loss = RowLoss(make_task("regression"), own)
    loss.check_rows(outputs, targets)
    expected = ((outputs - targets).square().mean(1) * ROW_WEIGHTS).sum() / ROW_WEIGHTS.sum()
    torch.testing.assert_close(loss.mean_and_divisor(outputs, targets, ROW_WEIGHTS)[0], expected)


class Halved(nn.Module):
    """A loss that reduces to another value than the mean over rows."""

    reduction = "mean"

    def forward(self, outputs, targets):
        rows = F.cross_entropy(outputs, targets, reduction="none")
        return rows.mean() / 2 if self.reduction == "mean" else rows


@pytest.mark.parametrize(
    ("own", "problem"),
    [(F.cross_entropy, r"the loss of 20 rows has shape \(\)"), (Halved(), "it is not the mean of")],
)
def test_losses_that_are_not_of_rows_are_refused_with_weights(own, problem):
    with pytest.raises(errors.UnweightedLossError, match=f"(?s){problem}.*To fix this"):
        RowLoss(CLASSIFICATION, own).check_rows(LOGITS, LABELS)


def test_rows_of_weight_0_have_loss_0_without_gradient():
    outputs = LOGITS.clone().requires_grad_()
    mean, divisor = RowLoss(CLASSIFICATION).mean_and_divisor(outputs, LABELS, torch.zeros(20))
    mean.backward()
    assert not mean.detach() and not divisor and not outputs.grad.any()
