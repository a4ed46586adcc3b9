"""The ONNX file equals the program for any batch size (tests need the extra `onnx`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from renate_stages.export.onnx_program import onnx_name, write_onnx
from renate_stages.export.program import Program, UnexportableModelError, trace
from renate_stages.models import MLP, RenateModule, ResNet18, SmallCNN

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Nested(RenateModule):
    """Returns a dict with the key of an input, one input unchanged, and one output twice."""

    def __init__(self) -> None:
        super().__init__({})
        self.layer = nn.Linear(3, 2)

    def forward(self, x, task_id=None):
        found = self.layer(x["left"])
        return {"left": found, "rest": (x["rest"][0], found)}


class OneOfTwo(RenateModule):
    """Ignores one of its inputs."""

    def __init__(self) -> None:
        super().__init__({})
        self.layer = nn.Linear(3, 2)

    def forward(self, x, task_id=None):
        return self.layer(x["read"])


class Tokens(RenateModule):
    """A small transformer over rows padded to any length."""

    def __init__(self) -> None:
        super().__init__({})
        self.embedding = nn.Embedding(30, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x, task_id=None):
        found = self.encoder(self.embedding(x["ids"]), src_key_padding_mask=~x["mask"])
        return self.head(found.mean(1))


def tokens(rows: int, length: int = 6) -> dict[str, torch.Tensor]:
    ids = torch.arange(rows * length).reshape(rows, length) % 30
    return {"ids": ids, "mask": torch.ones(rows, length, dtype=torch.bool)}


def nested(rows: int) -> dict:
    return {"left": torch.rand(rows, 3), "rest": (torch.rand(rows, 2),)}


MODELS = {
    "mlp": (lambda: MLP(64, 10, dropout=0.5), lambda rows: torch.rand(rows, 8, 8), ()),
    "cnn": (lambda: SmallCNN(1, 10), lambda rows: torch.rand(rows, 1, 8, 8), ()),
    "resnet": (lambda: ResNet18(10, width=8), lambda rows: torch.rand(rows, 3, 32, 32), ()),
    "nested": (Nested, nested, ()),
    "tokens": (Tokens, tokens, ("",)),
}


def run(path, program: Program, batch) -> list[np.ndarray]:
    """Run the file in ONNX Runtime as the model card describes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [onnx_name("inputs", each) for each in program.inputs]
    arrays = [tensor.numpy() for tensor in pytree.tree_leaves(batch)]
    given = dict(zip(names, arrays, strict=True))
    return session.run(None, {each.name: given[each.name] for each in session.get_inputs()})


@pytest.mark.parametrize("name", MODELS)
def test_onnx_file_equals_the_model_for_any_batch_size(tmp_path, name):
    torch.manual_seed(0)
    make, batch_of, ragged = MODELS[name]
    model = make()
    program = trace(model, batch_of(4), None, ragged=ragged)
    write_onnx(program, batch_of(4), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    for rows in (1, 2, 7, 300):
        batch = batch_of(rows)
        found = run(tmp_path / "model.onnx", program, batch)
        with torch.no_grad():
            expected = pytree.tree_leaves(model.eval()(batch))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_file_accepts_padded_rows_of_any_length(tmp_path):
    model = Tokens()
    program = trace(model, tokens(3), None, ragged=("",))
    write_onnx(program, tokens(3), tmp_path / "model.onnx")
    for length in (1, 6, 19):
        (found,) = run(tmp_path / "model.onnx", program, tokens(2, length))
        expected = model.eval()(tokens(2, length)).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_onnx_inputs_outputs_and_dynamic_sizes_have_descriptive_names(tmp_path):
    write_onnx(trace(Nested(), nested(3), None), nested(3), tmp_path / "nested.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "nested.onnx"))
    assert {each.name: each.shape for each in session.get_inputs()} == {
        "inputs.left": ["batch", 3],
        "inputs.rest.0": ["batch", 2],
    }
    names = ["outputs.left", "outputs.rest.0", "outputs.rest.1"]
    assert [each.name for each in session.get_outputs()] == names
    program = trace(Tokens(), tokens(3), None, ragged=("",))
    write_onnx(program, tokens(3), tmp_path / "tokens.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "tokens.onnx"))
    assert [each.shape for each in session.get_inputs()] == [["batch", "length_1"]] * 2
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        ("outputs", ["batch", 3])
    ]


def test_onnx_export_accepts_an_unused_input(tmp_path):
    batch = {"read": torch.rand(4, 3), "unread": torch.rand(4, 5)}
    model = OneOfTwo()
    program = trace(model, batch, None)
    write_onnx(program, batch, tmp_path / "model.onnx")
    (found,) = run(tmp_path / "model.onnx", program, batch)
    expected = model(batch).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_onnx_file_is_deterministic_and_contains_no_examples_or_paths(tmp_path):
    torch.manual_seed(0)
    model = MLP(64, 10, dropout=0.5)
    written = set()
    for number, rows in enumerate((3, 7, 4, 8)):
        images = torch.rand(rows, 8, 8)
        path = tmp_path / str(number) / "model.onnx"
        path.parent.mkdir()
        write_onnx(trace(model, images, None), images, path)
        written.add(path.read_bytes())
        assert all(row.numpy().tobytes() not in path.read_bytes() for row in images)
    (content,) = written
    for private in (str(tmp_path), ".py", "renate_stages"):
        assert private.encode() not in content


def test_onnx_conversion_prints_nothing(tmp_path, capfd):
    images = torch.rand(3, 8, 8)
    write_onnx(trace(MLP(64, 10), images, None), images, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_onnx_file_with_different_outputs_is_refused_and_removed(tmp_path, monkeypatch):
    from renate_stages.export import onnx_program

    images = torch.rand(3, 8, 8)
    program, run = trace(MLP(64, 10), images, None), onnx_program._run
    monkeypatch.setattr(onnx_program, "_run", lambda *given: [run(*given)[0] + 0.1])
    with pytest.raises(UnexportableModelError, match="other outputs"):
        write_onnx(program, images, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
