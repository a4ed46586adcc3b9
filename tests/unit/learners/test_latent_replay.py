"""Latent replay: the loss of a step, what is frozen, which latents are stored, and the layers it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from small_updates import VALUES, state_of, updater, weights, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import Batched, StoredDataset, ingest
from renate_stages.learners.base.cut import Cut
from renate_stages.learners.latent_replay import LatentReplay
from renate_stages.models import MLP, RenateModule, RenateWrapper, ResNet18, SmallCNN
from renate_stages.state import State, state
from renate_stages.training.update_data import UpdateData

LAYER = {**VALUES, "latent_layer": "features.2"}


class Noisy(RenateModule):
    """Batch norm and dropout below the layer `middle` and above it."""

    def __init__(self) -> None:
        super().__init__({})
        self.below = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.middle = nn.ReLU()
        self.above = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, x, task_id=None):
        return self.head(self.above(self.middle(self.below(x))))


def started(tmp_path, given=None, layer="features.2", **values) -> LatentReplay:
    given = given or context(model=MLP(5, 3, hidden_size=[4, 7]), has_parent=True)
    values = {"batch_size": 4, "memory_batch_size": 6, "latent_layer": layer, **values}
    learner = LatentReplay(given, **values)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "old", 20, first=50))
    return learner


# -- a step ----------------------------------------------------------------------------------------


def test_loss_is_that_of_er_but_only_new_examples_pass_the_layers_below(tmp_path):
    learner = started(tmp_path)
    take_steps(learner, 2)
    batch = first_step(learner)
    (drawn,) = batch.memory
    model, rows = learner.model, []
    inputs, targets = learner.memory.__getitems__(drawn.rows)
    latents = model.features[:3](inputs)
    assert torch.equal(drawn.targets, targets), "inputs of remembered examples are not read"
    torch.testing.assert_close(drawn.inputs, latents.detach())
    expected = F.cross_entropy(
        torch.cat([model(batch.new.inputs), model.head(model.features[3:](latents))]),
        torch.cat([batch.new.targets, targets]),
    )
    for layer in (model.features[1], model.features[3]):
        layer.register_forward_hook(lambda *given: rows.append(len(given[-1])))
    torch.testing.assert_close(learner.loss(batch), expected)
    assert rows == [4, 4 + 6]


def test_weights_of_replayed_and_new_examples_are_those_of_er(tmp_path):
    learner = started(tmp_path, loss_weight=0.5, replay_weight=2.0)
    batch = first_step(learner)
    new, drawn = batch.new, batch.memory[0]
    outputs = learner.model.head(learner.model.features[3:](drawn.inputs))
    expected = 0.5 * F.cross_entropy(learner.model(new.inputs), new.targets)
    expected = expected + 2 * F.cross_entropy(outputs, drawn.targets)
    torch.testing.assert_close(learner.loss(batch), expected)


def test_layers_below_stay_as_they_are_in_evaluation_mode_and_are_trained_again_later(tmp_path):
    model = Noisy()
    learner = started(tmp_path, context(model=model, has_parent=True), "middle", ema_decay=0.5)
    before = {name: each.clone() for name, each in model.state_dict().items() if name[0] != "_"}
    trained = {id(each) for each in learner.trained_parameters()}
    assert trained == {id(p) for part in (model.above, model.head) for p in part.parameters()}
    learner.train()  # as Lightning does
    take_steps(learner, 2)
    assert not any(each.training for each in (*model.below, model.middle))
    assert all(each.training for each in (model, *model.above))
    for end in (False, True):
        if end:
            learner.end_training(None)
        for name, each in model.state_dict().items():
            if name[0] != "_" and "num_batches" not in name:
                assert torch.equal(each, before[name]) == name.startswith("below"), name
    assert all(each.requires_grad for each in model.parameters())
    assert not model.middle._forward_hooks


def test_first_update_trains_the_whole_model_unless_what_is_below_is_pretrained(tmp_path):
    given = context(model=MLP(5, 3, hidden_size=[4, 7]))
    learner = started(tmp_path / "whole", given)
    batch = first_step(learner)
    both = [torch.cat([getattr(each, part) for each in (batch.new, *batch.memory)])
            for part in ("inputs", "targets")]  # fmt: skip
    torch.testing.assert_close(
        learner.loss(batch), F.cross_entropy(learner.model(both[0]), both[1])
    )
    assert len(learner.trained_parameters()) == 6
    take_steps(learner, 2)
    chosen = learner.choose_memory()
    kept, added = chosen.selection
    parts = learner.memory.__getitems__(kept)[0], learner.new.__getitems__(added)[0]
    expected = learner.model.features[:3](torch.cat(parts)).detach().numpy()
    assert len(kept) == 20 and len(added) == 12
    np.testing.assert_allclose(chosen.fields["latents"], expected, atol=1e-6)
    pretrained = started(tmp_path / "pretrained", given, pretrained_below=True)
    assert len(pretrained.trained_parameters()) == 4
    assert first_step(pretrained).memory[0].inputs.shape == (6, 4)


# -- stored latents --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Return a folder, the data of three updates, and a function that runs an update on a state."""
    folder = tmp_path_factory.mktemp("course")
    data = [write_examples(folder / f"data-{n}", 30, first=300 * n) for n in range(3)]
    state.write_empty(folder / "empty")

    def run(name, parent, number, learner="LatentReplay", values=LAYER, functions=None):
        made = updater(learner, values, number=number, functions=functions)
        updated = made.update(UpdateData(parent, data[number - 1]))
        path = folder / name
        return updated, state_of(path, updated, number, parent=parent, new=data[number - 1])

    first, one = run("one", State.open(folder / "empty"), 1)
    second, two = run("two", one, 2)
    return run, (first, one), (second, two)


