"""Weights of rows: the loss of each learner, closed forms, memory, refusals, and scikit-learn."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression
from small_learners import CLASSES, context, first_step, stored, take_steps
from small_updates import VALUES, numbers_of, state_of, updater, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import Batch, StoredDataset, ingest
from renate_stages.data.modules.table import Table
from renate_stages.data.stored import preprocessed
from renate_stages.learners import registry
from renate_stages.learners.base.components import LogitDistillation
from renate_stages.learners.base.fisher import diagonal_fisher
from renate_stages.learners.bic import fitted_correction
from renate_stages.learners.der import DarkExperienceReplay, DarkExperienceReplayPlusPlus
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.nearest_mean import NearestClassMean
from renate_stages.learners.offline_er import OfflineER
from renate_stages.learners.ranpac import RanPAC
from renate_stages.learners.streaming_lda import StreamingLDA
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.memory.row_weights import figures_of, weights_in
from renate_stages.models.module import RenateWrapper
from renate_stages.state import State, state
from renate_stages.tasks import make_task
from renate_stages.training.checks import check_weights
from renate_stages.training.update_data import UpdateData

GENERATOR = np.random.default_rng(0)


def weights_of(rows: int) -> np.ndarray:
    """Return weights in [0, 4], of which the third one is 0."""
    weights = GENERATOR.uniform(0.1, 4, rows)
    weights[2::5] = 0
    return weights


def weighted_mean(loss, weights):
    return (loss * weights).sum() / weights.sum()


def cross_entropy(model, batch: Batch):
    return F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")


@pytest.fixture
def data(tmp_path):
    """Weighted new examples, and a weighted memory with logits."""
    logits = GENERATOR.normal(size=(9, CLASSES)).astype(np.float32)
    new = stored(tmp_path / "new", 12, weight=weights_of(12))
    old = stored(tmp_path / "old", 9, first=50, weight=weights_of(9), logits=logits)
    return new, old


def test_fine_tuning_averages_with_the_weights_of_rows(data):
    new, old = data
    learner = FineTuning(context(), batch_size=5)
    learner.start_update(new, old)
    (batch, draws) = first_step(learner)
    expected = weighted_mean(cross_entropy(learner.model, batch), batch.weights)
    assert not draws and torch.equal(batch.weights, new.weights(batch.rows))
    torch.testing.assert_close(
        learner.training_step(first_step(learner)._replace(new=batch), 0), expected
    )


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_er_divides_by_the_weights_of_new_and_replayed_rows_together(data, forward):
    learner = ExperienceReplay(context(), batch_size=4, memory_batch_size=6, replay_forward=forward)
    learner.start_update(*data)
    batch = first_step(learner)
    both = [batch.new, *batch.memory]
    losses = torch.cat([cross_entropy(learner.model, each) for each in both])
    weights = torch.cat([each.weights for each in both])
    torch.testing.assert_close(learner.loss(batch), weighted_mean(losses, weights))


@pytest.mark.parametrize("kind", [DarkExperienceReplay, DarkExperienceReplayPlusPlus])
def test_der_weights_labels_and_does_not_weight_distillation(data, kind):
    more = {"beta": 0.7} if kind is DarkExperienceReplayPlusPlus else {}
    learner = kind(context(), alpha=0.3, batch_size=4, memory_batch_size=6, **more)
    learner.start_update(*data)
    batch = first_step(learner)
    model, new, (dark, *labelled) = learner.model, batch.new, batch.memory
    assert isinstance(learner.parts[0], LogitDistillation)
    expected = weighted_mean(cross_entropy(model, new), new.weights)
    expected = expected + 0.3 * F.mse_loss(model(dark.inputs), dark.fields["logits"])
    for drawn in labelled:
        expected = expected + 0.7 * weighted_mean(cross_entropy(model, drawn), drawn.weights)
    torch.testing.assert_close(learner.loss(batch), expected)


def test_share_of_new_data_in_offline_er_is_that_of_weights(data):
    learner = OfflineER(context())
    learner.start_update(*data)
    new, old = (float(each.weights(range(len(each))).sum()) for each in data)
    assert learner.share == pytest.approx(new / (new + old))
    assert learner.learner_state()[1]["examples"] == pytest.approx(new + old)


HYPERPARAMETERS = {
    "LatentReplay": {"latent_layer": "features.2"},
    "RanPAC": {"num_random_features": 8},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The same new and remembered rows, with different weights."""
    folder, weights = tmp_path_factory.mktemp("pairs"), [weights_of(12), weights_of(9)]
    kinds = {"some": lambda w: w, "equal": lambda w: np.full_like(w, 0.7), "zero": np.zeros_like}

    def pair(kind: str) -> tuple[StoredDataset, StoredDataset]:
        own = [{} if kind == "none" else {"weight": kinds[kind](each)} for each in weights]
        new = stored(folder / f"{kind}-new", 12, **own[0])
        return new, stored(folder / f"{kind}-old", 9, first=50, **own[1])

    return {kind: pair(kind) for kind in (*kinds, "none")}


