"""The exported program equals the model for any batch size and contains nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from small_project import edit_config, edit_params
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.export.program import UnexportableModelError, name_of, trace
from renate_stages.models import MLP, RenateModule
from renate_stages.models.registry import build
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State

pytestmark = pytest.mark.usefixtures("no_pictures")

STAGES = (prepare, restore_state, tune, train, export)


class Pair(RenateModule):
    """Takes a dict with a tensor and a tuple; returns two tensors."""

    def __init__(self) -> None:
        super().__init__({})
        self.layer = nn.Linear(3, 2)

    def forward(self, x, task_id=None):
        left, (right,) = x["left"], x["rest"]
        return {"sum": self.layer(left) + right, "length": right.sum(1)}


class Branching(RenateModule):
    def __init__(self) -> None:
        super().__init__({})

    def forward(self, x, task_id=None):
        return x if x.sum() > 0 else -x


class MeanOverLength(RenateModule):
    """Takes rows padded to any length."""

    def __init__(self) -> None:
        super().__init__({})
        self.embedding = nn.Embedding(9, 4)

    def forward(self, x, task_id=None):
        return self.embedding(x).mean(1)


def test_program_equals_the_model_for_any_batch_size(tmp_path):
    model = MLP(64, 10, dropout=0.5)
    trace(model, torch.rand(4, 8, 8), None).write(tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    for rows in (1, 2, 5, 300):
        images = torch.rand(rows, 8, 8)
        torch.testing.assert_close(program(images), model.eval()(images))


def test_nested_inputs_and_outputs_are_described_by_name():
    batch = {"left": torch.rand(5, 3), "rest": (torch.rand(5, 2),)}
    program = trace(Pair(), batch, None)
    assert program.inputs == [
        {"name": "left", "dtype": "float32", "shape": [None, 3]},
        {"name": "rest.0", "dtype": "float32", "shape": [None, 2]},
    ]
    assert [each["name"] for each in program.outputs] == ["sum", "length"]
    assert program.columns() is None


def test_program_accepts_padded_rows_of_any_length():
    model = MeanOverLength()
    program = trace(model, torch.ones(3, 6, dtype=torch.int64), None, ragged=("",))
    tokens = torch.arange(8).reshape(1, 8)
    torch.testing.assert_close(program.exported.module()(tokens), model(tokens))
    assert program.inputs[0]["shape"] == [None, None]
    assert program.outputs[0]["shape"] == [None, 4] and program.columns() == 4


class OfPositions(MeanOverLength):
    def forward(self, x, task_id=None):
        return self.embedding(x)


def test_outputs_of_positions_have_columns_but_no_fixed_length():
    program = trace(OfPositions(), torch.ones(3, 6, dtype=torch.int64), None, ragged=("",))
    assert program.outputs[0]["shape"] == [None, None, 4]
    assert program.columns() is None and program.columns(3) == 4


@pytest.mark.parametrize(
    ("heads", "task_id"), [("shared", "anything"), ("per_task", "b")], ids=["shared", "per task"]
)
def test_program_includes_the_head_of_its_task_id(heads, task_id):
    model = MLP(4, 3, heads=heads)
    model.add_task_params("a")
    model.add_task_params("b")
    x = torch.rand(3, 4)
    program = trace(model, x, task_id).exported.module()
    torch.testing.assert_close(program(x), model(x, task_id=task_id))


def test_model_with_data_dependent_branches_is_refused_in_one_line():
    with pytest.raises(UnexportableModelError) as caught:
        trace(Branching(), torch.rand(3, 2), None)
    assert len(str(caught.value).splitlines()) == 1


def test_program_file_is_deterministic_and_contains_no_examples(tmp_path):
    torch.manual_seed(0)
    model, images = MLP(64, 10, hidden_size=4), torch.rand(3, 8, 8)
    written = set()
    for name, batch in (("a.pt2", images), ("sub/other.pt2", torch.rand(7, 8, 8))):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        trace(model, batch, None).write(path)
        written.add(path.read_bytes())
    (content,) = written
    assert str(tmp_path).encode() not in content and b".py" not in content
    for row in images:
        assert row.numpy().tobytes() not in content


def test_transforms_are_named_as_in_the_users_file():
    from functools import partial

    from renate_stages.data import Batched

    assert name_of(None) is None
    assert name_of(Batched(torch.relu)) == "Batched(relu)"
    assert name_of(partial(torch.clamp, min=0)) == "partial(clamp)"
    assert name_of(nn.Flatten()) == "Flatten"


def test_exported_program_is_described_and_runs_without_renate_stages(project, tmp_path):
    for stage in STAGES:
        stage.run(project, lambda message: None)
    described = json.loads((project.export / "program.json").read_text())
    assert described["inputs"] == [{"name": None, "dtype": "float32", "shape": [None, 8, 8]}]
    assert described["transforms"]["test_transform"] == "Batched(to_unit_range)"
    labels = json.loads((project.export / "labels.json").read_text())
    assert labels == {"classes": [0, 1, 2, 3], "columns": 10, "task": "classification"}
    card = (project.export / "MODEL_CARD.md").read_text()
    assert "`model.pt2` needs neither" in card and "float32 (any, 8, 8)" in card

    holdout = State.open(project.state).split("holdouts")[1]
    images, targets = StoredDataset(holdout).__getitems__(range(len(holdout)))
    np.save(tmp_path / "images.npy", images.float().numpy() / 16)
    program = (
        "import sys, numpy, torch\n"
        f"images = torch.from_numpy(numpy.load({str(tmp_path / 'images.npy')!r}))\n"
        f"model = torch.export.load({str(project.export / 'model.pt2')!r}).module()\n"
        "print(*model(images).argmax(1).tolist())\n"
        "assert not {'renate_stages', 'renate_config', 'pytorch_lightning'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    predicted = np.array(done.stdout.split(), dtype=np.int64)
    metrics = json.loads(project.update_metrics.read_text())
    assert (predicted == targets.numpy()).mean() == pytest.approx(metrics["accuracy"]["overall"])


def test_update_completes_when_its_model_has_no_exportable_program(project):
    edit_config(
        project,
        "def loss_fn()",
        "class Branching(MLP):\n"
        "    def forward(self, x, task_id=None):\n"
        "        return super().forward(x if x.sum() > 0 else -x)\n\n\n"
        "def loss_fn()",
    )
    edit_config(project, "return MLP.from", "return Branching.from")
    edit_config(project, "return MLP(num", "return Branching(num")
    messages = []
    for stage in STAGES:
        stage.run(project, messages.append)
    assert any("no export/model.pt2" in line for line in messages)
    assert not (project.export / "model.pt2").exists()
    assert json.loads((project.export / "program.json").read_text())["program"] is None
    assert "There is no `model.pt2`" in (project.export / "MODEL_CARD.md").read_text()
    assert (project.export / "model.ckpt").is_file() and project.report.is_file()


def test_onnx_export_without_its_packages_is_refused_before_any_work(project, monkeypatch):
    monkeypatch.setattr("renate_stages.export.program_files.find_spec", lambda name: None)
    for stage in STAGES[:-1]:
        stage.run(project, lambda message: None)
    edit_params(project, export__onnx=True)
    with pytest.raises(errors.MissingExtraError, match="renate-stages\\[onnx\\]"):
        export.run(project)
    assert not project.export.exists()


def export_with_onnx(project) -> list[str]:
    messages: list[str] = []
    edit_params(project, export__onnx=True)
    for stage in STAGES:
        stage.run(project, messages.append)
    return messages


@pytest.fixture
def with_onnx():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("with_onnx")
def test_onnx_file_is_exported_and_the_model_card_code_runs(project, tmp_path):
    export_with_onnx(project)
    described = json.loads((project.export / "program.json").read_text())
    assert (described["program"], described["onnx"]) == ("model.pt2", "model.onnx")
    card = (project.export / "MODEL_CARD.md").read_text()
    code = card.split("```python\n")[-1].split("```")[0]
    assert "onnxruntime.InferenceSession" in code

    holdout = State.open(project.state).split("holdouts")[1]
    images, targets = StoredDataset(holdout).__getitems__(range(len(holdout)))
    np.save(tmp_path / "images.npy", images.float().numpy() / 16)
    code = code.replace("...", f"numpy.load({str(tmp_path / 'images.npy')!r})")
    program = (
        f"import sys, numpy\n{code}\n"
        "print(*outputs[0].argmax(1).tolist())\n"
        "assert not {'torch', 'renate_stages', 'renate_config'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project.export,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predicted = np.array(done.stdout.split(), dtype=np.int64)
    metrics = json.loads(project.update_metrics.read_text())
    assert (predicted == targets.numpy()).mean() == pytest.approx(metrics["accuracy"]["overall"])


@pytest.mark.usefixtures("with_onnx")
def test_export_omits_onnx_when_the_conversion_fails(project):
    edit_config(
        project,
        "def loss_fn()",
        "class Bessel(MLP):\n"
        "    def forward(self, x, task_id=None):\n"
        "        found = super().forward(x)\n"
        "        return found + torch.special.bessel_j0(found.detach())\n\n\n"
        "def loss_fn()",
    )
    edit_config(project, "return MLP.from", "return Bessel.from")
    edit_config(project, "return MLP(num", "return Bessel(num")
    messages = export_with_onnx(project)
    assert any("no export/model.onnx: PyTorch could not convert" in line for line in messages)
    described = json.loads((project.export / "program.json").read_text())
    assert (described["program"], described["onnx"]) == ("model.pt2", None)
    assert len(described["onnx_reason"].splitlines()) == 1
    assert "There is no `model.onnx`" in (project.export / "MODEL_CARD.md").read_text()
    names = {path.name for path in project.export.iterdir()}
    assert "model.pt2" in names and not any(name.startswith("model.onnx") for name in names)


def test_export_does_not_mention_onnx_unless_requested(project):
    for stage in STAGES:
        stage.run(project, lambda message: None)
    assert "onnx" not in (project.export / "MODEL_CARD.md").read_text()
    assert "onnx" not in json.loads((project.export / "program.json").read_text())


def test_a_program_that_takes_inputs_of_one_length_only_is_refused():
    batch = {"input_ids": torch.randint(2, 20, (4, 7)), "attention_mask": torch.ones(4, 7).long()}
    arguments = {"vocab_size": 20, "num_outputs": 2}
    convolution = build("TextCNN", arguments).eval()
    assert trace(convolution, batch, "task", ragged=("",)).inputs[0]["shape"] == [None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch.export on recurrent layers
        with pytest.raises(UnexportableModelError, match="length that was traced"):
            trace(build("TextGRU", arguments).eval(), batch, "task", ragged=("",))
