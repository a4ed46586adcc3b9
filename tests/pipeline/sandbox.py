"""A generated project in a folder of its own, and a clean environment to run commands in."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import warm_commands
import yaml

REPOSITORY = Path(__file__).parents[2]
SLUG = "digits"
HIDDEN = ("DVC_", "GIT_", "MLFLOW_", "PYTEST_", "XDG_")  # prefixes of hidden variables
OUTPUTS = (
    "champion/",
    "data/incoming/",
    "export/",
    "parent-state/",
    "state/",
    "work/",
)  # tracked by DVC, never by Git
UP_TO_DATE = "Data and pipelines are up to date."


@dataclass(frozen=True)
class Sandbox:
    """A project with its DVC remote and a home folder next to it.

    Args:
        root: Folder of the project.
        warm: Whether `run` forks commands from a process that has already imported everything.
        warm_ranks: Whether these commands also fork the processes that share a training.
    """

    root: Path
    warm: bool = field(default=True, kw_only=True)
    warm_ranks: bool = field(default=True, kw_only=True)

    @property
    def environment(self) -> dict[str, str]:
        home = self.root.parent / "home"
        home.mkdir(exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        }

    @property
    def warm_folders(self) -> list[str]:
        """Folders with the commands that run in forked processes."""
        return warm_commands.folders()

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command; return what it printed on both streams."""
        environment = self.environment
        if self.warm:
            places = [*self.warm_folders, environment["PATH"]]
            environment = {**environment, "PATH": os.pathsep.join(places)}
            if not self.warm_ranks:
                environment[warm_commands.NEW_RANKS] = "1"
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def put_digits(self, number: int) -> None:
        """Write the digits of an update to data/incoming, and add them to DVC."""
        self.run("renate-stages", "example-data", str(number))
        self.run("dvc", "add", "-q", "data/incoming")

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def edit(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace parts of a file; each part must occur in it."""
        text = self.read(name)
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (self.root / name).write_text(text, encoding="utf-8")

    def stop_tracking(self) -> None:
        """Disable MLflow logging, which takes seconds and is not an input of any stage."""
        tracked = "enabled: true\n  experiment"
        self.edit("params.yaml", (tracked, tracked.replace("true", "false")))

    def clone(self) -> Sandbox:
        """Clone the project next to itself, where its relative remote path is valid too."""
        self.run("git", "clone", "-q", ".", "../clone")
        return Sandbox(self.root.parent / "clone", warm=self.warm)

    def hashes(self, folder: str) -> dict[str, str]:
        """Return the SHA-256 of every file under a folder, by relative path."""
        files = [path for path in (self.root / folder).rglob("*") if path.is_file()]
        return {path.relative_to(self.root / folder).as_posix(): digest(path) for path in files}

    def state_at(self, tag: str) -> str:
        """Return DVC's hash of the state that a tagged update wrote."""
        outs = yaml.safe_load(self.run("git", "show", f"{tag}:dvc.lock"))["stages"]["train"]["outs"]
        return next(out["md5"] for out in outs if out["path"] == "state")

    def cached(self, md5: str) -> Path:
        """Return the file in DVC's cache that has this hash."""
        return self.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]

    def objects(self, folder_md5: str) -> dict[str, str]:
        """Return the hash of each file of a cached folder, by relative path."""
        return {
            entry["relpath"]: entry["md5"]
            for entry in json.loads(self.cached(folder_md5).read_text())
        }

    @property
    def pointed_parent(self) -> str:
        """DVC's hash of the state that the open update starts from."""
        return yaml.safe_load(self.read("parent.dvc"))["outs"][0]["md5"]

    @property
    def in_git(self) -> list[str]:
        """Every file that is staged or committed."""
        return self.run("git", "ls-files").split()

    @property
    def snapshot(self) -> tuple[str, ...]:
        """Everything that a refused command must leave unchanged."""
        return (
            self.run("git", "rev-parse", "HEAD"),
            self.run("git", "branch", "--list"),
            self.run("git", "tag"),
            self.run("git", "status", "--porcelain"),
            self.read("parent.dvc"),
            self.read("params.yaml"),
        )

    def query(self, sql: str, *values: str) -> list[tuple]:
        """Query the project's own MLflow store."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as store:
            return store.execute(sql, values).fetchall()

    @property
    def runs(self) -> list[dict[str, str]]:
        """Tags of every MLflow run, with its id, name and status, oldest first."""
        found = self.query("select run_uuid, name, status from runs order by start_time")
        return [
            {
                **dict(self.query("select key, value from tags where run_uuid = ?", run)),
                "id": run,
                "name": name,
                "status": status,
            }
            for run, name, status in found
        ]

    def artifacts(self, run: dict[str, str]) -> set[str]:
        """Return the artifact files of a run."""
        folder = next((self.root / "mlartifacts").rglob(f"{run['id']}/artifacts"))
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def generate(folder: Path, **answers: str) -> Sandbox:
    """Generate a project from the template; cookiecutter keeps its answers in `folder` too."""
    from cookiecutter.main import cookiecutter

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "cookiecutter.yaml"
    own = {"cookiecutters_dir": str(folder / "home"), "replay_dir": str(folder / "home")}
    config.write_text(yaml.safe_dump(own), encoding="utf-8")
    root = cookiecutter(
        str(REPOSITORY),
        directory="template",
        no_input=True,
        output_dir=str(folder),
        config_file=str(config),
        extra_context={"project_slug": SLUG, **answers},
    )
    return Sandbox(Path(root))
