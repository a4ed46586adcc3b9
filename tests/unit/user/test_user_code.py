"""Errors in the user's functions: the message names the function and the line of user code."""

from __future__ import annotations

import pytest
import torch
from small_project import edit_config, edit_params, quiet, run, snapshot

from renate_stages import errors
from renate_stages.errors import user_code
from renate_stages.stages import prepare
from renate_stages.training.guarded import guarded

LOSS = 'return torch.nn.CrossEntropyLoss(reduction="none")'
SCALED = "    return images.float() / 16"


ANCHOR = "def to_unit_range("
OPTIMIZER = (
    "def optimizer_fn(learning_rate, momentum, optimizer, weight_decay):\n    return lambda parameters: {}\n\n\n"
    + ANCHOR
)
SCHEDULER = (
    "def lr_scheduler_fn():\n"
    "    return torch.optim.lr_scheduler.ReduceLROnPlateau, 'epoch'\n\n\n" + ANCHOR
)
METRICS = "def metrics_fn():\n    return {}\n\n\n" + ANCHOR


@pytest.mark.parametrize(
    ("old", "new", "error", "expected"),
    [
        (
            "return Batched(to_unit_range)",
            "return 3",
            errors.UserResultError,
            "renate_config.py: train_transform returned a int; expected a callable",
        ),
        (
            SCALED,
            "    return images.float()[1:]",
            errors.UserResultError,
            r"the transform Batched\(to_unit_range\) returned .*; expected tensors of \d+ rows",
        ),
        (LOSS, "return 3", errors.UserResultError, "renate_config.py: loss_fn returned a int"),
        (
            LOSS,
            "return lambda *_: 3",
            errors.UserResultError,
            "loss_fn returned .* that returns a int",
        ),
        (
            "num_outputs=10",
            "num_outputs=1",
            errors.AmbiguousTaskError,
            r"targets of int64 of shape \(\d+,\) and outputs of float32 of shape \(\d+, 1\)",
        ),
        (
            "num_inputs=64",
            "num_inputs=60",
            errors.UserCodeError,
            r"the model of model_fn, given inputs of float32 \(\d+, 8, 8\), failed: RuntimeError",
        ),
        (
            ANCHOR,
            METRICS.format("[1]"),
            errors.UserResultError,
            "renate_config.py: metrics_fn returned .*; expected a dict of torchmetrics metrics",
        ),
        (
            ANCHOR,
            METRICS.format("{'auroc': __import__('torchmetrics').classification.BinaryAUROC()}"),
            errors.UserCodeError,
            "metrics_fn, metric 'auroc' failed: ",
        ),
        (
            ANCHOR,
            OPTIMIZER.format("None"),
            errors.UserResultError,
            "renate_config.py: optimizer_fn returned a function that returns None",
        ),
        (
            ANCHOR,
            SCHEDULER,
            errors.UserResultError,
            "lr_scheduler_fn returned .* ReduceLROnPlateau, which needs a metric",
        ),
    ],
)
def test_error_names_the_user_function_that_fails_or_returns_a_wrong_type(
    project, old, new, error, expected
):
    edit_params(project, trainer__max_epochs=1)
    edit_config(project, old, new)
    with pytest.raises(error, match=expected):
        run(project)
    assert not project.state.exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (SCALED, "    return images @ 3", "to_unit_range failed at renate_config.py, line "),
        (ANCHOR, OPTIMIZER.format("torch.optim.SGD(3)"), "failed at renate_config.py, line "),
    ],
)
def test_error_names_the_failing_line_of_user_code(project, old, new, expected):
    edit_config(project, old, new)
    with pytest.raises(TypeError) as raised:
        run(project)
    message = str(user_code.blamed(raised.value))  # as on the command line
    assert expected in message and "TypeError: " in message


def test_error_names_the_failing_dataset_method_and_nothing_is_prepared(project):
    edit_config(project, "class DigitsDataModule", BROKEN + "\n\nclass DigitsDataModule")
    edit_config(project, "TensorDataset(", "Broken(")
    before = snapshot(project)
    with pytest.raises(ValueError, match="unreadable picture") as raised:
        prepare.run(project, quiet)
    blamed = user_code.blamed(raised.value)
    assert "Broken.__getitem__ failed at renate_config.py, line " in str(blamed)
    assert snapshot(project) == before


BROKEN = """class Broken(TensorDataset):
    def __getitem__(self, i):
        raise ValueError("unreadable picture")
"""


def test_command_line_reports_the_failing_line_and_saves_the_traceback(
    project, monkeypatch, capsys
):
    code = compile("\n\n1 / 0", str(project.user_config), "exec")
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: exec(code, {}))  # noqa: S102 -- stands for user code
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert "failed at renate_config.py, line 3: ZeroDivisionError: division by zero" in message
    assert (
        "The whole traceback is in .renate/traceback.txt." in message and "Traceback" not in message
    )
    kept = (project.scratch / "traceback.txt").read_text()
    assert kept.startswith("Traceback") and "in guarded" in kept

    monkeypatch.setenv("RENATE_STAGES_TRACEBACKS", "1")
    with pytest.raises(SystemExit):
        guarded(lambda: exec(code, {}))  # noqa: S102
    message = capsys.readouterr().err
    assert message.startswith("Traceback") and "traceback.txt" not in message


def test_error_outside_user_code_is_not_attributed_to_the_user():
    try:
        raise ValueError("a defect")
    except ValueError as error:
        error.__traceback__ = None
        assert user_code.blamed(error) is None


def test_outline_describes_nested_values_in_at_most_200_characters():
    tree = {"x": (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), "y": None, "z": "text"}
    assert user_code.outline(tree) == "{x: (float32 (2, 3), int64 (2,)), y: None, z: a str}"
    assert len(user_code.outline({str(each): torch.zeros(1) for each in range(100)})) == 200
