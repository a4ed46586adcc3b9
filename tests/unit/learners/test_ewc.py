"""Online EWC and its Fisher information, compared with explicit loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, context, first_step, stored, take_steps
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.base import example_gradients
from renate_stages.learners.base.fisher import diagonal_fisher
from renate_stages.learners.ewc import EWC
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, RenateModule, SmallCNN
from renate_stages.tasks.classification import Classification
from renate_stages.tasks.custom import Custom
from renate_stages.tasks.regression import Regression


def ewc(tmp_path, rows: int = 12, given=None, **values) -> EWC:
    name = f"{len(list(tmp_path.iterdir()))}"
    learner = EWC(given or context(), **{"batch_size": 4, **values})
    learner.start_update(stored(tmp_path / f"new-{name}", rows), stored(tmp_path / f"no-{name}", 0))
    return learner


def table(learner: EWC, kind: str) -> dict[str, torch.Tensor]:
    (penalty,) = learner.parts
    prefix = f"{kind}/"
    return {
        name.removeprefix(prefix).replace("/", "."): value
        for name, value in penalty.named_buffers()
        if name.startswith(prefix)
    }


def plain_fisher(learner: EWC, targets=None, rows=None) -> dict[str, torch.Tensor]:
    """Return the mean squared gradient of log p, with one autograd call per example."""
    inputs, labels = learner.new.__getitems__(range(len(learner.new)) if rows is None else rows)
    labels = labels if targets is None else targets
    names = dict(learner.model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in names.items()}
    for one, label in zip(inputs, labels, strict=True):
        log_p = learner.model(one[None]).log_softmax(1)[0, label]
        for name, gradient in zip(
            names, torch.autograd.grad(log_p, list(names.values())), strict=True
        ):
            total[name] += gradient**2
    return {name: value / len(inputs) for name, value in total.items()}


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


def test_fisher_is_the_mean_of_squared_per_example_gradients(tmp_path):
    learner = ewc(tmp_path, fisher="empirical")
    take_steps(learner, 3)
    learner.end_training(None)
    expected = plain_fisher(learner)
    close(table(learner, "fisher"), expected)
    inputs, labels = learner.new.__getitems__(range(12))
    loss = F.cross_entropy(learner.model(inputs), labels)
    gradient = torch.autograd.grad(loss, learner.model.head.weight)[0]
    assert (gradient**2).sum() < 0.9 * expected["head.weight"].sum(), "not that of the mean loss"


def test_sampled_fisher_draws_labels_from_the_models_predictions(tmp_path):
    learner = ewc(tmp_path, rows=40)
    with torch.no_grad():
        learner.model.head.bias[1] += 50.0  # the model now always predicts class 1
    close(diagonal_fisher(learner, 100, "sampled"), plain_fisher(learner, torch.ones(40).long()))


def test_sampled_fisher_converges_to_its_expectation(tmp_path):
    learner = ewc(tmp_path, rows=3000)
    found = diagonal_fisher(learner, 3000, "sampled")["head.bias"]
    with torch.no_grad():
        p = learner.model(learner.new.__getitems__(range(3000))[0]).softmax(1)
    torch.testing.assert_close(found, (p * (1 - p)).mean(0), rtol=0.05, atol=0)


def test_labels_are_drawn_with_the_predicted_probabilities():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(4, 1)
    draws = torch.tensor([0.1, 0.3, 0.699, 0.701], dtype=torch.float64)
    assert Classification().sampled(logits, draws[:, None]).tolist() == [0, 1, 1, 2]
    assert Classification().sampled(
        torch.tensor([[-1e4, 0.0, -1e4]]), torch.tensor([[0.0]]).double()
    ).tolist() == [1]


@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_fisher_does_not_depend_on_batch_sizes(tmp_path, kind, monkeypatch):
    found = []
    for batch_size, at_once in ((1, 64), (8, 64), (12, 5), (4, 1)):
        monkeypatch.setattr(example_gradients, "MOST_EXAMPLES", at_once)
        learner = ewc(tmp_path, batch_size=batch_size, fisher=kind)
        learner.end_training(None)
        found.append(table(learner, "fisher"))
    for other in found[1:]:
        close(other, found[0])
    assert found[0]["head.weight"].sum() > 0


def refuse(*_):
    """Take the place of a vectorized call of a model that cannot be vectorized."""
    raise RuntimeError


def test_vectorised_and_per_example_fisher_are_equal(tmp_path, monkeypatch):
    learner = ewc(tmp_path)
    together = diagonal_fisher(learner, 12, "empirical")
    monkeypatch.setattr(example_gradients, "gradients_together", refuse)
    close(diagonal_fisher(learner, 12, "empirical"), together)


class Branching(RenateModule):
    """Model that cannot be vectorised, because its control flow depends on the inputs."""

    def __init__(self) -> None:
        super().__init__({})
        self.one, self.other = nn.Linear(5, CLASSES), nn.Linear(5, CLASSES)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, task_id=None):
        return torch.cat([self.one(row[None]) if row.sum() > 0 else self.other(row[None]) for row in x])  # fmt: skip


def test_fisher_of_a_model_that_cannot_be_vectorised_is_computed_per_example(tmp_path):
    learner = ewc(tmp_path, given=context(model=Branching()))
    found = diagonal_fisher(learner, 12, "empirical")
    assert found["unused.weight"].eq(0).all()
    inputs, labels = learner.new.__getitems__(range(12))
    for name in ("one", "other"):
        total = torch.zeros(CLASSES)
        for x, y in zip(inputs, labels, strict=True):
            if (x.sum() > 0) == (name == "one"):
                p = learner.model(x[None]).softmax(1)[0].detach()
                total += (F.one_hot(y, CLASSES) - p) ** 2
        torch.testing.assert_close(found[f"{name}.bias"], total / 12)


def test_fisher_of_a_convolution_with_group_norm_is_vectorised(tmp_path, monkeypatch):
    with StoreWriter(tmp_path / "images", update=1) as writer:
        writer.append((torch.randn(6, 1, 8, 8).numpy(), torch.arange(6).numpy() % 3))
    images = StoredDataset(ExampleStore.open(tmp_path / "images"))
    learner = EWC(context(model=SmallCNN(1, 3, width=4)))
    learner.start_update(images, stored(tmp_path / "none", 0))
    with monkeypatch.context() as patched:
        patched.setattr(example_gradients, "gradients_one_by_one", None)
        together = diagonal_fisher(learner, 6, "sampled")
    monkeypatch.setattr(example_gradients, "gradients_together", refuse)
    close(diagonal_fisher(learner, 6, "sampled"), together)


def test_fisher_disables_dropout_and_restores_training_mode(tmp_path):
    model = MLP(num_inputs=5, num_outputs=CLASSES, hidden_size=8, dropout=0.5)
    learner = ewc(tmp_path, given=context(model=model))
    learner.train()
    close(*(diagonal_fisher(learner, 12, "sampled") for _ in range(2)))
    assert learner.model.training


def test_fisher_uses_the_requested_number_of_random_examples(tmp_path):
    learner = ewc(tmp_path, rows=30)
    rows = learner.context.generators.numpy("fisher").permutation(30)[:7]
    close(diagonal_fisher(learner, 7, "empirical"), plain_fisher(learner, rows=rows))


def test_fisher_of_a_regression_is_that_of_a_gaussian_with_unit_variance(tmp_path):
    with StoreWriter(tmp_path / "values", update=1) as writer:
        writer.append((torch.randn(4000, 5).numpy(), torch.randn(4000, 3).numpy()))
    values = StoredDataset(ExampleStore.open(tmp_path / "values"))
    learner = EWC(context(task=Regression()))
    learner.start_update(values, stored(tmp_path / "none", 0))
    found = diagonal_fisher(learner, 4000, "sampled")["head.bias"]
    torch.testing.assert_close(found, torch.ones(3), rtol=0.1, atol=0)  # the square of d f / d bias
    inputs, targets = values.__getitems__(range(4000))
    residuals = learner.model(inputs).detach() - targets
    empirical = diagonal_fisher(learner, 4000, "empirical")["head.bias"]
    torch.testing.assert_close(empirical, residuals.square().mean(0))


def test_fisher_of_a_custom_task_uses_the_gradient_of_the_users_loss(tmp_path):
    with StoreWriter(tmp_path / "values", update=1) as writer:
        writer.append((torch.randn(8, 5).numpy(), torch.randn(8, 3).numpy()))
    values = StoredDataset(ExampleStore.open(tmp_path / "values"))
    learner = EWC(context(task=Custom(), loss_fn=nn.MSELoss(reduction="none")))
    learner.start_update(values, stored(tmp_path / "none", 0))
    inputs, targets = values.__getitems__(range(8))
    gradients = 2 / 3 * (learner.model(inputs) - targets)  # of the mean of three squared errors
    found = diagonal_fisher(learner, 8, "sampled")["head.bias"]
    torch.testing.assert_close(found, gradients.square().mean(0).detach())


def test_training_loss_includes_the_quadratic_penalty(tmp_path):
    first = ewc(tmp_path, ewc_weight=7)
    take_steps(first, 3)
    first.end_training(None)
    importance = {name: value.clone() for name, value in table(first, "fisher").items()}
    start = {name: p.detach().clone() for name, p in first.model.named_parameters()}
    given = context(model=first.model, update=2, has_parent=True)
    second = EWC(given, batch_size=4, ewc_weight=7)
    second.restore_learner(*first.learner_state())
    second.start_update(first.new, first.memory)
    take_steps(second, 2)
    batch = first_step(second)
    penalty = sum(
        (importance[name] * (p - start[name]) ** 2).sum()
        for name, p in second.model.named_parameters()
    )
    expected = F.cross_entropy(second.model(batch.new.inputs), batch.new.targets) + 3.5 * penalty
    torch.testing.assert_close(second.loss(batch), expected)
    assert penalty > 0


@pytest.mark.parametrize("decay", [1.0, 0.25, 0])
def test_fisher_accumulates_over_updates_with_fisher_decay(tmp_path, decay):
    first = ewc(tmp_path, fisher="empirical", fisher_decay=decay)
    take_steps(first, 3)
    first.end_training(None)
    old = {name: value.clone() for name, value in table(first, "fisher").items()}
    given = context(model=first.model, update=2, has_parent=True)
    second = EWC(given, batch_size=4, fisher="empirical", fisher_decay=decay)
    second.restore_learner(*first.learner_state())
    second.start_update(stored(tmp_path / "second", 9, first=70), first.memory)
    take_steps(second, 2)
    second.end_training(None)
    expected = plain_fisher(second)
    close(table(second, "fisher"), {n: decay * old[n] + expected[n] for n in expected})
    anchor = table(second, "anchor")
    assert all(torch.equal(anchor[n], p) for n, p in second.model.named_parameters())


def test_new_or_reshaped_parameters_are_reported_and_not_penalized(tmp_path):
    first, messages = ewc(tmp_path), []
    take_steps(first, 3)
    first.end_training(None)
    grown = MLP(num_inputs=5, num_outputs=CLASSES + 2, hidden_size=4)
    second = EWC(context(model=grown, update=2, has_parent=True, say=messages.append))
    second.restore_learner(*first.learner_state())
    second.start_update(first.new, first.memory)
    parameters = "head.weight, head.bias"
    assert messages == [
        f"EWC does not penalize changes of parameters that are new or reshaped: {parameters}"
    ]
    old, new = table(first, "fisher"), table(second, "fisher")
    for name in new:
        if name.startswith("head"):
            assert new[name].eq(0).all()
            assert torch.equal(table(second, "anchor")[name], grown.get_parameter(name))
        else:
            assert torch.equal(new[name], old[name]) and old[name].sum() > 0


def test_frozen_parameters_have_no_fisher_entry(tmp_path):
    given = context()
    given.start.model.features.requires_grad_(False)
    learner = ewc(tmp_path, given=given)
    learner.end_training(None)
    assert set(table(learner, "fisher")) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_fisher_raises_an_error(tmp_path, value):
    learner = ewc(tmp_path)
    with torch.no_grad():
        learner.model.head.weight[0, 0] = value
    with pytest.raises(errors.NotFiniteImportanceError, match="head"):
        learner.end_training(None)


def test_fisher_masks_the_unused_classes_that_training_masks(tmp_path):
    given = context(old_classes=(0,))
    learner = EWC(given, batch_size=4, mask_unused_classes=True)
    learner.start_update(stored(tmp_path / "new", 9, classes=(1,)), stored(tmp_path / "none", 0))
    assert diagonal_fisher(learner, 9, "sampled")["head.bias"][2] == 0


@pytest.mark.parametrize(
    "wrong",
    [{"ewc_weight": -1}, {"fisher_decay": 1.1}, {"fisher_examples": 0}, {"fisher": "batch"}],
)
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        EWC(context(), **wrong)
