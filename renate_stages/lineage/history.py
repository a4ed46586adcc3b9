"""Find all DVC objects that any commit in Git's history refers to."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from renate_stages.errors import CommandError, ShallowHistoryError
from renate_stages.lineage.commands import git
from renate_stages.project import Project

_MD5 = re.compile(r"\bmd5: *'?([0-9a-f]{32}(?:\.dir)?)\b")
_LINE = re.compile(r"( *)(- )?(?:([\w-]+):)?(.*)")
_BLOB = re.compile(r"([0-9a-f]+) blob ([0-9]+)")
_REFS = {"refs/tags/": "", "refs/heads/": "branch ", "refs/remotes/": "", "refs/stash": "stash"}


@dataclass(frozen=True)
class Version:
    """The content of one version of a `dvc.lock` or `.dvc` file.

    Args:
        outs: DVC's hash of each output, or of each path that a `.dvc` file tracks, by path.
        deps: DVC's hash of each dependency, by path.
        hashes: All hashes in the file, even if it cannot be parsed.
    """

    outs: dict[str, str] = field(default_factory=dict)
    deps: dict[str, str] = field(default_factory=dict)
    hashes: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, folder: str = "") -> Version:
        """Parse the text of a DVC file; of a file with merge conflicts only the hashes are certain.

        Args:
            text: Text of the file.
            folder: Folder of the file with a final `/`; paths in the file are relative to it.
        """
        # Indentation of `outs:` and `deps:`.
        depth = 4 if re.search("^stages:", text, re.MULTILINE) else 0
        found: dict[str, dict[str, str]] = {"outs": {}, "deps": {}}
        section, entry = "", dict[str, str]()
        for line in (*text.split("\n"), f"{'':{depth}}end:"):
            match = _LINE.fullmatch(line)
            assert match is not None  # the pattern matches any line
            indent, marker, key, value = match.groups()
            if len(indent) == depth:  # a key such as `outs:`, or the first line of an entry
                if section in found and {"path", "md5"} <= entry.keys():
                    found[section][folder + entry["path"]] = entry["md5"]
                entry = {}
                section = section if marker else key
            if key and (len(indent) == depth + 2 or marker):
                entry[key] = value.strip(" \r'\"")
        return cls(found["outs"], found["deps"], hashes_in(text))


@dataclass(frozen=True)
class History:
    """All versions of DVC's files in a project's Git repository.

    Args:
        versions: Every `dvc.lock` and `.dvc` file in any commit, in the index and in the working
            tree.
        present: The files of the checked-out commit, the index and the working tree.
        tips: The files of each tag, branch, stash and experiment, by the name shown to users.
        data_metrics: The text of each committed `metrics/data.json`, by its MD5.
    """

    versions: tuple[Version, ...]
    present: tuple[Version, ...]
    tips: dict[str, tuple[Version, ...]]
    data_metrics: dict[str, str]

    @classmethod
    def read(cls, project: Project) -> History:
        """Read all commits of refs (with experiments and stashes) and of reflogs.

        Raises:
            ShallowHistoryError: If the clone is shallow.
            CommandError: If Git fails.
        """
        if git(project, "rev-parse", "--is-shallow-repository") == "true":
            raise ShallowHistoryError(project.root)
        metrics = project.relative(project.data_metrics)
        listed = git(project, "rev-list", "--objects", "--all", "--reflog", "HEAD").splitlines()
        paths = dict(line.split(" ", 1) for line in listed if " " in line)
        index = _dvc_files(project, "ls-files", "--stage", "-z")
        dvc_files = {(sha, path) for sha, path in paths.items() if _is_dvc_file(path)}
        dvc_files |= set(index)
        metrics_shas = {sha for sha, path in paths.items() if path == metrics}
        blobs = dict(_blobs(project, {sha for sha, _ in dvc_files} | metrics_shas))

        @cache
        def version(sha: str, path: str) -> Version:
            return _parse(blobs[sha], path)

        def at(ref: str) -> tuple[Version, ...]:
            committed = _dvc_files(project, "ls-tree", "-r", "-z", f"{ref}^{{commit}}")
            return tuple(version(sha, path) for sha, path in committed if sha in blobs)

        unstaged = tuple(_parse(path.read_bytes(), name) for name, path in _working_tree(project))
        staged = tuple(version(sha, path) for sha, path in index)
        return cls(
            versions=(*(version(sha, path) for sha, path in sorted(dvc_files)), *unstaged),
            present=(*at("HEAD"), *staged, *unstaged),
            tips={name: at(ref) for ref, name in _refs(project)},
            data_metrics={
                hashlib.md5(blobs[sha], usedforsecurity=False).hexdigest(): _text(blobs[sha])
                for sha in metrics_shas
            },
        )


def hashes_in(text: str) -> frozenset[str]:
    """Return all hashes in the text of a DVC file, even if the file cannot be parsed."""
    return frozenset(_MD5.findall(text))


def _parse(content: bytes, path: str) -> Version:
    folder, separator, _ = path.rpartition("/")
    return Version.parse(_text(content), folder + separator)


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")  # hashes are found even in damaged text


def _is_dvc_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name == "dvc.lock" or (name.endswith(".dvc") and name != ".dvc")


def _refs(project: Project) -> Iterator[tuple[str, str]]:
    """Yield each ref and its name in messages."""
    for line in git(project, "for-each-ref", "--format=%(refname)").splitlines():
        for prefix, kind in _REFS.items():
            if line.startswith(prefix):
                yield line, kind + line.removeprefix(prefix)
        if line.startswith("refs/exps/"):
            yield line, f"experiment {line.rpartition('/')[2]}"


def _dvc_files(project: Project, *listing: str) -> list[tuple[str, str]]:
    """Return blob and path of the DVC files that `ls-tree` or `ls-files --stage` lists.

    During a merge a path may be listed several times.
    """
    entries = git(project, *listing, check=False).split("\0")
    rows = [entry.partition("\t") for entry in entries if "\t" in entry]
    column = 2 if listing[0] == "ls-tree" else 1  # mode, type, hash; or mode, hash, stage
    return [(fields.split()[column], path) for fields, _, path in rows if _is_dvc_file(path)]


def _working_tree(project: Project) -> list[tuple[str, Path]]:
    """Return the DVC files in the working tree that Git does not ignore, committed or not."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = [(name, project.root / name) for name in listed.split("\0") if _is_dvc_file(name)]
    return [(name, path) for name, path in paths if path.is_file()]


def _blobs(project: Project, shas: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield hash and content of Git blobs."""
    command = ["git", "cat-file", "--batch"]
    request = "".join(f"{sha}\n" for sha in sorted(shas)).encode()
    result = subprocess.run(
        command, cwd=project.root, input=request, capture_output=True, check=False
    )
    if result.returncode:
        raise CommandError(command, result.stderr.decode(errors="replace"))
    output, start = result.stdout, 0
    while start < len(output):
        end = output.index(b"\n", start)
        header = output[start:end].decode()
        if not (match := _BLOB.fullmatch(header)):
            raise CommandError(command, header)
        sha, size = match.groups()
        start, stop = end + 1, end + 1 + int(size)
        yield sha, output[start:stop]
        start = stop + 1
