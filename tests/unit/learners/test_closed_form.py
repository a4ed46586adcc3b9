"""Closed-form learners compared with NumPy references: equations, data order and forgetting."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_learners import CLASSES, context, stored
from small_updates import updater, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.base.closed_form import ClosedFormLearner
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.nearest_mean import NearestClassMean
from renate_stages.learners.ranpac import GRID, RIDGE, RanPAC
from renate_stages.learners.streaming_lda import StreamingLDA
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, RenateModule, SmallCNN
from renate_stages.models.feature_classifier import FeatureClassifier
from renate_stages.models.heads import RandomFeatureHead
from renate_stages.models.module import RenateWrapper
from renate_stages.models.stored import read_tensors, write_tensors
from renate_stages.training.update_data import UpdateData

KINDS = [NearestClassMean, StreamingLDA, partial(RanPAC, num_random_features=40)]
NAMES = ["NCM", "SLDA", "RanPAC"]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=NAMES)


def plain_model(outputs: int = CLASSES) -> MLP:
    """Build a model whose features are its inputs, so batch sizes cause no rounding differences."""
    return MLP(num_inputs=5, num_outputs=outputs, num_hidden_layers=0)


def examples(seed: int = 0, rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Return imbalanced Gaussian classes (rows, 5) float32 with different means."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(CLASSES, rows, p=[0.5, 0.3, 0.2])
    centres = np.array([[0, 0, 0, 0, 0], [2, 0, 1, 0, 0], [0, 2, -1, 0, 0]])
    inputs = centres[labels] + generator.normal(size=(rows, 5)) * [1, 2, 0.5, 1, 3] + 1
    return inputs.astype(np.float32), labels


def store_of(path, inputs: np.ndarray, labels: np.ndarray) -> StoredDataset:
    with StoreWriter(path, update=1) as writer:
        if len(labels):
            writer.append((inputs, labels))
    return StoredDataset(ExampleStore.open(path))


def nothing(tmp_path) -> StoredDataset:
    folder = tmp_path / "nothing"
    return StoredDataset(ExampleStore.open(folder)) if folder.exists() else stored(folder, 0)


def trained(learner: ClosedFormLearner, new: StoredDataset, memory: StoredDataset):
    """Run the training part of an update without Lightning."""
    learner.start_update(new, memory)
    for number, batch in enumerate(learner.train_dataloader()):
        learner.training_step(batch, number)
    learner.end_training(None)
    return learner


def next_learner(kind, before, folder, **values):
    """Create the learner of the next update from files of model and learner, like a state's."""
    folder.mkdir()
    tensors, plain = before.learner_state()
    write_tensors(folder / "learner.safetensors", tensors)
    (folder / "learner.json").write_text(json.dumps(plain))
    torch.save(before.model.state_dict(), folder / "model.pt")
    state = torch.load(folder / "model.pt", weights_only=True)
    model = type(before.model).from_state_dict(state)
    learner = kind(context(update=2, model=model, has_parent=True, say=lambda _: None), **values)
    found = json.loads((folder / "learner.json").read_text())
    learner.restore_learner(read_tensors(folder / "learner.safetensors"), found)
    return learner


