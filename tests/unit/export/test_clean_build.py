"""`export/` is enough to build the model: a clean process builds it without the project."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from small_project import edit_config, edit_params, snapshot

from renate_stages import errors, files
from renate_stages.actions.check import check_user_config
from renate_stages.export import clean_build
from renate_stages.files import yaml_file
from renate_stages.stages import export, prepare, restore_state, train, tune

SCALE_FILE = "(Path(__file__).parent / 'scale.txt')"


def quiet(message: str) -> None:
    pass


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def trained(project, made_once):
    """A project trained but not exported; its stages declare extra files that no code reads yet."""
    yield made_once(project, train_with_files)
    sys.modules.pop("parts", None)


def train_with_files(project) -> None:
    (project.root / "scale.txt").write_text("16")
    (project.root / "words").mkdir()
    (project.root / "words" / "list.txt").write_text("a b")

    def change(content):
        for stage in ("prepare", "tune", "train", "export"):
            content["stages"][stage]["deps"] += ["scale.txt", "words", "parts.py", "labels.json"]

    yaml_file.edit(project.pipeline, change)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)


def scale_by(project, read: str) -> None:
    """Let the test transform divide inputs by a number that it reads when it is called."""
    edit_config(
        project, "    return images.float() / 16", f"    return images.float() / float({read})"
    )


def exported(project) -> set[str]:
    export.run(project, quiet)
    return {path.relative_to(project.export).as_posix() for path in project.export.rglob("*")}


def test_files_read_by_the_model_are_exported_and_listed_in_the_model_card(trained):
    scale_by(trained, f"{SCALE_FILE}.read_text()")
    edit_config(
        trained,
        "    if model_state_url is not None",
        "    open(Path(__file__).parent / 'words/list.txt').close()\n    if model_state_url is not None",
    )
    names = exported(trained)
    assert {"scale.txt", "words/list.txt", "renate_config.py", "model.ckpt"} <= names
    card = (trained.export / "MODEL_CARD.md").read_text()
    assert card.endswith("from its own folder:\n\n- `scale.txt`\n- `words/list.txt`\n")
    first = snapshot(trained)
    exported(trained)
    assert snapshot(trained) == first, "a second export changes nothing"


def test_files_read_only_during_training_are_not_exported(trained):
    lazily = "    (Path(__file__).parent / 'words/list.txt').read_text()\n"
    for name in ("def loss_fn() -> torch.nn.Module:\n", "def train_transform():\n"):
        edit_config(trained, name, name + lazily)
    names = exported(trained)
    assert not {"words", "scale.txt"} & names
    assert "## Files" not in (trained.export / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("read", "problem", "cure"),
    [
        (
            "Path('scale.txt').read_text()",
            "No such file or directory: 'scale.txt'",
            "as in `Path(__file__).parent / 'scale.txt'`",
        ),
        (
            "Path('{root}/scale.txt').read_text()",
            r"to_unit_range \(renate_config.py, line \d+\) reads scale.txt of the project",
            "as in `Path(__file__).parent / 'scale.txt'`",
        ),
        (
            "__import__('subprocess').check_output(['cat', Path(__file__).parent / 'scale.txt'])",
            "export/renate_config.py|returned non-zero exit status",
            "add the file to export.files in params.yaml",
        ),
        (
            "16 if Path('scale.txt').exists() else 8",
            "different outputs than the trained model: by up to",
            "use only packages and files of its own folder",
        ),
    ],
)
def test_export_that_depends_on_project_files_is_refused(trained, read, problem, cure):
    exported(trained)
    before = snapshot(trained)
    scale_by(trained, read.format(root=trained.root))
    before["renate_config.py"] = trained.user_config.read_bytes()
    with pytest.raises(errors.UnbuildableExportError, match=problem) as raised:
        export.run(trained, quiet)
    assert cure in str(raised.value) and str(trained.root) not in str(raised.value)
    assert snapshot(trained) == before, "the previous export is unchanged"


def test_files_listed_in_export_files_are_exported(trained):
    read = "__import__('subprocess').check_output(['cat', Path(__file__).parent / 'scale.txt'])"
    scale_by(trained, read)
    edit_params(trained, export__files=["scale.txt", "words"])
    assert {"scale.txt", "words/list.txt"} <= exported(trained)


@pytest.mark.parametrize(
    ("names", "error", "excerpt"),
    [
        (["absent.txt"], errors.ExportFileError, "the project has no file absent.txt"),
        (["empty"], errors.ExportFileError, "the project has no file empty"),
        (["other.txt"], errors.UndeclaredUserFileError, "  export:\n      - other.txt"),
        (["labels.json"], errors.ExportFileError, "export/ has another file of this name"),
        (["../x"], errors.InvalidParamsError, "expected a path inside the project"),
        (["/etc/passwd"], errors.InvalidParamsError, "expected a path inside the project"),
    ],
)
def test_invalid_export_files_are_refused_by_prepare_export_and_config_check(
    trained, names, error, excerpt
):
    (trained.root / "other.txt").write_text("")
    (trained.root / "labels.json").write_text("{}")
    (trained.root / "empty").mkdir()
    edit_params(trained, export__files=names)
    for run in (
        lambda: prepare.run(trained, quiet),
        lambda: export.run(trained, quiet),
        lambda: check_user_config(trained.root, examples=8),
    ):
        with pytest.raises(error) as raised:
            run()
        assert excerpt in str(raised.value)
    assert not trained.export.exists()


def test_user_file_with_the_name_of_an_export_file_is_refused(trained):
    (trained.root / "labels.json").write_text("16")
    scale_by(trained, "(Path(__file__).parent / 'labels.json').read_text()")
    with pytest.raises(errors.ExportFileError, match=r"labels\.json: the model needs this file"):
        export.run(trained, quiet)
    assert not trained.export.exists()


def test_module_imported_when_the_model_is_called_is_exported(trained):
    (trained.root / "parts.py").write_text("SCALE = 16\n")
    scale_by(trained, "__import__('importlib').import_module('parts').SCALE")
    assert "parts.py" in exported(trained)


PROCESSES = """
import sys, torch
from pathlib import Path
from renate_stages import params, project
from renate_stages.export import clean_build
from renate_stages.export.built_model import BuiltModel
from renate_stages.state.inputs import read_tuned
from renate_stages.models.stored import write_tensors
from renate_stages.state import State
from renate_stages.user.config import UserConfig

