"""MLP, SmallCNN and ResNet18, with shared heads and heads per task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from renate_stages.errors import ModelArgumentError, UnknownTaskError
from renate_stages.models import MLP, RenateModule, ResNet18, SmallCNN
from renate_stages.models.mlp import ACTIVATIONS


def small_models(heads: str) -> list[tuple[RenateModule, torch.Tensor]]:
    return [
        (MLP(12, 4, hidden_size=(6, 5), heads=heads), torch.rand(3, 3, 2, 2)),  # type: ignore
        (SmallCNN(3, 4, width=4, heads=heads), torch.rand(3, 3, 8, 8)),  # type: ignore
        (ResNet18(4, width=2, heads=heads).eval(), torch.rand(3, 3, 8, 8)),  # type: ignore
    ]


def test_mlp_output_matches_its_documented_layers() -> None:
    model = MLP(6, 2, num_hidden_layers=2, hidden_size=5, activation="Tanh")
    x = torch.rand(4, 2, 3)
    hidden = x.reshape(4, 6)
    for layer in (model.features[1], model.features[3]):  # type: ignore[index]
        hidden = torch.tanh(hidden @ layer.weight.T + layer.bias)
    expected = hidden @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


def test_mlp_accepts_a_width_per_layer_or_no_hidden_layers() -> None:
    widths = [
        m.out_features for m in MLP(4, 2, hidden_size=[7, 5, 3]).features if hasattr(m, "weight")
    ]
    assert widths == [7, 5, 3]
    assert [p.shape for p in MLP(4, 2, num_hidden_layers=0).parameters()] == [(2, 4), (2,)]


def test_mlp_drops_hidden_values_in_training_only() -> None:
    model, x = MLP(4, 2, dropout=0.5), torch.rand(8, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("size", [8, 13, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_cnn_accepts_images_of_at_least_8_pixels(size: int, channels: int) -> None:
    model = SmallCNN(channels, 10, width=4)
    assert model(torch.rand(2, channels, size, size + 1)).shape == (2, 10)


def test_cnn_output_of_an_example_does_not_depend_on_its_batch() -> None:
    model, x = SmallCNN(1, 3, width=4).train(), torch.rand(4, 1, 9, 9)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


def test_cnn_has_the_documented_number_of_parameters() -> None:
    assert round(sum(p.numel() for p in SmallCNN(1, 10).parameters()), -3) == 94_000


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_accepts_small_images_and_passes_512_features_to_the_head(
    size: int, channels: int
) -> None:
    model, x = ResNet18(10, num_channels=channels), torch.rand(2, channels, size, size)
    assert model(x).shape == (2, 10)
    assert model.features(x).shape == (2, 512)
    before_the_mean = model.features[:-2](x)  # type: ignore[index]
    assert before_the_mean.shape == (2, 512, size // 8, size // 8)


def test_resnet_has_as_many_parameters_as_the_papers_cifar_10_network() -> None:
    assert sum(p.numel() for p in ResNet18(10).parameters()) == 11_173_962


def test_resnet_block_adds_its_input_to_the_residual() -> None:
    torch.manual_seed(0)
    model, x = ResNet18(3, width=4).eval(), torch.rand(2, 4, 6, 6)
    same, halving = model.features[3], model.features[5]  # type: ignore[index]
    for block, shortcut in ((same, x), (halving, halving.shortcut(x))):
        first, norm_1, _, second, norm_2 = block.residual
        hidden = torch.relu(norm_1(torch.conv2d(x, first.weight, None, first.stride, 1)))
        expected = torch.relu(norm_2(torch.conv2d(hidden, second.weight, None, 1, 1)) + shortcut)
        torch.testing.assert_close(block(x), expected)
    assert halving(x).shape == (2, 8, 3, 3)


@pytest.mark.parametrize("heads", ["shared", "per_task"])
def test_reference_models_round_trip_through_a_file(heads: str, tmp_path: Path) -> None:
    for model, x in small_models(heads):
        for task in ("b.1", "a", "", "keys"):  # not all are legal names of modules
            model.add_task_params(task)
        torch.save(model.state_dict(), tmp_path / "model.pt")
        state = torch.load(tmp_path / "model.pt", weights_only=True)
        rebuilt = type(model).from_state_dict(state).train(model.training)
        assert rebuilt.task_ids == ["b.1", "a", "", "keys"]
        for task in rebuilt.task_ids:
            assert torch.equal(rebuilt(x, task_id=task), model(x, task_id=task))


def test_constructor_arguments_survive_a_json_round_trip() -> None:
    for model, _ in small_models("shared"):
        state = model.state_dict()
        state["_extra_state"] = json.loads(json.dumps(state["_extra_state"]))
        type(model).from_state_dict(state)


def test_shared_head_ignores_tasks() -> None:
    for model, x in small_models("shared"):
        model.add_task_params("a")
        assert torch.equal(model(x, task_id="a"), model(x))
        assert model.get_params("a") == list(model.parameters())


def test_per_task_heads_are_separate_and_trained_separately() -> None:
    for model, x in small_models("per_task"):
        model.add_task_params("a")
        head_of_a = list(model.get_params("a"))
        model.add_task_params("b")
        assert not torch.equal(model(x, task_id="a"), model(x, task_id="b"))
        assert [id(p) for p in model.get_params("a")] == [id(p) for p in head_of_a]
        assert len(model.get_params()) == len(head_of_a) + 2  # weight and bias of the other head
        model(x, task_id="a").sum().backward()
        assert all(p.grad is not None for p in model.get_params("a"))
        assert sum(p.grad is None for p in model.get_params()) == 2


def test_unknown_task_error_lists_the_known_tasks() -> None:
    for model, x in small_models("per_task"):
        with pytest.raises(UnknownTaskError, match="none yet"):
            model(x)
        model.add_task_params("spring")
        with pytest.raises(UnknownTaskError, match="did you mean 'spring'"):
            model(x, task_id="sprang")
        with pytest.raises(UnknownTaskError, match="did you mean 'spring'"):
            model.get_params("sprang")
        with pytest.raises(UnknownTaskError, match=r"None\. Its tasks: 'spring'"):
            model(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP(0, 2), "num_inputs is 0"),
        (lambda: MLP(4, 0), "num_outputs is 0"),
        (lambda: MLP(4, 2, hidden_size=(3, 0)), "hidden_size is 0"),
        (lambda: MLP(4, 2, num_hidden_layers=-1), "num_hidden_layers is -1"),
        (lambda: MLP(4, 2, dropout=1.0), "dropout is 1.0"),
        (lambda: MLP(4, 2, activation="Relu"), "activation is 'Relu'.*GELU"),
        (lambda: MLP(4, 2, heads="many"), "heads is 'many'"),  # type: ignore[arg-type]
        (lambda: SmallCNN(1.5, 2), "num_channels is 1.5"),  # type: ignore[arg-type]
        (lambda: SmallCNN(1, 2, width=0), "width is 0"),
        (lambda: ResNet18(2, width=0), "ResNet18.*width is 0"),
        (lambda: ResNet18(2, num_channels=0), "num_channels is 0"),
    ],
)
def test_model_argument_out_of_range_is_refused_by_name(build, message: str) -> None:
    with pytest.raises(ModelArgumentError, match=message):
        build()


def test_every_offered_activation_works() -> None:
    for name in ACTIVATIONS:
        assert MLP(4, 2, hidden_size=4, activation=name)(torch.rand(3, 4)).shape == (3, 2)


def test_models_import_no_lightning() -> None:
    code = (
        "import sys, renate_stages.models, renate_stages.models.heads;"
        "print([m for m in ('lightning', 'pytorch_lightning', 'torchmetrics', "
        "'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