def scores(learner, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return learner.model.eval()(torch.from_numpy(inputs)).double().numpy()


def apart(values: np.ndarray) -> np.ndarray:
    """Subtract from each row of scores its mean over the classes."""
    return values - values.mean(1, keepdims=True)


# -- the equations ---------------------------------------------------------------------------------


def test_ncm_scores_are_negative_squared_distances_to_class_means(tmp_path):
    inputs, labels = examples()
    learner = trained(
        NearestClassMean(context(model=plain_model())),
        store_of(tmp_path / "new", inputs, labels),
        nothing(tmp_path),
    )
    test, _ = examples(1, 300)
    means = np.stack([inputs[labels == k].astype(float).mean(0) for k in range(CLASSES)])
    distances = ((test[:, None] - means) ** 2).sum(2)
    found = scores(learner, test)
    assert np.array_equal(found.argmax(1), distances.argmin(1))
    np.testing.assert_allclose(apart(found), apart(-distances), atol=1e-4)


def test_slda_scores_match_the_papers_equation(tmp_path):
    inputs, labels = examples()
    learner = trained(
        StreamingLDA(context(model=plain_model()), shrinkage=0.05),
        store_of(tmp_path / "new", inputs, labels),
        nothing(tmp_path),
    )
    x = inputs.astype(float)
    means = np.stack([x[labels == k].mean(0) for k in range(CLASSES)])
    within = x - means[labels]
    inverse = np.linalg.inv(0.95 * within.T @ within / len(x) + 0.05 * np.eye(5))
    biases = [-mean @ inverse @ mean / 2 for mean in means]
    test, _ = examples(1, 300)
    expected = test @ (inverse @ means.T) + biases
    np.testing.assert_allclose(apart(scores(learner, test)), apart(expected), rtol=1e-4, atol=1e-4)


def test_slda_scores_match_scikit_learn_lda_with_equal_priors(tmp_path):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    inputs, labels = examples()
    means = np.stack([inputs[labels == k].mean(0) for k in range(CLASSES)])
    spread = np.trace(np.cov((inputs - means[labels]).T, bias=True)) / 5
    inputs /= np.sqrt(spread, dtype=np.float32)  # scikit-learn shrinks towards the mean variance
    learner = trained(
        StreamingLDA(context(model=plain_model()), shrinkage=0.3),
        store_of(tmp_path / "new", inputs, labels),
        nothing(tmp_path),
    )
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(
        inputs.astype(float), labels
    )
    test, _ = examples(1, 300)
    expected = peer.decision_function(test) - np.log(peer.priors_)
    np.testing.assert_allclose(apart(scores(learner, test)), apart(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [0, 40])
def test_ranpac_scores_match_ridge_regression_on_random_features(tmp_path, number):
    inputs, labels = examples()
    learner = trained(
        RanPAC(context(model=plain_model()), num_random_features=number, ridge=0.01),
        store_of(tmp_path / "new", inputs, labels),
        nothing(tmp_path),
    )
    test, _ = examples(1, 300)
    x, z = inputs.astype(float), test.astype(float)
    if number:
        projection = learner.model.head.projection.double().numpy()
        assert projection.shape == (5, 40)
        x, z = np.maximum(x @ projection, 0), np.maximum(z @ projection, 0)
    gram = x.T @ x
    ridge = 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram))
    expected = z @ np.linalg.solve(gram + ridge, x.T @ np.eye(CLASSES)[labels])
    np.testing.assert_allclose(scores(learner, test), expected, rtol=1e-3, atol=1e-4)


def test_random_features_have_about_the_norm_of_the_features():
    head = RandomFeatureHead(50, 4000, 3, torch.Generator().manual_seed(0))
    features = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    random = torch.relu(features @ head.projection)
    ratio = random.norm(dim=1) / features.norm(dim=1)
    assert ratio.min() > 0.9 and ratio.max() < 1.1


# -- any split, any order --------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("split", ["shuffled", "by class", "one by one"])
def test_data_split_and_order_do_not_change_the_statistics(tmp_path, kind, split):
    inputs, labels = examples()
    whole = trained(
        kind(context(model=plain_model()), batch_size=1000),
        store_of(tmp_path / "all", inputs, labels),
        nothing(tmp_path),
    )
    order = np.random.default_rng(3).permutation(len(labels))
    parts = np.array_split(order, 3)
    if split == "by class":
        parts = [np.flatnonzero(labels == k) for k in (2, 0, 1)]
    learner = None
    for number, part in enumerate(parts):
        values = {"batch_size": 1 if split == "one by one" else 7}  # the last batch is smaller
        if learner is None:
            learner = kind(context(model=plain_model()), **values)
        else:
            learner = next_learner(kind, learner, tmp_path / f"state-{number}", **values)
        new = store_of(tmp_path / str(number), inputs[part], labels[part])
        trained(learner, new, nothing(tmp_path))
    assert learner is not None
    tensors, expected = learner.learner_state()[0], whole.learner_state()[0]
    assert tensors.keys() == expected.keys() >= {"counts", "sums"}
    for name in tensors:
        torch.testing.assert_close(tensors[name], expected[name], rtol=1e-9, atol=1e-9)
    test, _ = examples(1, 500)
    assert np.array_equal(scores(learner, test).argmax(1), scores(whole, test).argmax(1))


