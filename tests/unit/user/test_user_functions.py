"""How the functions of renate_config.py are found, checked and called."""

from __future__ import annotations

import sys
import textwrap

import pytest
from small_project import edit_config

from renate_stages import errors
from renate_stages.files import yaml_file
from renate_stages.user.config import UserConfig

DATA_MODULE = "\ndef data_module_fn(data_path): ...\n"


@pytest.fixture(autouse=True)
def import_state(monkeypatch):
    """Let each test import its own `renate_config`, and forget it and its modules afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = ("renate_config", "layers", "parts", "parts.blocks")
    for name in own:
        sys.modules.pop(name, None)
    yield
    for name in own:
        sys.modules.pop(name, None)


@pytest.fixture
def load(tmp_path):
    def write_and_load(text: str, **options) -> UserConfig:
        path = tmp_path / "renate_config.py"
        path.write_text(textwrap.dedent(text) + DATA_MODULE)
        return UserConfig.load(path, **options)

    return write_and_load


@pytest.mark.parametrize(
    ("annotation", "fitting", "other"),
    [
        ("int", [0, -3], [True, 1.0, "1", None]),
        ("float", [1, 0.5], [True, "0.5", None]),
        ("bool", [True, False], [0, "true"]),
        ("str", ["", "a"], [1, None, ["a"]]),
        ("None", [None], [0]),
        ("list", [[1], []], [1, "ab"]),
        ("list[int]", [[1]], [1]),
        ("tuple[int, ...]", [[1, 2]], [1]),
        ("int | None", [1, None], ["1", True]),
        ("Optional[float]", [None, 1, 0.5], ["x", False]),
        ("Union[int, str]", [1, "a"], [1.5]),
        ("Any", [1, "a", None], []),
        ("'int'", [1], ["1"]),
        ("Literal['a', 'b']", ["a"], []),
        ("UnknownToUs", [1, "a"], []),
    ],
)
def test_hyperparameter_must_have_the_annotated_type(load, annotation, fitting, other):
    user = load(
        f"""
        from __future__ import annotations
        from typing import Any, Literal, Optional, Union
        def model_fn(model_state_url=None, value: {annotation} = ...): return value
        """
    )
    for value in fitting:
        found = user.call("model_fn", {"value": value}, model_state_url=None)
        assert found == (tuple(value) if annotation.startswith("tuple") else value)
    for value in other:
        with pytest.raises(errors.UserConfigError) as raised:
            user.call("model_fn", {"value": value}, model_state_url=None)
        assert f"but params.yaml sets {value!r}" in str(raised.value)
        assert "model_fn expects value: " in str(raised.value)


def test_user_function_receives_only_the_arguments_that_it_declares(load):
    user = load(
        """
        def model_fn(a, *, b=2, **others): return a, b, others
        def loss_fn(): return "loss"
        """
    )
    assert user.call("model_fn", {"a": 1, "c": 3}, model_state_url="x") == (1, 2, {})
    assert user.call("model_fn", {"a": 1, "b": 5}) == (1, 5, {})
    assert user.optional("loss_fn", {"a": 1}) == "loss"
    assert user.optional("metrics_fn", {"a": 1}) is None
    assert set(user.hyperparameters()) == {"a", "b"}


def test_argument_of_the_library_overrides_a_hyperparameter_of_the_same_name(load):
    user = load("def model_fn(model_state_url): return model_state_url")
    assert user.call("model_fn", {"model_state_url": "mine"}, model_state_url="given") == "given"
    assert user.hyperparameters() == {}


def test_missing_function_error_suggests_the_closest_name(load):
    with pytest.raises(errors.UserConfigError) as raised:
        load("def modelfn(model_state_url=None): ...")
    assert "the function model_fn is missing, did you mean 'modelfn'?" in str(raised.value)
    assert "define `def model_fn(model_state_url, …)`" in str(raised.value)


def test_model_fn_that_is_not_a_function_counts_as_missing(load):
    with pytest.raises(errors.UserConfigError, match="the function model_fn is missing"):
        load("model_fn = 3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os\nimport not_there\n", "line 2: ModuleNotFoundError: No module named"),
        ("def model_fn(:\n  pass\n", "line 1: SyntaxError"),
        ("x = 1\n\nraise ValueError('no data')\n", "line 3: ValueError: no data"),
    ],
)
def test_import_error_of_renate_config_names_the_failing_line(
    tmp_path, monkeypatch, text, expected
):
    path = tmp_path / "renate_config.py"
    path.write_text(text)
    with pytest.raises(errors.UserConfigError, match=expected):
        UserConfig.load(path)
    monkeypatch.chdir(tmp_path)
    relative = path.relative_to(tmp_path)
    with pytest.raises(errors.UserConfigError, match=expected):
        UserConfig.load(relative)


def test_missing_renate_config_is_reported(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"renate_config\.py is missing"):
        UserConfig.load(tmp_path / "renate_config.py")


def test_error_names_the_failing_user_function_and_its_line(load):
    user = load("def model_fn(size: int):\n    return [1, 2][size]\n")
    with pytest.raises(errors.UserConfigError) as raised:
        user.call("model_fn", {"size": 5})
    assert "model_fn failed at line 2: IndexError: list index out of range" in str(raised.value)
    assert isinstance(raised.value.__cause__, IndexError)


def test_library_error_inside_a_user_function_is_not_wrapped(load):
    user = load(
        """
        from renate_stages.models import MLP
        def model_fn(): return MLP(num_inputs=0, num_outputs=2)
        """
    )
    with pytest.raises(errors.ModelArgumentError, match="num_inputs is 0"):
        user.call("model_fn", {})


MODULE = """
def model_fn(model_state_url=None): ...
class Module:
    def __init__(self, *a): self.calls = []
    def prepare_data(self): self.calls.append("prepare_data")
    def setup(self): self.calls.append("setup")
    def train_data(self): ...
