"""Stored models: exact round trips, and refusal of models that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from renate_stages import errors
from renate_stages.models import MLP, RenateModule, RenateWrapper
from renate_stages.models.stored import (
    build_model,
    checkpoint_of,
    read_state_dict,
    write_model,
)
from renate_stages.user.config import UserConfig


def user(model_fn) -> UserConfig:
    return UserConfig(Path("renate_config.py"), {"model_fn": model_fn})


def plain(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def renate_model_fn(model_state_url: str | None = None, width: int = 5) -> RenateModule:
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(num_inputs=4, num_outputs=2, hidden_size=width, heads="per_task")


def plain_model_fn(model_state_url: str | None = None) -> nn.Module:
    model = plain()
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url, weights_only=True))
    return model


def stateless_model_fn(width: int = 3) -> nn.Module:
    return plain(width)


def outputs(model: RenateModule, task_id: str) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.linspace(-1, 1, 12).reshape(3, 4), task_id=task_id)


@pytest.mark.parametrize("model_fn", [renate_model_fn, plain_model_fn, stateless_model_fn])
def test_stored_model_is_restored_with_its_tensors_and_tasks(tmp_path, model_fn):
    model = build_model(user(model_fn), {"width": 3}, None, "first")
    model(torch.randn(8, 4), task_id="first")  # updates batch norm statistics
    write_model(tmp_path, model)
    torch.manual_seed(1)
    again = build_model(user(model_fn), {"width": 3}, tmp_path, "first")
    assert torch.equal(outputs(model, "first"), outputs(again, "first"))
    assert again.task_ids == ["first"]
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, again.state_dict()[name]), name


def test_new_task_gets_its_own_parameters_in_a_stored_model(tmp_path):
    model = build_model(user(renate_model_fn), {}, None, "first")
    write_model(tmp_path, model)
    later = build_model(user(renate_model_fn), {}, tmp_path, "second")
    assert later.task_ids == ["first", "second"]
    assert torch.equal(outputs(model, "first"), outputs(later, "first"))


def test_plain_module_is_stored_under_its_own_parameter_names(tmp_path):
    module = plain()
    write_model(tmp_path, RenateWrapper(module))
    assert set(load_file(tmp_path / "model.safetensors")) == set(module.state_dict())
    assert (tmp_path / "model.json").read_text() == '{\n "class": "Sequential"\n}\n'
    with checkpoint_of(tmp_path) as path:
        plain().load_state_dict(torch.load(path, weights_only=True))
    assert not path.exists()


def test_equal_models_are_stored_with_equal_bytes_and_default_file_modes(tmp_path):
    model = renate_model_fn()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name, model)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    mask = os.umask(0)
    os.umask(mask)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()}
    assert modes == {0o666 & ~mask}


class Tied(nn.Module):
    """Two layers that share a weight, and a buffer that is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("columns", torch.arange(6.0).reshape(2, 3).T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_shared_and_non_contiguous_tensors_are_stored_and_restored(tmp_path):
    model = RenateWrapper(Tied())
    write_model(tmp_path, model)
    again = build_model(user(Tied), {}, tmp_path, "t")
    assert torch.equal(outputs(model, "t"), outputs(again, "t"))
    assert again.wrapped.second.weight is again.wrapped.first.weight
    assert again.wrapped.columns.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_model_fn_that_ignores_the_stored_weights_is_refused(tmp_path):
    def ignores(model_state_url: str | None = None) -> nn.Module:
        return plain()

    write_model(tmp_path, RenateWrapper(plain()))
    with pytest.raises(errors.ModelMismatchError) as raised:
        build_model(user(ignores), {}, tmp_path, "t")
    assert "received model_state_url" in str(raised.value)
    assert "from_state_dict(torch.load(model_state_url))" in str(raised.value)


def test_different_architecture_is_refused_with_the_differing_parameters(tmp_path):
    write_model(tmp_path, RenateWrapper(plain(3)))
    with pytest.raises(
        errors.ModelMismatchError,
        match=r"differ from the parent's in name or shape: 0\.bias, 0\.we",
    ):
        build_model(user(stateless_model_fn), {"width": 6}, tmp_path, "t")

    def other() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))

    with pytest.raises(errors.ModelMismatchError, match=r"1\.num_batches_tracked"):
        build_model(user(other), {}, tmp_path, "t")


