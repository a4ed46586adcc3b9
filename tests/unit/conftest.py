"""Fixtures: a small real project without Git and DVC, whose stages run in the test process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_project import REPOSITORY, WITH_SOURCES, edit_config, edit_params
from warm_processes import WarmProcesses, WarmPython, leave_pictures_blank

from renate_stages.memory import ExampleStore
from renate_stages.project import Project
from renate_stages.state import Provenance, State, state
from renate_stages.tuning import processes


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Let stages write empty pictures; the tests in `reporting` draw them."""
    if "reporting" not in request.path.parts:
        leave_pictures_blank(monkeypatch.setattr)


@pytest.fixture
def empty_memory_storage(monkeypatch):
    """Empty the file system `memory://`, and let retries not wait."""
    from fsspec.implementations.memory import MemoryFileSystem

    from renate_stages.storage import retries

    monkeypatch.setattr(retries, "PAUSES", (0.0,))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


@pytest.fixture
def warm_exports(request, monkeypatch):
    """Fork the clean process of exports from a warm one; `test_clean_build.py` starts new ones."""

    def spawn(_, theirs, log):
        warm = request.getfixturevalue("warm_servers")
        streams, main = (log.fileno(), log.fileno()), "renate_stages.export.clean_build:main"
        process = warm.start(main, [], Path("/"), streams, theirs.fileno())

        def end() -> None:
            process.kill()
            process.wait()

        return end

    monkeypatch.setattr("renate_stages.export.clean_build._spawn", spawn)


@pytest.fixture(scope="session")
def untouched_project(tmp_path_factory) -> Path:
    """The content of `project`, made once; do not change it."""
    from renate_stages.actions.example_data import write_digits

    root = tmp_path_factory.mktemp("untouched") / "project"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, root / name)
    project = Project(root)
    write_digits(project.incoming, 1)
    project.parent.mkdir()
    state.write_empty(project.parent)
    edit_params(project, trainer__max_epochs=2, tracking__enabled=False)
    return root


@pytest.fixture
def project(untouched_project, tmp_path, monkeypatch, warm_exports) -> Project:
    """A copy of the repository's project, with the digits of update 1 and the empty state."""
    root = tmp_path / "project"
    shutil.copytree(untouched_project, root)
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Project(root)


@pytest.fixture(scope="session")
def cached_projects(tmp_path_factory) -> Path:
    """The folder of finished projects; tests work on copies of them."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def made_once(cached_projects):
    """Return a function that runs `make` on a project, or copies the result of an earlier run."""

    def bring(project: Project, make: Callable[[Project], object]) -> Project:
        kept = cached_projects / f"{make.__module__}.{make.__qualname__}"
        if kept.exists():
            for path in project.root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(kept, project.root, symlinks=True, dirs_exist_ok=True)
        else:
            make(project)
            shutil.copytree(project.root, kept, symlinks=True)
        return project

    return bring


@pytest.fixture
def unrehearsed(monkeypatch):
    """Let `train` not rehearse the update, for tests that interrupt the training."""
    monkeypatch.setattr("renate_stages.training.rehearsal.rehearse", lambda *_: None)


@pytest.fixture
def no_pictures(monkeypatch):
    """Let `export` draw no pictures, which is its slowest part."""
    monkeypatch.setattr("renate_stages.stages.export.draw_pictures", lambda *_: [])


@pytest.fixture
def sourced(project) -> Project:
    """A project whose examples have ids and a source, alternately eu and us."""
    edit_config(project, "class DigitsDataModule", WITH_SOURCES.lstrip())
    edit_config(project, "TensorDataset(images, labels)", "Sourced(images, labels)")
    edit_config(project, "import torch\n", "import torch\nimport torch.utils.data\n")
    edit_params(project, trainer__max_epochs=1, hyperparameters__memory_size=100)
    return project


@pytest.fixture
def make_state(tmp_path):
    """Return a function that writes a state without a model, with some examples in memory."""

    def make(rows: int = 0) -> State:
        folder = tmp_path / f"parent-{rows}"
        if folder.exists():
            return State.open(folder)
        state.write_empty(folder)
        if rows:
            (folder / "memory" / "index.json").unlink()
            from small_updates import write_examples

            write_examples(folder / "memory", rows, first=1000)
            state.write_manifest(folder, Provenance("init", 0))
        return State.open(folder)

    return make


@pytest.fixture
def new(tmp_path) -> ExampleStore:
    from small_updates import write_examples

    return write_examples(tmp_path / "new", 30)


@pytest.fixture(scope="session")
def warm_servers():
    """A process with the imports of trial servers and exports, from which others are forked."""
    warm = WarmProcesses(
        "renate_stages.tuning.fork_server:import_all", "renate_stages.export.clean_build"
    )
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def warm_python(warm_servers) -> WarmPython:
    """Stand-in for `subprocess` that forks commands of Python from a warm process."""
    return WarmPython(warm_servers)


@pytest.fixture(scope="session")
def launch_forked(warm_python):
    """Return `launch.start`, which here forks the processes that share a training."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    from renate_stages.training import launch

    start = launch.start

    def popen(handler, command, environment):
        streams = [s.fileno() if s else n for n, s in ((1, handler._stdout), (2, handler._stderr))]
        return warm_python.start(command, environment, tuple(streams))

    def launch_forked(arguments, count, scratch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SubprocessHandler, "_popen", popen)
            return start(arguments, count, scratch)

    return launch_forked


@pytest.fixture
def warm_jobs(warm_python, launch_forked, monkeypatch) -> None:
    """Fork the processes of `run_training_job` that share a training or export the model.

    The slow tests start new ones.
    """
    monkeypatch.setattr("renate_stages.training.launch.start", launch_forked)
    monkeypatch.setattr("renate_stages.api.run_stages.subprocess", warm_python)


@pytest.fixture
def warm_searches(warm_servers, monkeypatch):
    """Fork the trial server of a search from a warm process; `test_trials.py` starts new ones."""

    def start(module, connection, *arguments, log):
        assert module == "renate_stages.tuning.fork_server"
        streams = log.fileno(), log.fileno()
        main, folder = f"{module}:main", Path.cwd()
        return warm_servers.start(main, [*arguments], folder, streams, connection.fileno())

    monkeypatch.setattr(processes, "_popen", start)
