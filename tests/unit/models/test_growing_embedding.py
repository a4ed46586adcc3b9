"""Embeddings that grow for new codes, and the models that have them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_inputs import SMALL, TABLES, TEXTS, batch_of, grown_sizes, small
from torch import Tensor, nn

from renate_stages import errors
from renate_stages.learners.base.new_rows import with_new_rows
from renate_stages.models import MLP, GrowingEmbedding, RenateModule, RenateWrapper
from renate_stages.models.features import without_growth
from renate_stages.models.growth import ensure_outputs, output_layer
from renate_stages.models.module import unwrap
from renate_stages.models.stored import build_model, grown_tensors, write_model
from renate_stages.user.config import UserConfig

CODES = torch.tensor([[0, 1, 2], [3, 2, 0]])


def test_rows_are_those_of_a_plain_embedding_and_row_0_is_zero():
    embedding = GrowingEmbedding(4, 5)
    expected = torch.stack([embedding.weight[code] for code in CODES.flatten()]).reshape(2, 3, 5)
    assert torch.equal(embedding(CODES), expected)
    assert not embedding(CODES)[CODES == 0].any()


@pytest.mark.parametrize("unknown", [0, 1])
def test_code_without_a_row_is_read_as_unknown(unknown):
    embedding = GrowingEmbedding(4, 5, unknown=unknown)
    found = embedding(torch.tensor([4, 1000, -1]))
    assert torch.equal(found, embedding.weight[unknown].expand(3, 5))


def test_row_0_has_no_effect_and_no_gradient_even_if_its_weights_are_changed():
    embedding = GrowingEmbedding(4, 5)
    with torch.no_grad():
        embedding.weight += 1
    embedding(CODES).sum().backward()
    assert not embedding(CODES)[CODES == 0].any()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[:, 0].tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("unknown", [0, 1])
def test_new_rows_are_copies_of_unknown_and_old_rows_keep_their_bits(unknown):
    embedding = GrowingEmbedding(4, 5, unknown=unknown).double()
    embedding.weight.requires_grad_(False)
    old = embedding.weight.clone()
    state = torch.get_rng_state()
    embedding.grow_outputs(7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(embedding.weight[:4], old)
    assert torch.equal(embedding.weight[4:], old[unknown].expand(3, 5))
    assert embedding.weight.dtype == torch.float64 and not embedding.weight.requires_grad
    embedding.grow_outputs(6)
    assert embedding.num_outputs == 7


@pytest.mark.parametrize("unknown", [0, 1])
def test_rows_that_were_not_trained_can_be_left_out(unknown):
    embedding = GrowingEmbedding(4, 5, unknown=unknown)
    old = embedding.weight.detach().clone()
    embedding.grow_outputs(8)
    assert torch.equal(embedding.without_untrained_rows(), old)
    with torch.no_grad():
        embedding.weight[5] += 1
    assert len(embedding.without_untrained_rows()) == 6
    assert len(GrowingEmbedding(unknown + 1, 5, unknown).without_untrained_rows()) == unknown + 1


@pytest.mark.parametrize("rows", [0, 1, 1.5])
def test_embedding_without_a_row_of_unknown_is_refused(rows):
    with pytest.raises(errors.ModelArgumentError, match=r"num_rows is .* at least 2"):
        GrowingEmbedding(rows, 4, unknown=1)


class EndsInEmbedding(RenateModule):
    """A model whose last submodule is an embedding, and which has no `head`."""

    def __init__(self) -> None:
        super().__init__({})
        self.out = nn.Linear(4, 2)
        self.embedding = GrowingEmbedding(6, 4)

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        return self.out(self.embedding(x).mean(1))


def test_embedding_is_never_the_layer_that_computes_outputs():
    model = EndsInEmbedding()
    assert output_layer(model) == "out"
    assert ensure_outputs(model, 3, lambda: model.eval()(CODES), model.grow_outputs) == 2
    assert model.grown == {"out": [2, 3]}
    model.grow_outputs("embedding", 9)
    assert model.grown == {"out": [2, 3], "embedding": [6, 9]}
    assert model.grown_outputs == {"out": [2, 3]}
    wrapped = RenateWrapper(nn.Sequential(GrowingEmbedding(3, 2), nn.Linear(2, 2)))
    wrapped.grow_outputs("0", 5)
    wrapped.grow_outputs("1", 4)
    assert wrapped.grown_outputs == {"1": [2, 4]}


def test_declaring_an_embedding_as_output_layer_is_refused():
    model = EndsInEmbedding()
    model.output_layer = "embedding"
    with pytest.raises(errors.OutputLayerError, match="`embedding` is a GrowingEmbedding"):
        ensure_outputs(model, 6, lambda: model.eval()(CODES), model.grow_outputs)


def test_model_without_codes_ignores_sizes():
    model = MLP(num_inputs=4, num_outputs=2)
    model.grow_inputs({"vocab_size": 9, "cardinalities": [3]})
    assert model.grown == {}


@pytest.mark.parametrize("name", SMALL)
def test_growth_changes_no_output_and_is_in_the_state_dict(name):
    model, old, new = small(name), batch_of(name), batch_of(name, more=2)
    before = model(old), model(new)
    model.grow_inputs(grown_sizes(name))
    assert model.grown and not model.grown_outputs
    assert torch.equal(model(old), before[0]) and torch.equal(model(new), before[1])
    rows = {
        key: each.shape for key, each in model.state_dict().items() if key in grown_tensors(model)
    }
    grown = dict(model.grown)
    model.grow_inputs(grown_sizes(name))
    small_sizes = {"cardinalities": [1, 1], "vocab_size": 2}
    model.grow_inputs(small_sizes)  # smaller ones change nothing
    model.grow_inputs({})
    assert model.grown == grown and list(rows) == [f"{layer}.weight" for layer in grown]
    with torch.no_grad():
        for layer in grown:
            model.get_submodule(layer).weight[-2:] += 1  # type: ignore[index]
    assert not torch.equal(model(new), before[1]), "the new codes have rows of their own"
    model.grow_outputs("head", 5)
    other = type(model).from_state_dict(copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(other(new), model(new)) and other.grown == model.grown
    assert model.grown_outputs == {"head": [3, 5]}
    fresh = small(name)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(new), model(new))
    assert torch.equal(copy.deepcopy(model)(new), model(new))


@pytest.mark.parametrize("name", SMALL)
def test_tensors_about_weights_get_rows_for_new_codes(name):
    model = small(name)
    importance = {key: torch.ones_like(each) for key, each in model.named_parameters()}
    model.grow_inputs(grown_sizes(name))
    own = {key: torch.zeros_like(each) for key, each in model.named_parameters()}
    found = with_new_rows(importance, own, grown_tensors(model))
    for key, each in model.named_parameters():
        assert found[key].shape == each.shape
        assert float(found[key].sum()) == importance[key].numel(), "new rows are those of `own`"


@pytest.mark.parametrize("name", SMALL)
def test_growth_alone_does_not_change_what_digests_are_computed_from(name):
    model = RenateWrapper(small(name))
    before = without_growth(model, dict(model.named_parameters()))
    unwrap(model).grow_inputs(grown_sizes(name))  # type: ignore[operator]
    after = without_growth(model, dict(model.named_parameters()))
    assert all(torch.equal(after[key], each) for key, each in before.items())


@pytest.mark.parametrize("name", TABLES)
def test_other_number_of_columns_is_refused(name):
    model = small(name)
    with pytest.raises(errors.InputSizesError, match="2 categorical columns, but the data has 3"):
        model.grow_inputs({"cardinalities": [5, 4, 9]})
    with pytest.raises(errors.InputSizesError, match="3 numeric columns, but the data has 4"):
        model.grow_inputs({"num_numeric": 4, "cardinalities": [5, 9]})
    assert not model.grown


@pytest.mark.parametrize("name", TEXTS)
def test_new_tokens_are_read_as_unknown_until_they_have_rows(name):
    model, batch = small(name), batch_of(name, more=5)
    ids = batch["input_ids"]
    unknown = {**batch, "input_ids": torch.where(ids >= 12, 1, ids)}
    assert torch.equal(model(batch), model(unknown))


@pytest.mark.parametrize("loads", [True, False], ids=["model_fn loads", "model_fn builds"])
@pytest.mark.parametrize("name", SMALL)
def test_stored_model_that_has_grown_is_built_again(tmp_path, name, loads):
    model, batch = small(name), batch_of(name, more=2)
    model.grow_inputs(grown_sizes(name))
    model.grow_outputs("head", 5)
    with torch.no_grad():
        for layer in model.grown:
            model.get_submodule(layer).weight[-2:] += 1  # type: ignore[index]
    write_model(tmp_path, model)

    def load(model_state_url):
        if model_state_url is None:
            return small(name)
        return type(model).from_state_dict(torch.load(model_state_url, weights_only=True))

    user = UserConfig(Path("c.py"), {"model_fn": load if loads else lambda: small(name)})
    again = build_model(user, {}, tmp_path, "t").eval()
    assert torch.equal(again(batch), model(batch)) and again.grown == model.grown


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_gives_close_outputs_and_finite_gradients(name):
    model, batch = small(name), batch_of(name)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(batch)
    torch.testing.assert_close(outputs.float(), model(batch), rtol=0.1, atol=0.05)
    outputs.float().square().sum().backward()
    for each in model.parameters():
        assert each.grad is not None and each.grad.isfinite().all()