def data_module_fn(data_path: str, seed: int = 0, size: int = 3):
    module = Module()
    module.given = (data_path, seed, size)
    return module
"""


def data_module(folder, text: str, arguments):
    path = folder / "renate_config.py"
    path.write_text(text)
    return UserConfig.load(path).data_module(folder / "data", arguments, seed=7)


def test_data_module_gets_its_arguments_and_is_set_up(tmp_path):
    module = data_module(tmp_path, MODULE, {"size": 5})
    assert module.given == (str(tmp_path / "data"), 7, 5)
    assert module.calls == ["prepare_data", "setup"]


def test_data_module_gets_the_constant_hyperparameters_that_it_names(tmp_path):
    path = tmp_path / "renate_config.py"
    path.write_text(MODULE)
    user = UserConfig.load(path)
    shared = {"size": 9, "learning_rate": 0.1}
    assert user.data_module(tmp_path, {}, 7, shared).given == (str(tmp_path), 7, 9)
    assert user.data_module(tmp_path, {"size": 5}, 7, shared).given == (str(tmp_path), 7, 5)
    with pytest.raises(errors.UserConfigError, match="takes 'size', which is searched"):
        user.data_module(tmp_path, {}, 7, {}, ["size"])
    assert user.data_module(tmp_path, {"size": 5}, 7, {}, ["size"]).given[2] == 5


def test_unknown_data_module_argument_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(errors.UserConfigError) as raised:
        data_module(tmp_path, MODULE, {"sise": 5})
    assert "data.arguments.sise" in str(raised.value)
    assert "did you mean 'size'?" in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "error", "expected"),
    [
        ("return module", "return None", errors.DataModuleError, "it returned NoneType"),
        (
            'self.calls.append("setup")',
            "open('nothing here')",
            errors.UserConfigError,
            "data_module_fn failed at line 6: FileNotFoundError",
        ),
    ],
)
def test_unusable_data_module_is_refused(tmp_path, old, new, error, expected):
    with pytest.raises(error, match=expected):
        data_module(tmp_path, MODULE.replace(old, new), {})


@pytest.mark.parametrize("declared", [["layers.py", "parts"], ["layers.py", "parts/"]])
def test_modules_must_be_declared_as_files_or_folders(project, declared):
    (project.root / "layers.py").write_text("SIZE = 3\n")
    (project.root / "parts").mkdir()
    (project.root / "parts" / "blocks.py").write_text("SIZE = 4\n")
    edit_config(
        project, "import numpy as np", "import layers\nimport parts.blocks\nimport numpy as np"
    )

    with pytest.raises(errors.UndeclaredUserFileError) as raised:
        UserConfig.load(project.user_config, stage="train")
    assert "renate_config.py imports layers.py, parts/blocks.py" in str(raised.value)
    for name in ("layers", "parts", "parts.blocks"):
        del sys.modules[name]

    def declare(content):
        for stage in ("prepare", "tune", "train", "export"):
            content["stages"][stage]["deps"].extend(declared)

    yaml_file.edit(project.pipeline, declare)
    assert "model_fn" in UserConfig.load(project.user_config, stage="train").functions


def test_module_outside_the_project_needs_no_declaration(project, tmp_path):
    (tmp_path / "layers.py").write_text("SIZE = 3\n")
    sys.path.insert(0, str(tmp_path))
    edit_config(project, "import numpy as np", "import layers\nimport numpy as np")
    assert "model_fn" in UserConfig.load(project.user_config, stage="train").functions
