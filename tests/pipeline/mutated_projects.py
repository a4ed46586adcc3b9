"""Change one file of a finished project, and run commands in it.

Each command runs in a forked process, with a limit on memory and time. Afterwards the project is
restored.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import killed_commands
import yaml
from killed_commands import ForkedDvc, environment
from mutations import Mutator
from sandbox import Sandbox
from warm_commands import OURS as ALL_OURS
from warm_commands import TYPER
from warm_processes import WarmProcesses

PATIENCE = 120  # seconds after which a command counts as hanging; a third of it in CPU time
MEMORY = 3 * 2**30  # bytes that a command may allocate after the fork
EXITS = (0, 1, 2)  # success; a check failed; refused
LARGEST = 300_000  # largest size in bytes of a file that counts as small

# Files that a refused command may change: they are not part of the project.
IGNORED = (".renate/", ".git/objects/", ".git/logs/", ".git/index", ".git/COMMIT_EDITMSG")
IGNORED += (".git/ORIG_HEAD", ".git/FETCH_HEAD", ".dvc/tmp/", ".dvc/cache/", ".dvc/config.local")

SPECIAL = ("missing", "a folder", "a pipe", "a link to itself", "a link to nothing")
SPECIAL += ("a link to /dev/zero",)
POINTERS = {"parent-state": "parent.dvc", "champion": "champion.dvc"}
OUTPUTS = {"state": "train", "export": "export"}  # outputs of stages, listed in dvc.lock


STAGES = (*TYPER, *ALL_OURS, "fsspec.implementations.local", "warm_commands:trace_once")
"""Modules that stages import."""


def command() -> None:
    """Run `renate-stages` within limits; the first argument is a log of opened files, or `-`."""
    from renate_stages.cli import main
    from renate_stages.lineage import commands

    opened, *arguments = sys.argv[1:]
    commands.subprocess = ForkedDvc()  # type: ignore[assignment]
    sys.argv = ["renate-stages", *arguments]
    if opened != "-":
        _record_opened(Path(opened))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE // 3, PATIENCE // 3))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main.main()


def _record_opened(record: Path) -> None:
    root = str(Path.cwd())
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple) -> None:
        if killed_commands.is_dvc_process:  # DVC reads everything that it hashes
            return
        if event == "open" and str(arguments[0]).startswith(f"{root}/"):
            os.write(descriptor, f"{str(arguments[0])[len(root) + 1 :]}\n".encode())

    sys.addaudithook(hook)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        code: Exit code; -9 if the command had to be killed.
        output: What it printed.
        changed: Files of the project that differ afterwards, without ignored ones.
    """

    code: int
    output: str
    changed: tuple[str, ...]

    @property
    def fault(self) -> str | None:
        """Description of what went wrong; None if nothing did."""
        if self.code in (-signal.SIGKILL, -signal.SIGXCPU):
            return "the command hangs"
        if "executed" in self.changed:  # created by pickles and YAML tags in `mutations`
            return "executed code from the file"
        if "Traceback" in self.output:
            return "printed a traceback"
        if self.code not in EXITS:
            return f"exit code {self.code}"
        if self.code == 2 and not (
            "error: " in self.output.lower() or "usage: " in self.output.lower()
        ):
            return "refused without an error message"
        if self.code == 2 and self.changed:
            return f"refused, but changed: {', '.join(self.changed)}"
        return None