@every_kind
def test_restoring_the_learner_between_updates_changes_no_bit(tmp_path, kind):
    (first, of_first), (second, of_second) = examples(0), examples(1)
    one, two = (
        store_of(tmp_path / "1", first, of_first),
        store_of(tmp_path / "2", second, of_second),
    )
    uninterrupted = trained(kind(context(model=plain_model())), one, nothing(tmp_path))
    restored = next_learner(kind, uninterrupted, tmp_path / "state")
    for learner in (uninterrupted, restored):
        trained(learner, two, nothing(tmp_path))
    for name, value in uninterrupted.learner_state()[0].items():
        assert torch.equal(value, restored.learner_state()[0][name])
    assert torch.equal(uninterrupted.linear.weight, restored.linear.weight)
    assert torch.equal(uninterrupted.linear.bias, restored.linear.bias)
    assert restored.statistics is not None and restored.statistics.counts.sum() == 180


@every_kind
def test_training_resumed_after_its_epoch_solves_for_the_same_head(tmp_path, kind):
    new = store_of(tmp_path / "new", *examples())
    whole = kind(context(model=plain_model()))
    whole.start_update(new, nothing(tmp_path))
    for batch in whole.train_dataloader():
        whole.training_step(batch, 0)
    resumed = kind(context(model=plain_model()))
    resumed.start_update(new, nothing(tmp_path))
    resumed.restore_position(whole.position())
    for learner in (whole, resumed):
        learner.end_training(None)
    assert torch.equal(whole.linear.weight, resumed.linear.weight)
    assert whole.linear.weight.any()


# -- forgetting ------------------------------------------------------------------------------------


