"""`RenateModule`: state, tasks, hooks, copies; `RenateWrapper`."""

from __future__ import annotations

import copy
import enum
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from renate_stages.errors import (
    ModelInputsError,
    ModelStateError,
    RenateStagesError,
    StoredArgumentError,
)
from renate_stages.models import RenateModule, RenateWrapper, unwrap


class Scaled(RenateModule):
    """A linear layer, and for each task a scale that is registered on the module itself."""

    def __init__(self, sizes: tuple[int, int] = (3, 2), options: dict | None = None) -> None:
        super().__init__(constructor_arguments={"sizes": sizes, "options": options})
        self.inner = nn.Sequential(nn.Linear(*sizes), nn.Tanh(), nn.Dropout(0.5))

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        return self.inner(x) * (getattr(self, f"scale_{task_id}") if task_id else 1)

    def _add_task_params(self, task_id: str) -> None:
        self.register_parameter(f"scale_{task_id}", nn.Parameter(torch.rand(())))


def saved_and_loaded(model: nn.Module, path: Path) -> dict:
    torch.save(model.state_dict(), path)
    return torch.load(path, weights_only=True)


def test_state_dict_rebuilds_model_with_arguments_and_tasks_in_order(tmp_path: Path) -> None:
    model = Scaled((4, 5), options={"deep": [1, 2.5, None, True, "x"]})
    for task in ("z", "a", "m"):
        model.add_task_params(task)

    rebuilt = Scaled.from_state_dict(saved_and_loaded(model, tmp_path / "model.pt"))

    assert rebuilt.task_ids == ["z", "a", "m"]
    assert rebuilt.get_extra_state() == model.get_extra_state()
    x = torch.rand(2, 4)
    torch.testing.assert_close(rebuilt.eval()(x, "a"), model.eval()(x, "a"), rtol=0, atol=0)


def test_from_state_dict_does_not_modify_the_state_dict() -> None:
    model = Scaled()
    model.add_task_params("a")
    state = model.state_dict()
    before = copy.deepcopy(state)
    rebuilt = Scaled.from_state_dict(state)
    rebuilt.add_task_params("b")
    with torch.no_grad():
        rebuilt.inner[0].weight.zero_()
    assert list(state) == list(before)
    assert state["_extra_state"] == before["_extra_state"]
    assert torch.equal(state["inner.0.weight"], before["inner.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("inner.0.bias"), "inner.0.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra"),
        (lambda state: state.update({"inner.0.bias": torch.zeros(7)}), "size mismatch"),
        (lambda state: state.pop("_extra_state"), "is missing"),
        (lambda state: state.update(_extra_state=torch.zeros(3)), "awslabs/Renate"),
        (
            lambda state: state["_extra_state"]["constructor_arguments"].update(depth=3),
            "depth",
        ),
    ],
)
def test_state_dict_that_does_not_fit_is_refused_with_its_keys(change, message: str) -> None:
    state = Scaled().state_dict()
    change(state)
    with pytest.raises(ModelStateError, match=message):
        Scaled.from_state_dict(state)


def test_load_state_dict_adds_stored_tasks_and_keeps_own_arguments() -> None:
    stored, model = Scaled(options={"rate": 0.1}), Scaled(options={"rate": 0.5})
    stored.add_task_params("a")
    model.load_state_dict(stored.state_dict())
    assert model.task_ids == ["a"]
    assert torch.equal(model.scale_a, stored.scale_a)  # a parameter of the module itself
    assert model.get_extra_state()["constructor_arguments"]["options"] == {"rate": 0.5}


def test_nested_models_load_within_a_parent_module() -> None:
    stored, fresh = nn.Sequential(Scaled()), nn.Sequential(Scaled())
    stored[0].add_task_params("a")
    fresh.load_state_dict(stored.state_dict())
    assert torch.equal(fresh[0].scale_a, stored[0].scale_a)


def test_constructor_arguments_are_copied() -> None:
    options = {"list": [1]}
    model = Scaled(options=options)
    options["list"].append(2)
    model.get_extra_state()["constructor_arguments"]["options"]["list"].append(3)
    assert model.get_extra_state()["constructor_arguments"]["options"] == {"list": [1]}


def test_subclasses_of_plain_types_are_stored_as_plain_types(tmp_path: Path) -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    model = Scaled(options={"rate": np.float64(0.5), "colour": Colour.RED, "level": True})
    options = saved_and_loaded(model, tmp_path / "m.pt")["_extra_state"]["constructor_arguments"]
    assert options["options"] == {"rate": 0.5, "colour": "red", "level": True}
    assert [type(value) for value in options["options"].values()] == [float, str, bool]


@pytest.mark.parametrize(
    "value", [nn.ReLU(), np.int64(3), np.zeros(2), {1: 2}, {"a": [object()]}, Path("x"), {1, 2}]
)
def test_constructor_argument_that_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(StoredArgumentError, match=r"constructor_arguments\['options'\]"):
        Scaled(options={"nested": [value]})


