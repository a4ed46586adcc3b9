"""Models by name."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_inputs import texts

from renate_stages import errors, models
from renate_stages.learners import registry as learners
from renate_stages.learners.base.learner import hyperparameters_of
from renate_stages.models import RenateModule
from renate_stages.models.registry import MODELS, arguments_of, build, model_class

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MODELS)
def test_every_name_is_that_of_its_class(name):
    model = model_class(name)
    assert issubclass(model, RenateModule) and model.__name__ == name
    assert getattr(models, name) is model and name in models.__all__


def test_model_is_built_from_arguments_by_name():
    model = build("TabularMLP", {"num_numeric": 2, "cardinalities": [3], "num_outputs": 4})
    assert model.get_submodule("head").out_features == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("TabularMPL", "did you mean 'TabularMLP'"), ("x", "one of FTTransformer, MLP, ResNet18")],
)
def test_unknown_name_is_refused_with_a_suggestion(name, message):
    for function in (model_class, arguments_of, lambda name: build(name, {})):
        with pytest.raises(errors.UnknownModelError, match=message):
            function(name)


def test_missing_and_unknown_arguments_are_reported_together():
    with pytest.raises(errors.ModelArgumentsError) as caught:
        build("TextCNN", {"vocab_sise": 9, "num_outputs": 2, "depth": 3})
    said = str(caught.value)
    assert "vocab_size is missing" in said and "depth is unknown" in said
    assert "vocab_sise is unknown, did you mean 'vocab_size'?" in said


def test_arguments_are_those_of_the_constructor():
    found = arguments_of("TextGRU")
    assert next(iter(found)) == "vocab_size" and found["hidden_size"].default == 128


@pytest.mark.parametrize("name", MODELS)
def test_no_argument_has_the_name_of_a_learners_hyperparameter(name):
    """Both are set in `hyperparameters`, so an equal name would set both."""
    for learner in learners.LEARNERS:
        shared = arguments_of(name).keys() & hyperparameters_of(learners.learner_class(learner))
        assert not shared, f"{learner} takes {shared}"


def test_names_are_checked_without_importing_torch():
    code = (
        "import sys; from renate_stages.models.registry import MODELS, check_name; "
        "[check_name(name) for name in MODELS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def rows_of(heading: str) -> dict[str, str]:
    """Return the rows of the table under a heading of the models' page, by what is in their first cell."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line[:3] == "| `"]
    return {name: rest for names, rest in rows for name in re.findall(r"`(\w+)`", names)}


def test_page_lists_every_model():
    for heading in ("Which model", "Inputs", "Arguments"):
        assert rows_of(heading).keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_page_gives_every_argument_with_its_default(name):
    section = PAGE.split("\n## Arguments\n")[1].split("\n| ")[0]
    cells = rows_of("Arguments")[name]
    for argument, each in arguments_of(name).items():
        if argument in ("num_outputs", "heads", "nearest_mean", "random_features"):
            assert f"`{argument}`" in section
        elif each.default is each.empty or argument in ("num_channels", "vocab_sizes"):
            assert f"`{argument}`" in cells.split(" | ")[0]
        else:
            default = json.dumps(each.default).strip('"')
            assert f"`{argument}` {default.removesuffix('.0')}" in cells


def test_examples_of_the_page_run(tmp_path, capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    (tmp_path / "example.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out.splitlines() == [", ".join(MODELS), "128"]
    assert type(names["model"]).__name__ == "TabularMLP"
    model, batch = names["MeanOfTokens"](5, 2).eval(), texts([3, 0], more=2)
    before = model(batch)
    model.grow_inputs({"vocab_size": 9})
    assert torch.equal(model(batch), before) and model.grown == {"tokens": [5, 9]}