def latents_of(updated, examples) -> np.ndarray:
    inputs, _ = examples.gather(np.arange(len(examples)))
    return updated.model.features[:3](torch.from_numpy(inputs)).detach().numpy()


def test_latents_of_kept_and_new_examples_are_those_of_the_model(course, capsys):
    _, (first, one), (second, two) = course
    assert not torch.equal(weights(first), weights(second))
    for updated, after in ((first, one), (second, two)):
        known = after.memory().metadata("latents")
        np.testing.assert_allclose(known, latents_of(updated, after.memory()), atol=1e-6)
    assert second.chosen.fields == {}, "latents of kept examples are not written again"
    assert "computed latents" not in capsys.readouterr().out


def test_latents_are_computed_again_after_an_update_of_another_learner(course, capsys):
    run, _, (_, two) = course
    trained, three = run("three by ER", two, 3, "ER")
    stale = three.memory().metadata("latents")
    known = three.memory().known("latents")
    off = np.abs(stale - latents_of(trained, three.memory()))[known]
    assert known.any() and not known.all() and off.max() > 0.01
    again, four = run("four", three, 2)
    assert f"computed latents of {len(known)} remembered examples" in capsys.readouterr().out
    found = four.memory().metadata("latents")
    np.testing.assert_allclose(found, latents_of(again, four.memory()), atol=1e-6)


@pytest.mark.parametrize("change", ["layer", "transform"])
def test_latents_are_computed_again_if_layer_or_transform_has_changed(course, capsys, change):
    run, _, (_, two) = course
    values = {**VALUES, "latent_layer": "features.1" if change == "layer" else "features.2"}
    functions = {"test_transform": lambda: Batched(lambda x: 2 * x)} if change != "layer" else {}
    _, three = run(f"three with another {change}", two, 3, values=values, functions=functions)
    assert f"computed latents of {len(two.memory())} remembered" in capsys.readouterr().out
    assert not np.allclose(
        three.memory().metadata("latents")[0], two.memory().metadata("latents")[0]
    )


def test_forgetting_an_example_keeps_the_latents_of_the_others_valid(course, capsys):
    _, _, (_, two) = course
    made = updater("LatentReplay", LAYER, number=3)
    rows = np.ones(len(two.memory()), dtype=bool)
    carried = made.carry_over(UpdateData(two, two.memory(), memory_rows=rows))
    _, values = carried.learner.learner_state()
    assert (
        values["latents"]
        == made.restored(UpdateData(two, two.memory())).learner_state()[1]["latents"]
    )
    assert values["latents"] is not None


# -- the layers it takes ---------------------------------------------------------------------------