def test_adding_a_known_task_or_none_changes_nothing() -> None:
    model = Scaled()
    model.add_task_params("a")
    scale = model.scale_a
    model.add_task_params("a")
    model.add_task_params(None)
    assert model.scale_a is scale
    assert model.task_ids == ["a"]
    with pytest.raises(StoredArgumentError, match="task_id"):
        model.add_task_params(3)  # type: ignore[arg-type]


def test_new_task_parameters_follow_the_model_to_its_device() -> None:
    model = Scaled().to("meta")
    model.add_task_params("a")
    assert model.scale_a.device.type == "meta"


def test_task_is_not_added_when_its_parameters_fail() -> None:
    model = Scaled()
    with pytest.raises(KeyError, match=r"can.*t contain"):
        model.add_task_params("a.b")  # not a legal parameter name
    assert model.task_ids == []


def test_all_parameters_are_trained_by_default() -> None:
    model = Scaled()
    assert model.get_params() == model.get_params("any") == list(model.parameters())


def test_hooks_cache_the_latest_call_in_training_and_evaluation_mode() -> None:
    model, x = Scaled(), torch.rand(2, 3)
    model.register_intermediate_representation_caching_hook(model.inner[1])
    model.register_intermediate_representation_caching_hook(model.inner[0])
    for mode in (True, False):
        model.train(mode)
        model(torch.rand(5, 3))
        model(x)
        linear, tanh = model.get_intermediate_representation()  # in order of execution
        torch.testing.assert_close(linear, model.inner[0](x))
        torch.testing.assert_close(tanh, torch.tanh(linear))
        assert linear.requires_grad
    model.reset_intermediate_representation_cache()
    assert model.get_intermediate_representation() == []


def test_returned_representations_are_unchanged_by_the_next_call() -> None:
    model = Scaled()
    model.register_intermediate_representation_caching_hook(model.inner[0])
    model(torch.rand(2, 3))
    first = model.get_intermediate_representation()
    model(torch.rand(4, 3))
    assert [len(output) for output in first] == [2]


def test_deregistered_hooks_cache_nothing() -> None:
    model = Scaled()
    model.register_intermediate_representation_caching_hook(model.inner[0])
    model(torch.rand(2, 3))
    model.deregister_hooks()
    assert model.get_intermediate_representation() == []
    model(torch.rand(2, 3))
    assert model.get_intermediate_representation() == []
    assert not model._forward_pre_hooks
    model.register_intermediate_representation_caching_hook(model.inner[0])
    model(torch.rand(2, 3))
    assert len(model.get_intermediate_representation()) == 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copy_of_a_hooked_model_has_its_own_cache_and_hooks(duplicate) -> None:
    model = Scaled()
    model.register_intermediate_representation_caching_hook(model.inner[0])
    model(torch.rand(2, 3))  # cached tensors have a graph, which PyTorch refuses to copy
    twin = duplicate(model)
    assert twin.get_intermediate_representation() == []

    twin(torch.rand(4, 3))
    assert [len(o) for o in twin.get_intermediate_representation()] == [4]
    assert [len(o) for o in model.get_intermediate_representation()] == [2]

    twin.deregister_hooks()
    twin(torch.rand(4, 3))
    assert twin.get_intermediate_representation() == []
    model(torch.rand(3, 3))
    assert [len(o) for o in model.get_intermediate_representation()] == [3]


def test_hooks_and_cache_are_not_in_the_state_dict() -> None:
    model = Scaled()
    keys = list(model.state_dict())
    model.register_intermediate_representation_caching_hook(model.inner[0])
    model(torch.rand(2, 3))
    assert list(model.state_dict()) == keys


class TwoInputs(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


def test_wrapper_unpacks_inputs_and_ignores_tasks() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    model = RenateWrapper(TwoInputs())
    for inputs in ((a, b), [a, b], {"b": b, "a": a}):
        assert torch.equal(model(inputs, task_id="any"), a - b)
    assert torch.equal(RenateWrapper(nn.Identity())(a), a)
    assert torch.equal(model.get_logits((a, b), "any"), a - b)
    with pytest.raises(ModelInputsError, match="TwoInputs was called with str"):
        model("text")


def test_wrapper_unpacks_a_tuple_of_one_output() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (x,)

    x = torch.rand(2)
    assert torch.equal(RenateWrapper(Single())(x), x)


def test_wrapper_loads_state_in_place_and_refuses_from_state_dict(tmp_path: Path) -> None:
    stored, model = RenateWrapper(nn.Linear(2, 1)), RenateWrapper(nn.Linear(2, 1))
    state = saved_and_loaded(stored, tmp_path / "model.pt")
    model.load_state_dict(state)
    assert torch.equal(model.wrapped.weight, stored.wrapped.weight)
    with pytest.raises(RenateStagesError, match="load_state_dict"):
        RenateWrapper.from_state_dict(state)


def test_unwrap_returns_the_users_own_module() -> None:
    linear, own = nn.Linear(2, 1), Scaled()
    assert unwrap(RenateWrapper(linear)) is linear
    assert unwrap(own) is own