@dataclass
class Mutated:
    """A copy of a project in which files are changed, one at a time.

    Args:
        source: The finished project; only read.
        sandbox: The copy.
        warm: Forks commands.
    """

    source: Sandbox
    sandbox: Sandbox
    warm: WarmProcesses
    pristine: dict[str, tuple] = field(default_factory=dict)

    @classmethod
    def copy(cls, source: Sandbox, folder: Path, warm: WarmProcesses) -> Mutated:
        """Copy a project and the folders next to it."""
        subprocess.run(["cp", "-a", source.root.parent, folder], check=True)
        made = cls(source, Sandbox(folder / source.root.name), warm)
        made.pristine = _fingerprints(made.sandbox.root)
        return made

    def run(self, *arguments: str, opened: Path | None = None) -> Outcome:
        """Run `renate-stages` in the project's current state."""
        before = _fingerprints(self.sandbox.root)
        texts = {name: self._content(name) for name in before if not name.startswith(IGNORED)}
        with tempfile.TemporaryFile("w+") as output:
            process = self.warm.start(
                "mutated_projects:command",
                [str(opened or "-"), *arguments],
                self.sandbox.root,
                (output.fileno(), output.fileno()),
                environment={**environment(self.sandbox), "OMP_NUM_THREADS": "1"},
            )
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            output.seek(0)
            text = output.read()
        after = _fingerprints(self.sandbox.root)
        names = [n for n in before.keys() | after.keys() if not n.startswith(IGNORED)]
        changed = [n for n in names if before.get(n) != after.get(n)]
        changed = [n for n in changed if texts.get(n) != self._content(n)]
        return Outcome(code, text, tuple(sorted(changed)))

    def _content(self, name: str) -> str | None:
        path = self.sandbox.root / name
        try:
            if path.is_symlink():
                return f"link to {path.readlink()}"
            if not path.is_file():
                return "special"
            content = path.read_bytes()
            if name == ".git/packed-refs":  # Git may create it with only a header
                content = re.sub(rb"(?m)^#.*\n", b"", content)
            return (
                hashlib.md5(content).hexdigest() if content or name != ".git/packed-refs" else None
            )
        except OSError:
            return None

    # -- changing and restoring --------------------------------------------------------------------

    def write(self, name: str, content: bytes) -> None:
        """Replace a file's content; hard links to the old file keep the old content."""
        path = self.sandbox.root / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def make_special(self, name: str, kind: str) -> None:
        """Replace a file by something that is not a regular file; see `SPECIAL`."""
        path = self.sandbox.root / name
        path.unlink()
        match kind:
            case "a folder":
                path.mkdir()
                (path / "x").write_text("x")
            case "a pipe":
                os.mkfifo(path)
            case "a link to itself":
                path.symlink_to(path.name)
            case "a link to nothing":
                path.symlink_to("nothing")
            case "a link to /dev/zero":
                path.symlink_to("/dev/zero")

    def undo_changes(self) -> None:
        """Restore the project to its original content."""
        root, now = self.sandbox.root, _fingerprints(self.sandbox.root)
        for name in now.keys() - self.pristine.keys():
            (root / name).unlink(missing_ok=True)
        for name, seen in self.pristine.items():
            if now.get(name) == seen:
                continue
            path = root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            for above in path.relative_to(root).parents:
                if (root / above).is_file() or (root / above).is_symlink():
                    (root / above).unlink()
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.source.root / name, path, follow_symlinks=False)
        _drop_empty(root, {str(Path(name).parent) for name in self.pristine})
        self.pristine = {
            **self.pristine,
            **{n: s for n, s in _fingerprints(root).items() if n in self.pristine},
        }

    def tracks(self, name: str) -> bool:
        """Return whether Git tracks a file."""
        return bool(self._git("ls-files", "--", name))

    def commit(self) -> None:
        """Commit all changes."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "-m", "Changed")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.sandbox.root,
            env=environment(self.sandbox),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def at_tag(self, tag: str, name: str, content: bytes) -> None:
        """Move a tag to a commit that differs in one file."""
        index = self.sandbox.root.parent / "index"
        env = {**environment(self.sandbox), "GIT_INDEX_FILE": str(index)}

        def git(*arguments: str, given: bytes = b"") -> str:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.sandbox.root,
                env=env,
                input=given,
                capture_output=True,
                check=True,
            )
            return done.stdout.decode().strip()

        git("read-tree", tag)
        blob = git("hash-object", "-w", "--stdin", given=content)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
        commit = git("commit-tree", "-p", f"{tag}^{{commit}}", "-m", "Changed", git("write-tree"))
        git("update-ref", f"refs/tags/{tag}", commit)
        index.unlink()

    def update_hashes(self, name: str) -> None:
        """Update the hashes of a changed file in manifest, pointer or lock file, and commit."""
        folder, _, inner = name.partition("/")
        root = self.sandbox.root
        manifest = root / folder / "state.json"
        if inner != "state.json" and manifest.is_file():
            with suppress(ValueError, KeyError, TypeError):
                content = json.loads(manifest.read_bytes())
                entry = content["files"].setdefault(inner, {})
                data = (root / name).read_bytes()
                entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                self.write(
                    f"{folder}/state.json", json.dumps(content, indent=1, sort_keys=True).encode()
                )
        md5 = self._cache_folder(root / folder)
        if folder in POINTERS:
            pointer = yaml.safe_load((root / POINTERS[folder]).read_bytes())
            pointer["outs"][0]["md5"] = md5
            self.write(POINTERS[folder], yaml.safe_dump(pointer).encode())
        elif folder in OUTPUTS:
            lock = yaml.safe_load((root / "dvc.lock").read_bytes())
            for stage in lock["stages"].values():
                for entry in (*stage.get("deps", ()), *stage.get("outs", ())):
                    if entry["path"] == folder:
                        entry["md5"] = md5
            self.write("dvc.lock", yaml.safe_dump(lock).encode())
        self.commit()

    def _cache_folder(self, folder: Path) -> str:
        """Put a folder into DVC's cache, and return its DVC hash."""
        listed = []
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                md5 = hashlib.md5(content).hexdigest()
                self._cache(md5, content)
                listed.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
        listed.sort(key=lambda entry: entry["relpath"])
        content = json.dumps(listed, sort_keys=True).encode()
        md5 = f"{hashlib.md5(content).hexdigest()}.dir"
        self._cache(md5, content)
        return md5

    def _cache(self, md5: str, content: bytes) -> None:
        path = self.sandbox.cached(md5)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _fingerprints(root: Path) -> dict[str, tuple]:
    """Return type, size and time of each file in a folder, without Git's and DVC's objects."""
    found: dict[str, tuple] = {}
    folders = [root]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__" and not entry.path.endswith(
                    (".git/objects", ".dvc/cache")
                ):
                    folders.append(Path(entry.path))
            else:
                status = entry.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                name = entry.path[len(str(root)) + 1 :]
                found[name] = (kind, status.st_size, status.st_mtime_ns)
    return found