class Odd(RenateModule):
    """A model whose layer `middle` cannot be cut in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__({})
        self.kind = kind
        self.below, self.middle, self.head = nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)
        self.unused = nn.ReLU()
        self.pair = nn.LSTM(5, 5, batch_first=True)

    def forward(self, x, task_id=None):
        hidden = self.middle(self.below(x))
        if self.kind == "skipped":
            hidden = hidden + self.below(x)
        if self.kind == "twice":
            hidden = self.middle(hidden)
        if self.kind == "tied":
            hidden = hidden @ self.below.weight
        if self.kind == "pair":
            hidden, _ = self.pair(hidden[:, None])
            hidden = hidden[:, 0]
        if self.kind == "input":
            hidden = hidden + x
        if self.kind == "scaled":
            hidden = hidden * x.std()
        outputs = self.head(hidden)
        return {"logits": outputs} if self.kind == "dict" else outputs


@pytest.mark.parametrize(
    ("kind", "layer", "message"),
    [
        ("", "midle", r"no layer `midle`, did you mean 'middle'\? \(its layers: below, middle"),
        ("", "unused", "runs 0 times"),
        ("", "head", "no parameters above it"),
        ("twice", "middle", "runs 2 times"),
        ("pair", "pair", "returns tuple"),
        ("tied", "middle", "another way too"),
        ("skipped", "middle", "another way too"),
        ("input", "middle", "cannot be replayed: the model fails with RuntimeError"),
        ("scaled", "middle", "outputs depend on more"),
        ("dict", "middle", "returns dict"),
    ],
)
def test_layer_that_cannot_be_replayed_is_refused_with_the_cure(tmp_path, kind, layer, message):
    model = Odd(kind)
    with pytest.raises(errors.ModelMismatchError, match=message) as raised:
        started(tmp_path, context(model=model, has_parent=True), layer)
    assert "hyperparameters.latent_layer" in str(raised.value)
    assert model.training and all(each.requires_grad for each in model.parameters())
    assert not model.middle._forward_hooks


def test_layer_inside_a_residual_block_is_refused_and_one_between_blocks_is_cut_by_gradients():
    model = ResNet18(3, 1, width=2)
    inputs = torch.rand(5, 1, 8, 8)
    with pytest.raises(
        errors.ModelMismatchError, match="another way too, such as a connection around it"
    ):
        Cut(model, "features.4.residual", inputs, model)
    cut = Cut(model, "features.6", inputs, model)
    below = {name.split(".")[1] for name, each in model.named_parameters()
             if any(each is found for found in cut.below)}  # fmt: skip
    assert below == {"0", "1", "3", "4", "5", "6"}
    assert len(cut.below) + len(cut.above) == len(list(model.parameters()))
    assert model.training and all(each.training for each in model.modules())


def test_wrapped_models_and_frozen_backbones_are_cut_and_frozen_heads_refused(tmp_path):
    wrapped = RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    wrapped.wrapped[0].requires_grad_(False)
    learner = started(tmp_path / "one", context(model=wrapped, has_parent=True), "1")
    learner.end_training(None)
    assert [each.requires_grad for each in wrapped.parameters()] == [False, False, True, True]
    wrapped.requires_grad_(False)
    with pytest.raises(errors.ModelMismatchError, match="no parameter above layer `1` is trained"):
        started(tmp_path / "two", context(model=wrapped, has_parent=True), "1")


def test_update_without_any_example_trains_nothing(tmp_path):
    learner = LatentReplay(context(has_parent=True))
    none = stored(tmp_path / "none", 0)
    learner.start_update(none, none)
    assert len(learner.choose_memory().selection.added) == 0


def test_digest_names_layer_and_tensors_below_alone():
    model = SmallCNN(1, 3, width=2)
    inputs = torch.rand(5, 1, 8, 8)
    known = {Cut(model, name, inputs, model).digest() for name in ("features.0", "features.1")}
    cut = Cut(model, "features.0", inputs, model)
    with torch.no_grad():
        model.head.weight.add_(1)
        assert len(known) == 2 and cut.digest() in known
        cut.below[0].add_(1)
        assert cut.digest() not in known


@pytest.mark.parametrize(
    "wrong", [{"latent_layer": ""}, {"pretrained_below": 2}, {"reinitialize": "all"}]
)
def test_value_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        LatentReplay(context(), **wrong)


class Texts(RenateModule):
    """A classifier of texts: `(B, T)` to `(B, T, 4)` to `(B, 4)` to `(B, 3)`."""

    def __init__(self) -> None:
        super().__init__({})
        self.embedding, self.pool, self.head = nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4, 3)

    def forward(self, x, task_id=None):
        return self.head(self.pool(self.embedding(x).mean(1)))


def test_texts_of_different_lengths_need_a_layer_after_pooling(tmp_path):
    rows = [(list(range(1, 3 + n % 4)), n % 3) for n in range(12)]
    new = StoredDataset(ingest(rows, tmp_path / "new", 1, "train", ragged=("inputs",)))
    none = stored(tmp_path / "none", 0)
    for layer in ("pool", "embedding"):
        learner = LatentReplay(context(model=Texts(), has_parent=True), latent_layer=layer)
        if layer == "embedding":
            with pytest.raises(errors.ModelMismatchError, match="after pooling"):
                learner.start_update(new, none)
        else:
            learner.start_update(new, none)
            assert learner.choose_memory().added_fields["latents"].shape == (12, 4)