@pytest.mark.parametrize("name", registry.LEARNERS)
def test_every_learner_weights_rows_or_refuses_them(name, pairs):
    kind, own = registry.learner_class(name), HYPERPARAMETERS.get(name, {})

    def learner():
        return kind(context(), batch_size=6, **own)

    if name in registry.UNWEIGHTED:
        with pytest.raises(errors.UnweightedLearnerError, match=kind.__name__):
            check_weights(learner(), *pairs["some"])
        return
    losses = {}
    for weights, pair in pairs.items():
        each = learner()
        if not each.automatic_optimization:
            return  # closed forms have no loss; see below
        each.start_update(*pair)
        each.configure_optimizers()  # MIR reads its learning rate
        losses[weights] = each.training_step(first_step(each), 0).detach()
    torch.testing.assert_close(losses["equal"], losses["none"])
    assert abs(losses["some"] - losses["none"]) > 1e-4
    assert losses["zero"].isfinite()


def test_names_of_unweighted_learners_are_those_of_their_classes():
    refused = [n for n in registry.LEARNERS if registry.learner_class(n).weights_rows is False]
    assert {*refused} == {*registry.UNWEIGHTED}
    assert registry.without_weights(["ER", "SCR", "Avalanche-EWC"]) == ["SCR", "Avalanche-EWC"]


def test_batch_of_weight_0_has_loss_0_and_no_gradient(tmp_path):
    weight = np.array([0.0, 0.0, 0.0, 2.0])
    learner = FineTuning(context(), batch_size=4)
    learner.start_update(stored(tmp_path / "new", 4, weight=weight), stored(tmp_path / "old", 0))
    new = Batch.of(learner.new, np.arange(3))
    loss = learner.supervised(learner.pass_on(new))
    loss.backward()
    assert not loss.detach()
    assert all(not each.grad.any() for each in learner.model.parameters())


def written(path, rows, weight=None) -> StoredDataset:
    inputs, labels = INPUTS[rows], LABELS[rows]
    with StoreWriter(path, update=1) as writer:
        writer.append((inputs, labels), {} if weight is None else {"weight": weight})
    return StoredDataset(ExampleStore.open(path))


INPUTS = GENERATOR.normal(size=(30, 5)).astype(np.float32)
LABELS = np.arange(30) % CLASSES
COUNTS = GENERATOR.integers(0, 4, 30)
REPEATED = np.repeat(np.arange(30), COUNTS)


def test_weight_2_equals_a_row_that_is_there_twice_in_a_full_batch_step(tmp_path):
    none, models = stored(tmp_path / "none", 0), []
    once = written(tmp_path / "once", np.arange(30), COUNTS.astype(float))
    for new in (once, written(tmp_path / "repeated", REPEATED)):
        learner = FineTuning(context(), batch_size=1000)
        learner.start_update(new, none)
        take_steps(learner, 1)
        models.append(nn.utils.parameters_to_vector(learner.model.parameters()))
    torch.testing.assert_close(*models)