def _drop_empty(root: Path, needed: set[str]) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        name = str(Path(folder).relative_to(root))
        if name not in needed and not name.startswith((".git", ".dvc")):
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()


def small_files(sandbox: Sandbox, opened: Sequence[str]) -> list[str]:
    """Return the small files among the opened files."""
    found = []
    for name in sorted(set(opened)):
        path = sandbox.root / name
        if (
            path.is_file()
            and path.stat().st_size <= LARGEST
            and not name.startswith((".git/", ".dvc/tmp/", ".dvc/cache/"))
        ):
            found.append(name)
    return found


def attempts(
    mutated: Mutated,
    pairs: dict[tuple[str, ...], list[str]],
    weights: Sequence[float],
    count: int,
    seed: int,
) -> Iterator[tuple[str, Outcome]]:
    """Change files and run commands; yield each change and the command's outcome.

    Args:
        mutated: The project to change.
        pairs: The files that each command reads.
        weights: How often each command is drawn.
        count: Number of changes.
        seed: The same seed gives the same changes.
    """
    commands = list(pairs)
    for number in range(count):
        draws = random.Random(f"{seed} {number}")
        arguments = draws.choices(commands, weights)[0]
        names = pairs[arguments]
        name = draws.choices(names, [0.1 if name.endswith(".npy") else 1.0 for name in names])[0]
        if draws.random() < 0.06:
            how = draws.choice(SPECIAL)
            mutated.make_special(name, how)
            way = "in the working tree"
        else:
            content = (mutated.source.root / name).read_bytes()
            how, changed = Mutator(draws).mutate(name, content)
            way = _write(mutated, name, changed, draws)
        outcome = mutated.run(*arguments)
        mutated.undo_changes()
        yield f"{seed} {number}: {' '.join(arguments)}; {name} ({way}): {how}", outcome


def _write(mutated: Mutated, name: str, content: bytes, draws: random.Random) -> str:
    """Change a file in the working tree, in a commit or in a tag's commit; return which."""
    tag = draws.choice(["update-1", "update-2"])
    way = "in the working tree"
    if name.partition("/")[0] in (*POINTERS, *OUTPUTS) and draws.random() < 0.8:
        way = "with updated hashes"
    elif draws.random() < 0.35:
        way = "committed"
    elif draws.random() < 0.25 and mutated.tracks(name):
        way = tag
    if way == tag:
        mutated.at_tag(tag, name, content)
        return way
    mutated.write(name, content)
    if way == "with updated hashes":
        mutated.update_hashes(name)
    elif way == "committed":
        mutated.commit()
    return way
