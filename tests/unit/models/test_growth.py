"""Models that grow for new labels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from renate_stages import errors
from renate_stages.models import MLP, RenateModule, RenateWrapper
from renate_stages.models.growth import ensure_outputs, output_layer
from renate_stages.models.heads import NearestMeanHead, PerTaskHeads, RandomFeatureHead
from renate_stages.models.module import unwrap

INPUTS = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))


def grown(model: RenateModule, number: int, task_id: str | None = None) -> int:
    """Let a model have a number of outputs; return how many it had."""

    def outputs() -> Tensor:
        with torch.no_grad():
            return model.eval()(INPUTS, task_id=task_id)

    return ensure_outputs(unwrap(model), number, outputs, model.grow_outputs)


class Own(RenateModule):
    """A model whose last linear layer is not the one that computes its outputs."""

    def __init__(self, declared: bool = False) -> None:
        super().__init__({"declared": declared})
        if declared:
            self.output_layer = "out"
        self.out = nn.Linear(4, 2)
        self.side = nn.Linear(4, 2)

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        return self.out(x) + 0 * self.side(x).sum()


def heads() -> list[nn.Module]:
    per_task = PerTaskHeads(4, 2)
    per_task.add("a")
    per_task.add("b")
    return [nn.Linear(4, 2), nn.Linear(4, 2, bias=False), RandomFeatureHead(4, 9, 2), per_task]


class WithHead(RenateModule):
    def __init__(self, head: nn.Module) -> None:
        super().__init__({})
        self.features, self.head = nn.Linear(4, 4), head

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        arguments = (task_id,) if isinstance(self.head, PerTaskHeads) else ()
        return self.head(self.features(x), *arguments)


@pytest.mark.parametrize("place", range(4))
def test_old_weights_keep_their_bits_and_outputs_are_added(place):
    model = WithHead(heads()[place]).eval()
    before = {name: each.clone() for name, each in model.state_dict().items() if name[0] != "_"}
    logits = model(INPUTS, task_id="b")
    assert grown(model, 5, "b") == 2
    # Kernels of other widths may add in another order, so the last bits of logits may differ.
    torch.testing.assert_close(model(INPUTS, task_id="b")[:, :2], logits, rtol=1e-5, atol=1e-6)
    assert model(INPUTS, task_id="b").shape == (7, 5)
    for name, old in before.items():
        now = model.state_dict()[name]
        assert torch.equal(now[: len(old)], old), name
    assert grown(model, 3, "b") == 5  # enough: nothing changes
    assert model.grown == {"head": [2, 5]}


def test_new_rows_have_the_initialisation_of_a_linear_layer():
    model = WithHead(nn.Linear(4, 2))
    torch.manual_seed(3)
    grown(model, 6)
    torch.manual_seed(3)
    fresh = nn.Linear(4, 6)
    head = model.get_submodule("head")
    assert torch.equal(head.weight[2:], fresh.weight[2:])  # type: ignore[index]
    assert torch.equal(head.bias[2:], fresh.bias[2:])  # type: ignore[index]


def test_frozen_head_stays_frozen_and_keeps_its_dtype():
    head = nn.Linear(4, 2).double().requires_grad_(False)
    model = WithHead(head)
    model.features.double()
    inputs = INPUTS.double()
    ensure_outputs(model, 3, lambda: model.eval()(inputs), model.grow_outputs)
    assert head.weight.dtype == torch.float64 and not head.weight.requires_grad


def test_means_of_a_nearest_mean_head_stay():
    head = NearestMeanHead(4, 2)
    head.take_means({0: INPUTS[0], 1: INPUTS[1]})
    model = WithHead(head).eval()
    logits = model(INPUTS)
    grown(model, 4)
    after = model(INPUTS)
    torch.testing.assert_close(after[:, :2], logits, rtol=1e-5, atol=1e-6)
    assert (after[:, 2:] == -4).all()


def test_state_dict_of_a_grown_model_builds_the_same_model():
    model = MLP(num_inputs=4, num_outputs=2, hidden_size=3, num_hidden_layers=1)
    grown(model, 5)
    restored = MLP.from_state_dict(copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(restored(INPUTS), model(INPUTS)) and restored.grown == {"head": [2, 5]}
    restored.use_random_features(8)
    assert restored(INPUTS).shape == (7, 5)
    again = MLP.from_state_dict(restored.state_dict()).eval()
    assert torch.equal(again(INPUTS), restored(INPUTS))


def test_loading_a_grown_state_does_not_draw_random_numbers():
    model = MLP(num_inputs=4, num_outputs=2)
    grown(model, 5)
    state = model.state_dict()
    torch.manual_seed(1)
    other = MLP(num_inputs=4, num_outputs=2)
    first = torch.rand(1)
    torch.manual_seed(1)
    other = MLP(num_inputs=4, num_outputs=2)
    other.load_state_dict(state)
    assert torch.equal(torch.rand(1), first)


def test_task_heads_that_are_added_later_have_all_outputs():
    model = MLP(num_inputs=4, num_outputs=2, heads="per_task")
    model.add_task_params("a")
    grown(model, 3, "a")
    model.add_task_params("b")
    assert model.eval()(INPUTS, task_id="b").shape == (7, 3)
    restored = MLP.from_state_dict(model.state_dict()).eval()
    assert torch.equal(restored(INPUTS, task_id="b"), model(INPUTS, task_id="b"))


def test_wrapper_loads_its_own_state_and_that_of_its_module():
    model = RenateWrapper(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))).eval()
    grown(model, 4)
    for state in (model.state_dict(), model.wrapped.state_dict()):
        other = RenateWrapper(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))).eval()
        if "_extra_state" not in state:
            other.grow_outputs("2", 4)
        other.load_state_dict(state)
        assert torch.equal(other(INPUTS), model(INPUTS))


def test_wrapper_does_not_grow_for_a_state_dict_of_another_model():
    model = RenateWrapper(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(nn.Sequential(nn.Linear(4, 5)).state_dict())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (RenateWrapper(nn.Sequential(nn.Flatten())), "it has no linear layer"),
        (RenateWrapper(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))), "outputs are not simply"),
        (
            RenateWrapper(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 8), nn.GLU())),
            "has 8 outputs, not those of the model",
        ),
        (Own(), "outputs are not simply those of its layer `side`"),
    ],
    ids=["none", "softmax", "glu", "side"],
)
def test_model_that_cannot_grow_is_refused_only_if_it_has_to(model, reason):
    have = model.eval()(INPUTS).shape[1]
    state = {name: each.clone() for name, each in unwrap(model).named_parameters()}
    assert grown(model, have) == have
    for name, each in unwrap(model).named_parameters():
        assert torch.equal(each, state[name])
    with pytest.raises(errors.OutputLayerError, match=reason):
        grown(model, have + 1)


def test_output_layer_can_be_declared():
    model = Own(declared=True)
    assert output_layer(model) == "out"
    assert grown(model, 3) == 2
    assert model(INPUTS).shape == (7, 3)
    missing = Own()
    missing.output_layer = "nowhere"
    with pytest.raises(errors.OutputLayerError, match="it has no submodule `nowhere`"):
        grown(missing, 3)


def test_layer_that_shares_its_weights_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(errors.OutputLayerError, match="shares its weights with another layer"):
        grown(RenateWrapper(model), 5)


@pytest.mark.parametrize(
    "stored",
    [{"head": [2]}, {"head": [5, 2]}, {"head": ["2", 5]}, ["head"], {"head": [True, 5]}],
)
def test_hostile_growth_in_a_state_dict_is_refused(stored):
    state = MLP(num_inputs=4, num_outputs=2).state_dict()
    state["_extra_state"]["grown"] = stored
    with pytest.raises(errors.ModelStateError):
        MLP.from_state_dict(state)


def test_growth_of_a_layer_that_the_model_does_not_have_is_refused():
    state = MLP(num_inputs=4, num_outputs=2).state_dict()
    state["_extra_state"]["grown"] = {"classifier": [2, 5]}
    with pytest.raises(errors.ModelStateError, match="no such layer that can grow"):
        MLP.from_state_dict(state)
