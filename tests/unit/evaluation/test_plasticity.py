"""Figures of plasticity, compared with their formulas written out, and their history."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from renate_stages import errors
from renate_stages.evaluation.plasticity import effective_rank, plasticity
from renate_stages.evaluation.plasticity_history import PlasticityHistory
from renate_stages.models import MLP, RenateModule, RenateWrapper, ResNet18, SmallCNN

ROWS = 12
NO_FIGURE = {"dead_units": None, "effective_rank": None, "feature_dimension": None}


def batches(*shape: int, size: int = 5) -> list[torch.Tensor]:
    rows = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(1))
    return list(rows.split(size))


def entropy_rank(features: torch.Tensor) -> float:
    values = np.linalg.svd(features.detach().double().numpy(), compute_uv=False)
    shares = [value / values.sum() for value in values if value > 0]
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.fixture
def mlp() -> MLP:
    torch.manual_seed(0)
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=[6, 4])
    with torch.no_grad():
        model.features[1].bias[:2] = -100  # two units of the first layer never react
        model.features[3].bias[1] = -100  # and one of the second
        model.features[3].bias[2] = 100  # always on, which is not dead
    return model


def test_figures_are_those_of_the_formulas(mlp):
    data = batches(5)
    found = plasticity(mlp, data)
    features = mlp.features(torch.cat(data))
    weights = nn.utils.parameters_to_vector(mlp.parameters()).detach().double()
    assert found["dead_units"] == pytest.approx(3 / 10)
    assert found["weight_norm"] == pytest.approx(float((weights**2).mean().sqrt()), rel=1e-5)
    assert found["effective_rank"] == pytest.approx(entropy_rank(features), rel=1e-5)
    assert found["feature_dimension"] == 4


def test_figures_do_not_depend_on_the_batches(mlp):
    one, several = (plasticity(mlp, batches(5, size=size)) for size in (ROWS, 2))
    assert one == pytest.approx(several)


@pytest.mark.parametrize(("number", "equal"), [(3, True), (1, True), (3, False)])
def test_effective_rank_of_known_matrices(number, equal):
    values = torch.ones(number) if equal else torch.tensor([0.5, 0.25, 0.25])
    matrix = torch.diag(values)
    assert effective_rank(matrix) == pytest.approx(number if equal else 2**1.5)


def test_effective_rank_of_zeros_and_of_infinite_features_is_unknown():
    assert effective_rank(torch.zeros(4, 3)) is None
    assert effective_rank(torch.full((4, 3), math.inf)) is None


@pytest.mark.parametrize("activation", ["GELU", "Tanh", "Sigmoid", "SiLU", "ELU"])
def test_unit_that_is_constant_after_a_smooth_activation_is_dead(activation):
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=[4], activation=activation)
    with torch.no_grad():
        model.features[1].bias[0] = -100
    assert plasticity(model, batches(5))["dead_units"] == 0.25


def test_units_of_convolutions_are_channels():
    torch.manual_seed(0)
    model = SmallCNN(num_channels=1, num_outputs=3, width=4)
    with torch.no_grad():
        model.features[0][1].weight[1] = 0  # of the group norm
        model.features[0][1].bias[1] = -1
    found = plasticity(model, batches(1, 8, 8))
    assert found["dead_units"] == pytest.approx(1 / (4 + 8 + 16), rel=1e-5)
    assert found["feature_dimension"] == 16


def test_units_of_linear_layers_on_sequences_are_the_last_dimension():
    class Sequences(RenateModule):
        def __init__(self) -> None:
            super().__init__({})
            self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
            self.head = nn.Linear(8, 2)
            with torch.no_grad():
                self.body[0].bias[:3] = -100

        def forward(self, x, task_id=None):
            return self.head(self.body(x).mean(1))

    assert plasticity(Sequences(), batches(7, 5))["dead_units"] == 3 / 8


def test_activation_that_is_used_twice_counts_at_each_place():
    class Twice(RenateModule):
        def __init__(self) -> None:
            super().__init__({})
            self.one, self.two, self.act = nn.Linear(5, 4), nn.Linear(4, 4), nn.ReLU()
            self.head = nn.Linear(4, 2)
            with torch.no_grad():
                self.one.bias[0] = -100

        def forward(self, x, task_id=None):
            return self.head(self.act(self.two(self.act(self.one(x)))))

    torch.manual_seed(0)
    model = Twice()
    with torch.no_grad():
        model.two.bias.fill_(100)
    assert plasticity(model, batches(5))["dead_units"] == 1 / 8


def test_activation_after_the_last_linear_layer_is_no_hidden_unit():
    model = RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()))
    with torch.no_grad():
        model.wrapped[0].bias.fill_(100)
        model.wrapped[2].weight.zero_()  # a constant output
    assert plasticity(model, batches(5))["dead_units"] == 0


def test_model_without_activation_modules_has_no_share_of_dead_units():
    model = RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)))
    found = plasticity(model, batches(5))
    assert found["dead_units"] is None and found["feature_dimension"] == 4


def test_model_without_a_linear_layer_has_no_rank():
    model = RenateWrapper(nn.Sequential(nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten()))
    found = plasticity(model, batches(1, 5))
    assert (found["effective_rank"], found["feature_dimension"]) == (None, None)
    assert found["dead_units"] is not None and found["weight_norm"] is not None


def test_features_of_every_token_have_no_rank():
    model = RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    found = plasticity(model, batches(7, 5))
    assert found["effective_rank"] is None and found["dead_units"] is not None


def test_unknown_dimension_of_units_gives_no_share():
    model = RenateWrapper(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(35, 2)))
    assert plasticity(model, batches(7, 5))["dead_units"] is None


def test_one_row_gives_no_figures_of_rows(mlp):
    found = plasticity(mlp, [torch.randn(1, 5)])
    assert found == {**NO_FIGURE, "weight_norm": found["weight_norm"]}


def test_weights_that_are_not_finite_give_no_figures(mlp):
    with torch.no_grad():
        mlp.features[1].weight[0, 0] = math.nan
    assert set(plasticity(mlp, batches(5)).values()) == {None, 4}


def test_frozen_weights_do_not_count(mlp):
    mlp.features.requires_grad_(False)
    weights = torch.cat([mlp.head.weight.flatten(), mlp.head.bias]).detach()
    expected = float((weights**2).mean().sqrt())
    assert plasticity(mlp, batches(5))["weight_norm"] == pytest.approx(expected, rel=1e-5)


def test_measuring_changes_neither_the_model_nor_the_global_generators():
    model = ResNet18(num_outputs=3, num_channels=1, width=4)
    model.train()
    model.features[0].eval()
    before = {n: v.clone() for n, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    random_state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    found = plasticity(model, batches(1, 16, 16))
    assert all(value is not None for value in found.values())
    assert all(torch.equal(model.state_dict()[n], v) for n, v in before.items())
    assert model.training and not model.features[0].training
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert random.getstate() == random_state[0]
    assert (np.random.get_state()[1] == random_state[1]).all()
    assert torch.equal(torch.get_rng_state(), random_state[2])


# -- history --------------------------------------------------------------------------------------

ONE = {"dead_units": 0.1, "weight_norm": 2.0, "effective_rank": 3.5, "feature_dimension": 4.0}
OTHER = {**ONE, "dead_units": None}


def test_history_is_written_and_read(tmp_path):
    path = tmp_path / "plasticity.csv"
    history = PlasticityHistory.read(path).with_update(2, ONE, OTHER).with_update(1, None, ONE)
    history.write(path)
    assert path.read_text() == (
        "update,phase,dead_units,weight_norm,effective_rank,feature_dimension\n"
        "1,after,0.1,2,3.5,4\n2,before,0.1,2,3.5,4\n2,after,,2,3.5,4\n"
    )
    assert PlasticityHistory.read(path) == history
    assert history.after() == {1: ONE, 2: OTHER} and list(history.after()) == [1, 2]
    assert history.summary(2) == {**OTHER, "before": ONE}
    assert history.summary(1) == {**ONE, "before": dict.fromkeys(ONE)}
    assert history.summary(3) is None


def test_update_that_runs_again_replaces_its_figures():
    history = PlasticityHistory().with_update(1, ONE, ONE).with_update(1, ONE, OTHER)
    assert history.after() == {1: OTHER}


def test_empty_history_writes_no_file(tmp_path):
    PlasticityHistory().write(tmp_path / "plasticity.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "row", ["-1,after,,,,", "1,later,,,,", "1,after,x,,,", "1,after,,,", "1,after,,,,\n1,after,,,,"]
)
def test_malformed_history_is_refused(tmp_path, row):
    path = tmp_path / "plasticity.csv"
    head = "update,phase,dead_units,weight_norm,effective_rank,feature_dimension\n"
    path.write_text(f"{head}{row}\n")
    with pytest.raises(errors.MalformedFileError, match="plasticity"):
        PlasticityHistory.read(path)