torch.set_num_threads(1)
place = project.Project(Path(sys.argv[1]))
fixed = params.Params.load(place.params).fixed(read_tuned(place.tuned))

def build(added):
    with clean_build.clean_process() as clean:
        state = State.open(place.state)
        user = UserConfig.of(place, "export")
        built = BuiltModel.of(user, fixed.hyperparameters, fixed, place.state, state)
        outputs = Path("outputs.safetensors").absolute()
        write_tensors(outputs, {name: each + added for name, each in built.outputs().items()})
        clean.begin(folder=str(place.export), project=str(place.root), state=str(place.state),
                    params=fixed.model_dump(mode="json"), outputs=str(outputs))
        clean.finish()

assert clean_build._may_fork()
build(0)
try:
    build(1)
except clean_build.UnbuildableExportError as error:
    assert "gives different outputs" in str(error), error
else:
    sys.exit("other outputs pass")
clean_build._may_fork = lambda: False
build(0)
print("built")
"""


def test_forked_process_and_new_interpreter_build_the_export(trained, tmp_path):
    """Starts real processes: one forked after importing only torch, and a new interpreter."""
    scale_by(trained, f"{SCALE_FILE}.read_text()")
    exported(trained)
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(trained.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout == "built\n", done.stderr
    assert not list(trained.export.rglob("__pycache__"))


def test_error_of_a_killed_process_shows_its_last_output(tmp_path):
    ours, theirs = socket.socketpair()
    log = (tmp_path / "log").open("w+b")
    log.write(b"first\nkilled by the machine\n")
    process = clean_build.CleanProcess(ours, lambda: None, log)
    theirs.close()
    process.begin(folder="x")
    with pytest.raises(errors.UnbuildableExportError, match="killed by the machine"):
        process.finish()
    process.close()


def test_champion_cannot_read_current_project_files(trained):
    """The champion is from an older release that did not check exports for completeness."""
    exported(trained)
    shutil.copytree(trained.export, trained.champion)
    content = files.read_json(trained.champion / "export.json")
    files.write_json(trained.champion / "export.json", {**content, "state": "another"})
    code = (trained.champion / "renate_config.py").read_text()
    for read, use in {
        "float(Path('scale.txt').read_text())": "reads scale.txt of the project",
        "__import__('importlib').import_module('parts').SCALE": "imports parts.py of the project",
    }.items():
        (trained.root / "parts.py").write_text("SCALE = 16\n")
        sys.modules.pop("parts", None)
        (trained.champion / "renate_config.py").write_text(code.replace("/ 16", f"/ {read}"))
        export.run(trained, quiet)
        assert use in files.read_json(trained.verdict)["problem"]
    own = code.replace("/ 16", f"/ float({SCALE_FILE}.read_text())")
    (trained.champion / "renate_config.py").write_text(own)
    (trained.champion / "scale.txt").write_text("16")
    (trained.root / "scale.txt").write_text("8")
    export.run(trained, quiet)
    verdict = files.read_json(trained.verdict)
    assert verdict["problem"] is None
    assert verdict["figures"]["average_accuracy"]["opponent"] > 0.5
    assert not list(trained.champion.rglob("__pycache__"))