@every_kind
def test_forgetting_equals_training_without_the_forgotten_examples(tmp_path, kind):
    inputs, labels = examples()
    gone = np.r_[np.arange(0, 60, 7), np.flatnonzero(labels == 2)]  # includes all of class 2
    gone = np.unique(gone)
    stays = np.setdiff1d(np.arange(len(labels)), gone)
    new = store_of(tmp_path / "all", inputs, labels)
    before = trained(kind(context(model=plain_model())), new, nothing(tmp_path))
    learner = next_learner(kind, before, tmp_path / "state")
    learner.forget(StoredDataset(new.store, gone))
    never = store_of(tmp_path / "stays", inputs[stays], labels[stays])
    without = trained(kind(context(model=plain_model())), never, nothing(tmp_path))
    assert learner.statistics is not None and without.statistics is not None
    for found, expected in zip(
        learner.solve(learner.statistics), without.solve(without.statistics), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(learner.linear.weight, without.linear.weight)
    test, _ = examples(1, 500)
    assert np.array_equal(scores(learner, test).argmax(1), scores(without, test).argmax(1))
    assert not (scores(learner, test).argmax(1) == 2).any()
    assert not learner.statistics.sums[2].any(), "the sums of a fully forgotten class are zero"


@every_kind
def test_forgetting_all_examples_resets_the_learner(tmp_path, kind):
    new = store_of(tmp_path / "all", *examples())
    learner = trained(kind(context(model=plain_model())), new, nothing(tmp_path))
    learner.forget(new)
    assert not scores(learner, examples(1)[0]).any()
    assert "counts" not in learner.learner_state()[0]


def test_forgetting_more_examples_than_were_counted_is_refused(tmp_path):
    new = store_of(tmp_path / "all", *examples())
    learner = trained(NearestClassMean(context(model=plain_model())), new, nothing(tmp_path))
    with pytest.raises(errors.NotCountedError, match="200 examples of class"):
        learner.forget(StoredDataset(new.store, np.zeros(200, dtype=np.int64)))


@pytest.mark.parametrize("name", NAMES)
def test_forget_update_equals_training_without_the_forgotten_rows(tmp_path, make_state, name):
    values = {"memory_size": 1000, "num_random_features": 30}
    functions = {"model_fn": lambda model_state_url=None: load_or_build(model_state_url)}
    new = write_examples(tmp_path / "new", 40)
    first = updater(name, values, functions=functions).update(UpdateData(make_state(), new))
    parent = state_of(tmp_path / "state", first, new)
    rows, gone = np.ones(40, dtype=bool), np.array([3, 4, 20])
    rows[gone] = False
    forgot = updater(name, values, number=2, functions=functions).carry_over(
        UpdateData(parent, new, memory_rows=rows, forgotten=StoredDataset(new, gone))
    )
    with StoreWriter(tmp_path / "rest", update=1) as writer:
        writer.append(new.gather(np.flatnonzero(rows)))
    rest = ExampleStore.open(tmp_path / "rest")
    without = updater(name, values, functions=functions).update(UpdateData(make_state(), rest))
    for one, other in zip(forgot.model.parameters(), without.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    tensors, expected = forgot.learner.learner_state()[0], without.learner.learner_state()[0]
    for key in expected:
        torch.testing.assert_close(tensors[key], expected[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_forget_update_without_matching_rows_changes_no_bit(tmp_path, make_state, name):
    functions = {"model_fn": lambda model_state_url=None: load_or_build(model_state_url)}
    new = write_examples(tmp_path / "new", 40)
    values = {"num_random_features": 30}
    first = updater(name, values, functions=functions).update(UpdateData(make_state(), new))
    parent = state_of(tmp_path / "state", first, new)
    every, none = np.ones(40, dtype=bool), StoredDataset(new, np.empty(0, dtype=np.int64))
    data = UpdateData(parent, new, memory_rows=every, forgotten=none)
    again = updater(name, values, number=2, functions=functions).carry_over(data)
    for key, value in first.model.state_dict().items():
        assert key == "_extra_state" or torch.equal(value, again.model.state_dict()[key])
    for key, value in first.learner.learner_state()[0].items():
        assert torch.equal(value, again.learner.learner_state()[0][key])


def load_or_build(model_state_url: str | None) -> MLP:
    if model_state_url is None:
        return plain_model()
    return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))


def state_of(folder, updated, store: ExampleStore):
    """Write a state with the trained model, its learner and the examples of `store` as memory."""
    from renate_stages.memory import link_store
    from renate_stages.models.stored import write_model
    from renate_stages.state import Provenance, State, state
    from renate_stages.training.updated_model import write_learner

    state.write_empty(folder)
    for path in sorted((folder / "memory").iterdir()):
        path.unlink()
    (folder / "memory").rmdir()
    link_store(store.path, folder / "memory")
    write_model(folder, updated.model)
    write_learner(folder, updated.learner)
    state.write_manifest(folder, Provenance("update", 1, classes=(0, 1, 2)))
    return State.open(folder)


# -- classes ---------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("classes", [(0, 1), (1, 2), (2,)])
def test_class_without_examples_is_never_predicted(tmp_path, kind, classes):
    inputs, labels = examples()
    rows = np.isin(labels, classes)
    new = store_of(tmp_path / "new", inputs[rows], labels[rows])
    learner = trained(kind(context(model=plain_model())), new, nothing(tmp_path))
    directions = np.random.default_rng(5).normal(size=(2000, 5)).astype(np.float32)
    for far in (0.0, 1.0, 1000.0):
        found = scores(learner, directions * np.float32(far))
        assert np.isfinite(found).all()
        assert np.isin(found.argmax(1), classes).all()
    assert learner.linear.bias.abs().max() < 1e4, "gradient learners can still change the bias"


@every_kind
def test_statistics_are_kept_when_the_model_gains_classes(tmp_path, kind):
    inputs, labels = examples()
    first = trained(
        kind(context(model=plain_model())),
        store_of(tmp_path / "1", inputs, labels),
        nothing(tmp_path),
    )
    tensors, values = first.learner_state()
    grown = plain_model(outputs=5)
    if isinstance(first.head, RandomFeatureHead):
        grown.use_random_features(40)
        grown.head.projection.copy_(first.head.projection)
    second = kind(context(update=2, model=grown, has_parent=True))
    second.restore_learner(tensors, values)
    trained(second, store_of(tmp_path / "2", inputs + 9, labels + 2), nothing(tmp_path))
    assert second.statistics is not None
    expected = np.bincount(labels, minlength=5) + np.bincount(labels + 2, minlength=5)
    assert second.statistics.counts.tolist() == expected.tolist()
    found = scores(second, inputs + 9).argmax(1)
    assert (found >= 2).mean() > 0.9 and 4 in found


# -- inputs and models -----------------------------------------------------------------------------


class Normalised(RenateModule):
    """User model with batch norm, dropout, and a normalisation between features and head."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__(constructor_arguments={"bias": bias})
        self.features = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(6, CLASSES, bias=bias)

    def forward(self, x, task_id=None):
        return self.head(nn.functional.normalize(self.features(x)))


def test_training_changes_only_the_head_and_uses_evaluation_mode_features(tmp_path, make_state):
    new = write_examples(tmp_path / "new", 30)
    made = updater("NCM", {"batch_size": 8}, functions={"model_fn": Normalised}, max_epochs=7)
    before = made.build_model(None)
    updated = made.update(UpdateData(make_state(), new, {1: new}))
    after = updated.model.state_dict()
    for name, value in before.state_dict().items():
        if name != "_extra_state" and not name.startswith("head."):
            assert torch.equal(value, after[name]), name
    assert after["features.1.num_batches_tracked"] == 0
    x, labels = (torch.from_numpy(part) for part in new.gather(np.arange(30)))
    with torch.no_grad():
        features = nn.functional.normalize(before.eval().features(x)).double()
        means = torch.stack([features[labels == k].mean(0) for k in range(CLASSES)])
        expected = torch.cdist(features, means).argmin(1)
        assert torch.equal(updated.model(x).argmax(1), expected)
    assert [row["epoch"] for row in updated.curves] == [1], "one epoch, whatever max_epochs is"
    assert updated.steps == 0 and "train_loss" not in updated.curves[0]
    assert updated.curves[0]["val_accuracy"] == pytest.approx(
        (expected == labels).float().mean().item()
    )


def test_training_uses_test_transforms_instead_of_train_transforms(tmp_path):
    inputs, labels = examples()
    new = store_of(tmp_path / "new", inputs, labels)
    augmented = StoredDataset(new.store, None, torch.zeros_like)
    learner = NearestClassMean(
        context(model=plain_model(), test_transforms=(lambda x: x * 2, lambda y: 2 - y))
    )
    trained(learner, augmented, nothing(tmp_path))
    assert learner.statistics is not None
    expected = 2 * inputs[labels == 0].astype(float).sum(0)
    np.testing.assert_allclose(learner.statistics.sums[2].numpy(), expected, rtol=1e-12)


def test_gradient_clipping_and_mixed_precision_do_not_change_the_head(tmp_path, make_state):
    new = write_examples(tmp_path / "new", 30)
    found = [
        updater("SLDA", {}, **trainer).update(UpdateData(make_state(), new)).model.head.weight
        for trainer in ({}, {"gradient_clip_val": 1.0, "precision": "bf16-mixed"})
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [*KINDS, RanPAC], ids=[*NAMES, "RanPAC 2000"])
def test_model_with_per_task_heads_is_refused(kind):
    model = MLP(num_inputs=5, num_outputs=CLASSES, heads="per_task")
    model.add_task_params("default_task")
    with pytest.raises(errors.UnfitHeadError, match=r'one head for each task.*\n.*heads="shared"'):
        kind(context(model=model))


@every_kind
def test_model_without_a_linear_head_is_refused(kind):
    for model in (nn.Linear(5, 3), nn.Sequential(nn.Linear(5, 3))):
        with pytest.raises(errors.UnfitHeadError, match="has no `head`"):
            kind(context(model=RenateWrapper(model)))
    odd = Normalised()
    odd.head = nn.Sequential(nn.Linear(6, CLASSES))  # type: ignore[assignment]
    with pytest.raises(errors.UnfitHeadError, match="Sequential"):
        kind(context(model=odd))


def test_user_model_head_must_meet_the_learners_requirements(tmp_path):
    with pytest.raises(errors.UnfitHeadError, match="RandomFeatureHead of 2000"):
        RanPAC(context(model=Normalised()))
    RanPAC(context(model=Normalised()), num_random_features=0)
    with pytest.raises(errors.UnfitHeadError, match="without a bias"):
        NearestClassMean(context(model=Normalised(bias=False)))
    own = Normalised()
    own.head = RandomFeatureHead(6, 15, CLASSES)  # type: ignore[assignment]
    with pytest.raises(errors.UnfitHeadError, match=r"make the head a torch\.nn\.Linear"):
        NearestClassMean(context(model=own))
    learner = RanPAC(context(model=own))
    trained(learner, store_of(tmp_path / "new", *examples()), nothing(tmp_path))
    assert learner.linear.weight.shape == (CLASSES, 15) and learner.linear.weight.any()


@every_kind
@pytest.mark.parametrize(
    ("labels", "error", "reports"),
    [
        (np.zeros(9, np.float32), errors.ClassLabelsNeededError, "float32"),
        (np.zeros(9, bool), errors.ClassLabelsNeededError, "bool"),
        (np.zeros((9, 2), np.int64), errors.ClassLabelsNeededError, r"\(2,\)"),
        (np.arange(9) // 2, errors.LabelOutOfRangeError, "label 3.*3 outputs"),
        (np.arange(9) // 8 - 1, errors.LabelOutOfRangeError, "label -1"),
    ],
)
def test_targets_that_are_not_class_labels_are_refused_before_training(
    tmp_path, kind, labels, error, reports
):
    new = store_of(tmp_path / "new", np.zeros((9, 5), np.float32), labels)
    learner = kind(context(model=plain_model()))
    with pytest.raises(error, match=reports):
        learner.start_update(new, nothing(tmp_path))
    assert isinstance(learner.head, nn.Linear), "the model is unchanged"


def test_non_finite_features_are_refused(tmp_path):
    inputs, labels = examples()
    inputs[5, 2] = np.nan
    new = store_of(tmp_path / "new", inputs, labels)
    with pytest.raises(errors.FeaturesNotFiniteError, match="RanPAC"):
        trained(RanPAC(context(model=plain_model())), new, nothing(tmp_path))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (StreamingLDA, {"shrinkage": 0}),
        (StreamingLDA, {"shrinkage": 1.5}),
        (RanPAC, {"ridge": 0}),
        (RanPAC, {"ridge": "best"}),
        (RanPAC, {"num_random_features": -1}),
        (RanPAC, {"num_random_features": 2.5}),
        (NearestClassMean, {"memory_size": -1}),
    ],
)
def test_hyperparameter_outside_its_range_is_refused(kind, wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        kind(context(model=plain_model()), **wrong)


# -- switching between learners --------------------------------------------------------------------


@every_kind
def test_after_another_learner_statistics_are_computed_from_the_memory(tmp_path, kind):
    (old, of_old), (new, of_new) = examples(0, 30), examples(1, 50)
    memory = store_of(tmp_path / "old", old, of_old)
    reports = []
    learner = kind(context(update=2, model=plain_model(), has_parent=True, say=reports.append))
    earlier = ExperienceReplay(context(model=plain_model()))
    learner.restore_learner(*earlier.learner_state())
    trained(learner, store_of(tmp_path / "new", new, of_new), memory)
    assert learner.statistics is not None
    expected = np.bincount(np.r_[of_old, of_new], minlength=CLASSES)
    assert learner.statistics.counts.tolist() == expected.tolist()
    assert "uses only the memory's 30 examples of earlier data" in reports[-1]


@every_kind
def test_memory_examples_of_the_same_learner_are_not_counted_twice(tmp_path, kind):
    one = store_of(tmp_path / "1", *examples(0))
    first = trained(kind(context(model=plain_model()), memory_size=20), one, nothing(tmp_path))
    chosen = first.choose_memory().selection
    assert len(chosen.added) == 20
    second = next_learner(kind, first, tmp_path / "state", memory_size=20)
    two = store_of(tmp_path / "2", *examples(1))
    trained(second, two, StoredDataset(one.store, chosen.added))
    assert second.statistics is not None and second.statistics.counts.sum() == 180
    kept, added = second.choose_memory().selection
    assert len(kept) + len(added) == 20 and second.policy.state()["seen"] == 180  # type: ignore


@pytest.mark.parametrize("without", [{}, {"memory_size": None}, {"memory_size": 0}])
def test_no_memory_is_kept_unless_memory_size_is_set(tmp_path, without):
    one = store_of(tmp_path / "1", *examples(0))
    first = trained(NearestClassMean(context(model=plain_model()), **without), one, one)
    assert [len(rows) for rows in first.choose_memory().selection] == [0, 0]


@every_kind
def test_statistics_are_discarded_when_the_features_have_changed(tmp_path, kind):
    one, two = store_of(tmp_path / "1", *examples(0)), store_of(tmp_path / "2", *examples(1, 40))
    first = trained(kind(context()), one, nothing(tmp_path))
    reports = []
    second = next_learner(kind, first, tmp_path / "state")
    second.context = replace(second.context, say=reports.append)
    with torch.no_grad():  # as if another learner or the user had trained it
        second.model.features[1].weight.add_(0.01)  # type: ignore[union-attr, index]
    trained(second, two, nothing(tmp_path))
    assert second.statistics is not None and second.statistics.counts.sum() == 40
    assert "uses nothing of earlier data" in reports[-1]


def test_closed_form_learners_reuse_compatible_statistics_of_each_other(tmp_path):
    one, two = store_of(tmp_path / "1", *examples(0)), store_of(tmp_path / "2", *examples(1, 40))
    counted = {}
    for before, after in [
        (StreamingLDA, NearestClassMean),
        (NearestClassMean, StreamingLDA),
        (KINDS[2], NearestClassMean),
        (StreamingLDA, KINDS[2]),
        (StreamingLDA, partial(RanPAC, num_random_features=0)),
        (KINDS[2], partial(RanPAC, num_random_features=50)),
        (KINDS[2], RanPAC),
    ]:
        first = trained(before(context(model=plain_model())), one, nothing(tmp_path))
        second = next_learner(after, first, tmp_path / f"state-{len(counted)}")
        trained(second, two, nothing(tmp_path))
        assert second.statistics is not None
        counted[len(counted)] = int(second.statistics.counts.sum())
        assert second.linear.in_features == second.statistics.sums.shape[1]
    assert list(counted.values()) == [130, 40, 40, 40, 130, 40, 130]


@every_kind
def test_examples_of_an_imported_model_are_included_in_the_statistics(tmp_path, kind):
    old = store_of(tmp_path / "old", *examples(0))
    first = kind(context(update=0, model=plain_model()))
    first.start_update(old, nothing(tmp_path))
    first.choose_memory(at_once=True)
    tensors, values = first.learner_state()
    given = plain_model()  # the state stores the imported model unchanged
    second = kind(context(update=1, model=given, has_parent=True))
    second.restore_learner(tensors, values)
    trained(second, store_of(tmp_path / "new", *examples(1, 40)), nothing(tmp_path))
    assert second.statistics is not None and second.statistics.counts.sum() == 130


@pytest.mark.parametrize("other", ["ER", "Joint", "FineTuning", "DER++", "CLS-ER"])
def test_ranpac_and_gradient_learners_can_alternate_between_updates(tmp_path, make_state, other):
    functions = {"model_fn": lambda model_state_url=None: load_or_build(model_state_url)}
    new = write_examples(tmp_path / "new", 40)
    values = {"num_random_features": 30, "memory_size": 20}
    updated, parent = None, make_state()
    for number, name in enumerate(["RanPAC", other, "RanPAC", other], 1):
        made = updater(name, values, number=number, functions=functions)
        updated = made.update(UpdateData(parent, new, {1: new}))
        assert np.isfinite(updated.curves[-1]["val_loss"])
        parent = state_of(tmp_path / f"state-{number}", updated, new)
        again = made.build_model(parent.folder)
        x = torch.from_numpy(new.gather(np.arange(40))[0])
        assert torch.equal(again.eval()(x), updated.model(x)), "outputs are equal after a restore"


# -- the ridge -------------------------------------------------------------------------------------


def test_ranpac_ridge_is_chosen_on_validation_data(tmp_path):
    new = store_of(tmp_path / "new", *examples())
    reports = []
    learner = RanPAC(
        context(model=plain_model(), say=reports.append), num_random_features=40, ridge="validation"
    )
    learner.start_update(new, nothing(tmp_path))
    for batch in learner.train_dataloader():
        learner.training_step(batch, 0)
    tried = []

    def measure(model):
        tried.append(model.head.linear.weight.clone())
        return {"loss": 1.0, "accuracy": 0.9 if len(tried) in (3, 5) else 0.5}

    learner.end_training(measure)
    assert len(tried) == len(GRID) and learner.ridge == GRID[4], "ties go to the larger ridge"
    assert torch.equal(learner.linear.weight, tried[4])
    assert not torch.equal(tried[4], tried[3])
    assert "0.001" in reports[-1]
    again = next_learner(RanPAC, learner, tmp_path / "state", ridge="validation")
    assert again.ridge == GRID[4], "forgetting uses the same ridge"


def test_ranpac_ridge_is_the_default_without_validation_data(tmp_path):
    new = store_of(tmp_path / "new", *examples())
    found = []
    for ridge in ("validation", RIDGE):
        learner = RanPAC(context(model=plain_model()), num_random_features=40, ridge=ridge)
        found.append(trained(learner, new, nothing(tmp_path)).linear.weight)
    assert torch.equal(*found)


# -- models with random features -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (partial(MLP, 12, 4, hidden_size=6), torch.rand(3, 3, 2, 2)),
        (partial(SmallCNN, 3, 4, width=4), torch.rand(3, 3, 8, 8)),
    ],
)
def test_reference_models_support_random_features(model, x, tmp_path):
    given, later = model(random_features=9), model()
    before = later.features(x)
    later.use_random_features(9, torch.Generator().manual_seed(0))
    nn.init.normal_(later.head.linear.weight)
    for each in (given, later):
        expected = torch.relu(each.features(x) @ each.head.projection) @ each.head.linear.weight.T
        torch.testing.assert_close(each(x), expected + each.head.linear.bias)
        assert not any("projection" in name for name, _ in each.named_parameters())
        torch.save(each.state_dict(), tmp_path / "model.pt")
        state = torch.load(tmp_path / "model.pt", weights_only=True)
        for again in (type(each).from_state_dict(state), model()):
            again.load_state_dict(state)
            assert torch.equal(again(x), each(x)) and again.random_features == 9
    assert torch.equal(later.features(x), before)
    plain = model()
    assert "random_features" not in plain.get_extra_state()["constructor_arguments"]
    later.load_state_dict(plain.state_dict())  # as a learner that resets the model does
    assert torch.equal(later(x), plain(x)) and later.random_features == 0


def test_new_random_feature_head_does_not_use_the_global_generator():
    model = plain_model()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.use_random_features(7, torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)
    assert not any(parameter.any() for parameter in model.head.parameters())


def test_unsupported_random_features_are_refused():
    with pytest.raises(errors.ModelArgumentError, match="random_features"):
        MLP(5, 3, random_features=-1)
    with pytest.raises(errors.ModelArgumentError, match="these heads"):
        MLP(5, 3, random_features=4, heads="per_task")

    class Own(FeatureClassifier):
        def __init__(self) -> None:
            super().__init__({}, nn.Flatten(), 5, CLASSES, "shared")

    with pytest.raises(errors.ModelStateError, match="random_features: int = 0"):
        Own().use_random_features(4)
    with pytest.raises(errors.UnfitHeadError, match="RandomFeatureHead of 40"):
        RanPAC(context(model=Own()), num_random_features=40)


def test_model_fn_that_does_not_load_states_gets_the_stored_head(tmp_path, make_state):
    new = write_examples(tmp_path / "new", 40)
    made = updater("RanPAC", {"num_random_features": 30}, functions={"model_fn": plain_model})
    updated = made.update(UpdateData(make_state(), new))
    parent = state_of(tmp_path / "state", updated, new)
    x = torch.from_numpy(new.gather(np.arange(40))[0])
    assert torch.equal(made.build_model(parent.folder).eval()(x), updated.model(x))
