"""Ranking against plain loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from renate_stages import errors
from renate_stages.tasks import make_task
from renate_stages.tasks.ranking import ndcg
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.tasks.task import IGNORED

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(12, 6, generator=GENERATOR)
RELEVANCE = torch.randint(0, 4, (12, 6), generator=GENERATOR)
RELEVANCE[:, 0] = 2
RELEVANCE[3, 4:] = IGNORED
RELEVANCE[7] = 0  # nothing is relevant
RELEVANCE[8] = 1  # all are equally relevant


def listwise(scores: list[float], relevance: list[float]) -> float:
    total, whole = sum(relevance), sum(math.exp(s) for s in scores)
    pairs = zip(scores, relevance, strict=True)
    return -sum(y / total * math.log(math.exp(s) / whole) for s, y in pairs)


def pairwise(scores: list[float], relevance: list[float]) -> float:
    found = [
        math.log1p(math.exp(scores[j] - scores[i]))
        for i in range(len(scores))
        for j in range(len(scores))
        if relevance[i] > relevance[j]
    ]
    return sum(found) / len(found)


def lists() -> list[tuple[list[float], list[float]]]:
    counted = RELEVANCE != IGNORED
    return [
        (scores[mask].tolist(), relevance[mask].tolist())
        for scores, relevance, mask in zip(SCORES, RELEVANCE, counted, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "reference", "without"),
    [("ranking", listwise, (7,)), ("ranking_pairwise", pairwise, (7, 8))],
)
def test_loss_equals_a_plain_loop(name, reference, without):
    task = make_task(name)
    expected = [reference(*each) for n, each in enumerate(lists()) if n not in without]
    counted = [n for n in range(12) if n not in without]
    torch.testing.assert_close(task.loss(SCORES, RELEVANCE)[counted], torch.tensor(expected))
    assert not task.loss(SCORES, RELEVANCE)[list(without)].any()
    mean = float(RowLoss(task).mean(SCORES, RELEVANCE))
    assert mean == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("ties", [False, True])
def test_ndcg_is_that_of_scikit_learn(ties):
    scores = SCORES.round() if ties else SCORES
    found = ndcg(scores, RELEVANCE).tolist()
    for n, mask in enumerate(RELEVANCE != IGNORED):
        one, other = RELEVANCE[n][mask].numpy(), scores[n][mask].numpy()
        assert found[n] == pytest.approx(ndcg_score([one], [other]))
    sums, counts = make_task("ranking").metrics(scores, RELEVANCE)["ndcg"]
    assert counts.tolist() == [1.0] * 7 + [0.0] + [1.0] * 4 and not sums[7]


def test_gradient_raises_the_score_of_the_relevant_item():
    for name in ("ranking", "ranking_pairwise"):
        scores = torch.zeros(1, 3, requires_grad=True)
        make_task(name).loss(scores, torch.tensor([[0, 1, IGNORED]])).sum().backward()
        assert scores.grad is not None
        assert scores.grad[0, 1] < 0 < scores.grad[0, 0] and not scores.grad[0, 2]


def test_sampled_items_follow_the_softmax():
    outputs = torch.tensor([[0.0, math.log(3.0)]]).expand(8000, 2)
    draws = torch.rand(8000, 1, generator=GENERATOR, dtype=torch.float64)
    task = make_task("ranking")
    drawn = task.sampled(outputs, draws)
    assert drawn.float().mean(0)[1] == pytest.approx(0.75, abs=0.02)
    loss = task.negative_log_likelihood(outputs, drawn)
    assert float(loss[drawn[:, 1] == 1][0]) == pytest.approx(-math.log(0.75), rel=1e-5)


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "message"),
    [
        (SCORES[:, 0], RELEVANCE[:, 0], errors.OutputsError, "a score for each item"),
        (SCORES, RELEVANCE[:, :5], errors.TargetsError, "one for each item"),
        (SCORES, RELEVANCE - 1, errors.TargetsError, "row [0-9]+ of the data"),
        (SCORES, RELEVANCE * torch.nan, errors.TargetsError, "the target nan in row 0"),
    ],
)
def test_other_outputs_and_targets_are_refused(outputs, targets, error, message):
    with pytest.raises(error, match=message):
        make_task("ranking").check(outputs, targets)


def test_distillation_is_zero_for_equal_scores_and_their_shift():
    task = make_task("ranking")
    assert float(task.distillation(SCORES, SCORES + 3, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(task.distillation(SCORES, SCORES.flip(1), 2.0)) > 0.1