def test_model_fn_that_fails_to_load_the_stored_weights_is_reported(tmp_path):
    write_model(tmp_path, RenateWrapper(plain(4)))
    with pytest.raises(errors.UserConfigError, match=r"(?s)model_fn failed at line.*size mismatch"):
        build_model(user(plain_model_fn), {}, tmp_path, "t")
    with pytest.raises(errors.ModelStateError, match="_extra_state"):
        build_model(user(renate_model_fn), {}, tmp_path, "t")


def test_model_fn_can_add_outputs_to_the_stored_model(tmp_path):
    def grows(model_state_url: str | None = None) -> nn.Module:
        model = nn.Linear(4, 3)
        if model_state_url is not None:
            stored = torch.load(model_state_url, weights_only=True)
            with torch.no_grad():
                model.weight[:2], model.bias[:2] = stored["weight"], stored["bias"]
        return model

    write_model(tmp_path, RenateWrapper(nn.Linear(4, 2)))
    grown = build_model(user(grows), {}, tmp_path, "t").wrapped
    assert torch.equal(grown.weight[:2], read_state_dict(tmp_path)["weight"])


@pytest.mark.parametrize("returned", [None, {"weight": 1}, nn.Linear])
def test_model_fn_that_does_not_return_a_module_is_refused(returned):
    with pytest.raises(errors.ModelMismatchError, match=r"return a torch\.nn\.Module"):
        build_model(user(lambda: returned), {}, None, "t")


class Counting(nn.Module):
    """A module whose extra state is what it was given."""

    def __init__(self, state) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state) -> None:
        self.state = state


@pytest.mark.parametrize("state", [{"seen": [3, "words"], "class": "x"}, torch.arange(3), "text"])
@pytest.mark.parametrize("nested", [False, True])
def test_extra_states_of_modules_are_stored_and_restored(tmp_path, state, nested):
    def model_fn():
        inner = Counting(None if not isinstance(state, torch.Tensor) else torch.zeros(3).long())
        return nn.Sequential(inner) if nested else inner

    module = Counting(state)
    write_model(tmp_path, RenateWrapper(nn.Sequential(module) if nested else module))
    restored = build_model(user(model_fn), {}, tmp_path, "task 1")
    found = next(each for each in restored.modules() if isinstance(each, Counting))
    if isinstance(state, torch.Tensor):
        assert torch.equal(found.state, state)
    else:
        assert found.state == state


def test_renate_module_inside_another_keeps_its_heads(tmp_path):
    class Outer(RenateModule):
        def __init__(self) -> None:
            super().__init__({})
            self.body = MLP(num_inputs=4, num_outputs=2, hidden_size=5, heads="per_task")

        def forward(self, x, task_id=None):
            return self.body(x, task_id=task_id)

    outer = Outer()
    outer.body.add_task_params("task 1")
    outer.body.add_task_params("task 2")
    write_model(tmp_path, outer)
    restored = build_model(user(Outer), {}, tmp_path, "task 1")
    assert restored.body.task_ids == outer.body.task_ids  # type: ignore[union-attr]
    x = torch.ones(2, 4)
    assert torch.equal(restored(x, task_id="task 2"), outer(x, task_id="task 2"))


def test_extra_state_that_cannot_be_stored_is_refused_by_name(tmp_path):
    model = RenateWrapper(nn.Sequential(Counting(object())))
    with pytest.raises(
        errors.StoredArgumentError, match=r"the extra state 0\._extra_state is <obj"
    ):
        write_model(tmp_path, model)