@pytest.mark.parametrize(
    "kind", [NearestClassMean, StreamingLDA, partial(RanPAC, num_random_features=9)]
)
def test_closed_forms_count_a_row_of_weight_2_twice(tmp_path, kind):
    none, heads = stored(tmp_path / "none", 0), []
    once = written(tmp_path / "once", np.arange(30), COUNTS.astype(float))
    for new in (once, written(tmp_path / "repeated", REPEATED)):
        learner = kind(context())
        learner.start_update(new, none)
        learner.choose_memory(at_once=True)
        learner.end_training(None)
        heads.append(torch.cat([each.flatten() for each in learner.linear.parameters()]))
    torch.testing.assert_close(*heads)


def test_nearest_means_are_numpys_weighted_averages_and_forget_exactly(tmp_path):
    weights = weights_of(30)
    weights[LABELS == 1] = 0  # a class that does not count
    learner = NearestClassMean(context())
    learner.start_update(
        written(tmp_path / "all", np.arange(30), weights), stored(tmp_path / "none", 0)
    )
    learner.choose_memory(at_once=True)
    learner.write_head()
    statistics = learner.statistics
    features = learner._counted(Batch.of(learner.new, np.arange(30))).features.numpy()
    assert statistics.seen.tolist() == [0, 2]
    for mean, label in zip(statistics.means, (0, 2), strict=True):
        of_label = label == LABELS
        exact = weights.astype(np.float32)[of_label]
        expected = np.average(features[of_label], axis=0, weights=exact)
        np.testing.assert_allclose(mean, expected)
    learner.forget(StoredDataset(learner.new.store, np.flatnonzero(LABELS == 0)))
    assert (
        statistics.seen.tolist() == [2]
        and not statistics.counts[0]
        and not statistics.sums[0].any()
    )
    again = type(statistics).of(statistics.tensors(), CLASSES, gram=False)
    counted = int((weights[LABELS == 2] > 0).sum())
    assert again.rows.tolist() == statistics.rows.tolist() == [0, 0, counted]


def test_importance_is_the_weighted_mean_over_rows(tmp_path):
    none, found = stored(tmp_path / "none", 0), []
    once = written(tmp_path / "once", np.arange(30), COUNTS.astype(float))
    for new in (once, written(tmp_path / "repeated", REPEATED)):
        learner = FineTuning(context())
        learner.start_update(new, none)
        found.append(diagonal_fisher(learner, 1000, "empirical"))
    for name, importance in found[0].items():
        torch.testing.assert_close(importance, found[1][name])


def test_bias_correction_weights_rows_within_their_class():
    outputs = torch.randn(30, CLASSES, dtype=torch.float64, generator=torch.manual_seed(0))
    labels, weights = torch.from_numpy(LABELS), torch.from_numpy(weights_of(30))
    of_class = np.array([weights[labels == each].sum() for each in range(CLASSES)])

    def objective(values):
        corrected = outputs.clone()
        corrected[:, 2] = np.exp(0.5 * values[0]) * corrected[:, 2] + 5 * values[1]
        losses = F.cross_entropy(corrected, labels, reduction="none")
        mean = (losses * weights).numpy() @ (1 / of_class[LABELS]) / CLASSES
        return mean + np.square(values).sum() / 60

    found = fitted_correction(outputs, labels, [0, 1, 2], [2], weights)
    alpha, beta = minimize(objective, np.zeros(2)).x
    assert found == pytest.approx((np.exp(0.5 * alpha), 5 * beta), rel=1e-3)


class OwnLoss(FineTuning):
    """A learner that computes its loss itself."""

    def loss(self, batch):
        return F.cross_entropy(self(batch.new.inputs), batch.new.targets)


def test_own_learner_that_ignores_weights_is_refused_in_its_first_step(data):
    learner = OwnLoss(context())
    learner.start_update(*data)
    with pytest.raises(errors.UnweightedLearnerError, match="OwnLoss would ignore the weights"):
        learner.training_step(first_step(learner), 0)


# -- over updates ---------------------------------------------------------------------------------


def empty(folder) -> State:
    state.write_empty(folder)
    return State.open(folder)


