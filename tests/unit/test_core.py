"""Files, params, projects, user functions, random generators, states and imports."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_project import REPOSITORY

import renate_stages
from renate_stages import errors, files
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.stages import restore_state, train, tune
from renate_stages.state import state
from renate_stages.user.config import UserConfig


def test_failed_write_of_a_folder_keeps_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with files.whole_directory(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), files.whole_directory(target) as folder:
        (folder / "a").write_text("2")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "a").read_text() == "1"


def test_leftovers_of_a_killed_process_are_removed_and_the_old_folder_restored(tmp_path):
    (tmp_path / ".out.0123abcd.new").mkdir()
    (tmp_path / ".out.9.old").mkdir()
    (tmp_path / ".out.9.old" / "a").write_text("1")
    with pytest.raises(RuntimeError), files.whole_directory(tmp_path / "out"):
        assert (tmp_path / "out" / "a").read_text() == "1"
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_write_text_replaces_a_hard_linked_file(tmp_path):
    (tmp_path / "cached").write_text("old")
    (tmp_path / "cached").chmod(0o444)
    os.link(tmp_path / "cached", tmp_path / "file")
    files.write_text(tmp_path / "file", "new")
    assert (tmp_path / "cached").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_link_or_copy_of_a_symlink_links_its_target(tmp_path):
    (tmp_path / "real").write_text("x")
    (tmp_path / "symbolic").symlink_to(tmp_path / "real")
    files.link_or_copy(tmp_path / "symbolic", tmp_path / "in" / "linked")
    assert not (tmp_path / "in" / "linked").is_symlink()
    assert (tmp_path / "in" / "linked").samefile(tmp_path / "real")


def test_yaml_edit_changes_no_other_line_of_params(tmp_path):
    lines = (REPOSITORY / "params.yaml").read_text().splitlines()
    path = tmp_path / "params.yaml"
    path.write_text("\n".join(lines) + "\n")
    yaml_file.edit(path, lambda content: content["update"].update(number=2))
    changed = path.read_text().splitlines()
    assert [new for old, new in zip(lines, changed, strict=True) if old != new] == ["  number: 2"]


def test_yaml_edit_keeps_comments(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("# top\na: 1  # why\nb: [1, 2]\n")
    yaml_file.edit(path, lambda content: content.update(a=2))
    assert path.read_text() == "# top\na: 2  # why\nb: [1, 2]\n"


def test_all_errors_in_params_are_reported_at_once():
    wrong = {
        "lerner": "ER",
        "update": {"number": 1, "parent": 1},
        "trainer": {"threads": True, "max_epochs": None, "precision": "32"},
        "data": {"test_fraction": "0.2"},
        "hyperparameters": {"a": {"b": {"c": 1}}},
    }
    with pytest.raises(errors.InvalidParamsError) as raised:
        Params.parse(wrong)
    text = str(raised.value)
    assert len(raised.value.problems) == 6
    for words in (
        "lerner: unknown key, did you mean 'learner'?",
        "parent 1 must be smaller than number 1",
        "trainer.threads",
        "trainer.precision",
        "data.test_fraction",
        "hyperparameters.a: unknown kind of space 'b'",
    ):
        assert words in text, text


def test_params_need_max_epochs_or_max_steps():
    with pytest.raises(errors.InvalidParamsError, match="set at least one"):
        Params.parse({"trainer": {"max_epochs": None}})
    assert Params.parse({"trainer": {"max_epochs": None, "max_steps": 5}}).trainer.max_steps == 5


def test_project_is_found_from_a_subfolder(project):
    inside = project.root / "data" / "incoming"
    assert Project.find(inside).root == project.root
    with pytest.raises(errors.NotAProjectError, match=r"dvc\.yaml"):
        Project.find(project.root.parent)


@contextmanager
def holding(project: Project, stage: str, body: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process that has the project's lock, until it prints a line."""
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from renate_stages.project import Project\n"
        f"with Project(Path(sys.argv[1])).lock({stage!r}):\n    {body}"
    )
    command = [sys.executable, "-c", program, str(project.root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield holder


def test_concurrent_stage_is_refused_with_the_running_stage_and_process_id(project):
    with holding(project, "train", "print('held', flush=True); time.sleep(60)") as holder:
        with (
            pytest.raises(errors.BusyError, match=f"stage train, process {holder.pid}"),
            project.lock("tune"),
        ):
            pass
        holder.kill()
    with project.lock("tune"):
        pass


def test_lock_waits_for_the_forked_processes_of_a_killed_stage(project):
    body = "os.fork() and time.sleep(60); print('held', flush=True); sys.stdin.read(); os._exit(0)"
    with holding(project, "export", body) as holder:
        holder.kill()
        holder.wait()
        with (project.scratch / "stage.lock").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert holder.stdin is not None
        threading.Timer(0.3, holder.stdin.close).start()  # ends the forked process
        with project.lock("export"):
            pass


def test_lock_that_a_process_of_a_killed_stage_keeps_is_an_error(project, monkeypatch):
    monkeypatch.setattr("renate_stages.project.ENDING_SECONDS", 0.1)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    project.scratch.mkdir(exist_ok=True)
    with (project.scratch / "stage.lock").open("w") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.write(f"stage train, process {ended.pid}")
        kept.flush()
        with pytest.raises(errors.BusyError, match=f"process {ended.pid}"), project.lock("tune"):
            pass


def load(project, text: str) -> UserConfig:
    required = "def data_module_fn(data_path): ...\n"
    project.user_config.write_text(text + "\n" + required)
    return UserConfig.load(project.user_config)


def test_user_function_arguments_are_passed_by_name_and_type_checked(project):
    user = load(
        project,
        "from typing import Optional\n"
        "def model_fn(rate: float, n: int = 3, flag: bool = False, name: Optional[str] = None,\n"
        "             sizes: tuple[int, ...] = ()): return rate, n, flag, name, sizes",
    )
    values = {"rate": 1, "other": 5, "sizes": [1, 2]}
    assert user.call("model_fn", values, model_state_url=None) == (1, 3, False, None, (1, 2))
    for wrong in ({"rate": "1"}, {"rate": True}, {"rate": 1, "n": 1.5}, {"rate": 1, "flag": 1}):
        with pytest.raises(errors.UserConfigError, match="model_fn expects"):
            user.call("model_fn", wrong)
    with pytest.raises(errors.UserConfigError, match=r"(?s)needs 'rate'.*hyperparameters\.rate"):
        user.call("model_fn", {})


def test_error_in_renate_config_names_its_line(project):
    with pytest.raises(errors.UserConfigError, match="line 2: NameError"):
        load(project, "a = 1\nb = undefined\ndef model_fn(): ...")


def test_memory_transforms_default_to_the_training_transforms(project):
    user = load(
        project,
        "def model_fn(): ...\ndef train_transform(): return abs\n"
        "def buffer_target_transform(): return int",
    )
    transforms = user.transforms({})
    assert transforms.memory == (abs, int) and transforms.test == (None, None)


def test_random_streams_depend_on_name_and_update():
    first, again, later = Generators(3, 1), Generators(3, 1), Generators(3, 2)
    draws = [g.numpy("a").random(4).tolist() for g in (first, again, later)]
    assert draws[0] == draws[1] != draws[2]
    assert first.numpy("b").random(4).tolist() != draws[0]
    assert 0 <= first.integer("a") < 2**63


def test_empty_state_has_identical_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        state.write_empty(tmp_path / name)
    assert files.inventory(tmp_path / "a") == files.inventory(tmp_path / "b")
    state.check(tmp_path / "a")


@pytest.mark.parametrize("damage", ["missing", "longer", "flipped", "extra", "manifest"])
def test_error_names_the_damaged_file_of_a_state(tmp_path, damage):
    state.write_empty(tmp_path)
    victim = tmp_path / "memory" / "index.json"
    if damage == "missing":
        victim.unlink()
    elif damage == "longer":
        victim.write_bytes(victim.read_bytes() + b" ")
    elif damage == "flipped":
        content = bytearray(victim.read_bytes())
        content[3] ^= 1
        victim.write_bytes(bytes(content))
    elif damage == "extra":
        (tmp_path / "memory" / "index.json.bak").touch()
    else:
        (tmp_path / "state.json").write_text("[1")
    with pytest.raises(errors.DamagedStateError) as raised:
        state.check(tmp_path)
    assert ("state.json" if damage == "manifest" else "memory/index.json") in str(raised.value)
    assert "dvc checkout" in str(raised.value)


# -- imports ---------------------------------------------------------------------------------------

HEAVY = (
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "mlflow",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "dvc",
    "syne_tune",
)


LIGHT = (
    "cli.main",
    "lineage",
    "params",
    "state",
    "actions.promote",
    "stages.restore_state",
    "stages.tune",
    "stages.train",
    "tracking",
)


def test_light_modules_import_no_heavy_packages():
    program = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(f'renate_stages.{name}')\n"
        f"    print(name, *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == list(LIGHT), done.stderr


def heavy_after(*stages: str) -> str:
    """Run stages in a separate process; return the heavy packages that it has imported."""
    program = (
        "import sys; from pathlib import Path; from renate_stages.project import Project\n"
        f"from renate_stages.stages import {', '.join(stages)}\n"
        f"for stage in ({', '.join(stages)},): stage.run(Project(Path.cwd()))\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_restore_state_and_tune_run_without_torch(project):
    assert heavy_after("restore_state", "tune") == ""


def test_prepare_imports_only_torch_and_export_also_matplotlib(project):
    assert heavy_after("prepare") == "torch"
    for stage in (restore_state, tune, train):
        stage.run(project, lambda message: None)
    assert heavy_after("export") == "torch matplotlib"


def test_third_party_packages_are_imported_only_in_their_own_modules():
    package = Path(renate_stages.__file__).parent
    for name, allowed in {
        "mlflow": {
            "tracking/registrar.py",
            "tracking/served_program.py",
            "tracking/served_rows.py",
            "tracking/writer.py",
        },
        "sklearn": {"shift/classifier.py"},
        "torchvision": set(),
        "pickle": set(),
    }.items():
        found = {
            path.relative_to(package).as_posix()
            for path in package.rglob("*.py")
            if any(
                line.strip().startswith((f"import {name}", f"from {name}"))
                for line in path.read_text().splitlines()
            )
        }
        assert found == allowed, name


def test_generators_do_not_use_the_global_numpy_generator():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    Generators(0, 1).numpy("a").random(100)
    assert np.random.get_state()[1].tolist() == before


def test_version_is_printed_without_heavy_imports():
    command = [sys.executable, "-X", "importtime", "-m", "renate_stages", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"renate-stages {renate_stages.__version__}\n"
    assert not any(f"| {name}\n" in done.stderr for name in HEAVY)
