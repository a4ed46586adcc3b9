"""Learners of tasks whose rows have several positions do not depend on padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, stored
from torch import nn

from renate_stages.data import ingest
from renate_stages.data.stored import StoredDataset
from renate_stages.learners.base import example_gradients
from renate_stages.learners.base.fisher import diagonal_fisher
from renate_stages.learners.ewc import EWC
from renate_stages.models import RenateWrapper
from renate_stages.tasks import named

LONGEST = 9


class Tagger(nn.Module):
    """Logits of each token from its embedding; the head makes scores of them for a ranking."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(12, 4), nn.Linear(4, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        outputs = self.head(self.embedding(tokens))
        return outputs[..., 0] if outputs.shape[-1] == 1 else outputs


def rows(count: int, task: str) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of 2 to 9 positions; the longest rows come last."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.rand(count, generator=generator) * 8).int().sort().values + 2
    tokens = [torch.randint(1, 12, (int(n),), generator=generator).tolist() for n in lengths]
    classes = 3 if task == "tokens" else 2
    return [(each, [1, *(token % classes for token in each[1:])]) for each in tokens]


def ewc(tmp_path, count: int, task: str) -> EWC:
    torch.manual_seed(0)
    model = RenateWrapper(Tagger(3 if task == "tokens" else 1))
    ragged = ("inputs", "targets")
    store = ingest(rows(count, task), tmp_path / "new", 1, "train", ragged=ragged)
    learner = EWC(context(task=named(task), model=model), batch_size=4)
    learner.start_update(StoredDataset(store), stored(tmp_path / "none", 0))
    return learner


@pytest.mark.parametrize("kind", ["sampled", "empirical"])
@pytest.mark.parametrize("task", ["tokens", "ranking"])
def test_fisher_does_not_depend_on_the_rows_of_a_block(tmp_path, monkeypatch, task, kind):
    learner = ewc(tmp_path, 90, task)
    whole = diagonal_fisher(learner, 90, kind)
    monkeypatch.setattr(example_gradients, "MOST_EXAMPLES", 7)
    in_blocks = diagonal_fisher(learner, 90, kind)
    for name, value in whole.items():
        torch.testing.assert_close(in_blocks[name], value, rtol=1e-4, atol=1e-6)
    (embedding,) = (value for name, value in whole.items() if name.endswith("embedding.weight"))
    assert not embedding[0].any() and embedding[1:].all(), "token 0 is padding"


@pytest.mark.parametrize("task", ["tokens", "ranking"])
def test_distillation_leaves_out_padding(task):
    torch.manual_seed(0)
    shape = (4, LONGEST, 3) if task == "tokens" else (4, LONGEST)
    student, teacher = torch.randn(shape), torch.randn(shape)
    lengths = torch.tensor([9, 2, 5, 3])
    counted = torch.arange(LONGEST) < lengths[:, None]
    targets = torch.where(counted, 1, -100)
    found = named(task).distillation(student, teacher, 2.0, (), targets)
    parts = [(s[:n] / 2, t[:n] / 2) for s, t, n in zip(student, teacher, lengths, strict=True)]
    kl = [
        F.kl_div(s.log_softmax(-1), t.log_softmax(-1), reduction="sum", log_target=True)
        for s, t in parts
    ]
    divisor = int(counted.sum()) if task == "tokens" else len(parts)
    torch.testing.assert_close(found, 4 * torch.stack(kl).sum() / divisor)
    nothing = named(task).distillation(student, teacher, 2.0, (), torch.full_like(targets, -100))
    assert float(nothing) == 0


@pytest.mark.parametrize("task", ["tokens", "ranking"])
def test_padding_is_never_drawn(task):
    torch.manual_seed(0)
    outputs = torch.randn((50, LONGEST, 3) if task == "tokens" else (50, LONGEST))
    targets = torch.where(torch.arange(LONGEST) < 4, 1, -100).expand(50, LONGEST)
    drawn = named(task).sampled(outputs, torch.rand(50, LONGEST).double(), targets)
    assert (drawn[:, 4:] == -100).all() and (drawn[:, :4] != -100).all()
    assert len(drawn[:, :4].unique()) > 1