def test_remembered_rows_keep_their_weights_over_two_updates(tmp_path):
    parent, weights = empty(tmp_path / "parent"), weights_of(30)
    first = write_examples(tmp_path / "first", 30, weight=weights)
    values = {**VALUES, "memory_update": "online"}
    made = updater("DER++", values, max_epochs=1)
    updated = made.update(UpdateData(parent, first))
    after = state_of(tmp_path / "state-1", updated, 1, parent=parent, new=first)
    memory = after.memory()
    expected = weights[numbers_of(memory, np.arange(len(memory)))].astype(np.float32)
    np.testing.assert_array_equal(weights_in(memory), expected)

    second = write_examples(tmp_path / "second", 30, first=30)  # without weights
    updated = updater("DER++", values, number=2, max_epochs=1).update(UpdateData(after, second))
    memory = state_of(tmp_path / "state-2", updated, 2, parent=after, new=second).memory()
    numbers = np.array(numbers_of(memory, np.arange(len(memory))))
    assert (numbers < 30).any() and (numbers >= 30).any()
    expected = np.append(weights, np.ones(30))[numbers].astype(np.float32)
    np.testing.assert_array_equal(weights_in(memory), expected)
    assert memory.known("weight").tolist() == (numbers < 30).tolist()


@pytest.mark.parametrize(
    ("learner", "weight", "functions", "error"),
    [
        ("iCaRL", 1.0, {}, errors.UnweightedLearnerError),
        ("ER", 0.0, {}, errors.NoRowWeighsError),
        ("ER", 1.0, {"loss_fn": lambda: F.cross_entropy}, errors.UnweightedLossError),
    ],
)
def test_what_cannot_use_weights_is_refused_before_training(
    tmp_path, learner, weight, functions, error
):
    parent = empty(tmp_path / "parent")
    new = write_examples(tmp_path / "new", 20, weight=np.full(20, weight))
    with pytest.raises(error, match="To fix this: "):
        updater(learner, functions=functions).update(UpdateData(parent, new))


def test_learners_that_do_not_call_the_loss_take_one_that_returns_a_mean(tmp_path):
    parent, made = (
        empty(tmp_path / "parent"),
        updater("NCM", functions={"loss_fn": lambda: F.cross_entropy}),
    )
    new = write_examples(tmp_path / "new", 20, weight=weights_of(20))
    assert made.update(UpdateData(parent, new)).learner.statistics.rows.sum() == 16


def test_weighted_regression_on_a_table_approaches_that_of_scikit_learn(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    frame["y"] = 2 * frame["a"] - frame["b"] + np.where(np.arange(60) < 30, 1.0, -1.0) * frame["a"]
    frame["importance"] = np.where(np.arange(60) < 30, 5.0, 0.5)
    module = Table(tmp_path, target="y", weight="importance", task="regression", frame=frame)
    module.setup()
    store = ingest(module.train_data(), tmp_path / "store", 1, "train")
    new = StoredDataset(
        store, None, preprocessed(module.preprocessing, lambda each: each["numeric"])
    )
    module.preprocessing.fit(store)
    model = RenateWrapper(nn.Linear(2, 1))
    learner = FineTuning(context(model=model, task=make_task("regression")), batch_size=60)
    learner.start_update(new, stored(tmp_path / "none", 0))
    for _ in range(150):
        take_steps(learner, 1)
    inputs, targets = (each.numpy() for each in new.__getitems__(range(60)))
    fitted = LinearRegression().fit(inputs, targets, sample_weight=frame["importance"])
    plain = LinearRegression().fit(inputs, targets)
    weight, bias = model.parameters()
    np.testing.assert_allclose(weight.detach().numpy(), fitted.coef_.reshape(1, -1), atol=1e-3)
    np.testing.assert_allclose(bias.detach().numpy(), np.ravel(fitted.intercept_), atol=1e-3)
    assert np.abs(fitted.coef_ - plain.coef_).max() > 0.3
    assert figures_of(store) == {"least": 0.5, "mean": 2.75, "largest": 5.0, "zero": 0}
