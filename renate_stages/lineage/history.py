"""Find all of DVC's objects that any commit in Git's history names."""

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
    """What one `dvc.lock` or `.dvc` file names.

    Args:
        outs: DVC's hash of each output by its path; in a `.dvc` file of what it tracks.
        deps: The same of dependencies.
        hashes: All hashes in the file, also where it cannot be read as the rest.
    """

    outs: dict[str, str] = field(default_factory=dict)
    deps: dict[str, str] = field(default_factory=dict)
    hashes: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, folder: str = "") -> Version:
        """Read the text of a file as DVC writes it; one with a conflict still gives its hashes.

        Args:
            text: Of the file.
            folder: That it is in, with a `/` at its end, to which its paths are relative.
        """
        depth = 4 if re.search("^stages:", text, re.MULTILINE) else 0  # of `outs:` and `deps:`
        found: dict[str, dict[str, str]] = {"outs": {}, "deps": {}}
        section, entry = "", dict[str, str]()
        for line in (*text.split("\n"), f"{'':{depth}}end:"):
            match = _LINE.fullmatch(line)
            assert match is not None  # any line fits
            indent, marker, key, value = match.groups()
            if len(indent) == depth:  # a heading, or the first line of an entry
                if section in found and {"path", "md5"} <= entry.keys():
                    found[section][folder + entry["path"]] = entry["md5"]
                entry = {}
                section = section if marker else key
            if key and (len(indent) == depth + 2 or marker):
                entry[key] = value.strip(" \r'\"")
        return cls(found["outs"], found["deps"], hashes_in(text))


@dataclass(frozen=True)
class History:
    """All that Git has of a project.

    Args:
        versions: Every `dvc.lock` and `.dvc` file of any commit, of the index and of the working
            tree.
        present: Those of the checked-out commit, of the index and of the working tree.
        tips: Those of each tag, branch, stash and experiment, by what a user calls it.
        data_metrics: By MD5 of each `metrics/data.json` that was committed, its text.
    """

    versions: tuple[Version, ...]
    present: tuple[Version, ...]
    tips: dict[str, tuple[Version, ...]]
    data_metrics: dict[str, str]

    @classmethod
    def read(cls, project: Project) -> History:
        """Read all refs, experiments and stashes included, and what reflogs still name.

        Raises:
            ShallowHistoryError: If the clone has only a part of the history.
            CommandError: If Git fails.
        """
        if git(project, "rev-parse", "--is-shallow-repository") == "true":
            raise ShallowHistoryError(project.root)
        metrics = project.relative(project.data_metrics)
        listed = git(project, "rev-list", "--objects", "--all", "--reflog", "HEAD").splitlines()
        paths = dict(line.split(" ", 1) for line in listed if " " in line)
        index = _dvcs_files(project, "ls-files", "--stage", "-z")
        named = {(sha, path) for sha, path in paths.items() if _is_dvcs(path)}
        named |= set(index)
        counted = {sha for sha, path in paths.items() if path == metrics}
        blobs = dict(_blobs(project, {sha for sha, _ in named} | counted))

        @cache
        def version(sha: str, path: str) -> Version:
            return _parse(blobs[sha], path)

        def at(ref: str) -> tuple[Version, ...]:
            found = _dvcs_files(project, "ls-tree", "-r", "-z", f"{ref}^{{commit}}")
            return tuple(version(sha, path) for sha, path in found if sha in blobs)

        here = tuple(_parse(path.read_bytes(), name) for name, path in _working_tree(project))
        staged = tuple(version(*each) for each in index)
        return cls(
            versions=(*(version(*each) for each in sorted(named)), *here),
            present=(*at("HEAD"), *staged, *here),
            tips={name: at(ref) for ref, name in _refs(project)},
            data_metrics={
                hashlib.md5(blobs[sha], usedforsecurity=False).hexdigest(): _text(blobs[sha])
                for sha in counted
            },
        )


def hashes_in(text: str) -> frozenset[str]:
    """Return all hashes in the text of one of DVC's files, whether it can be read or not."""
    return frozenset(_MD5.findall(text))


def _parse(content: bytes, path: str) -> Version:
    folder, separator, _ = path.rpartition("/")
    return Version.parse(_text(content), folder + separator)


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")  # what is no text still has its hashes


def _is_dvcs(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name == "dvc.lock" or (name.endswith(".dvc") and name != ".dvc")


def _refs(project: Project) -> Iterator[tuple[str, str]]:
    """Yield each ref that is a commit, and what a user calls it."""
    for line in git(project, "for-each-ref", "--format=%(refname)").splitlines():
        for prefix, kind in _REFS.items():
            if line.startswith(prefix):
                yield line, kind + line.removeprefix(prefix)
        if line.startswith("refs/exps/"):
            yield line, f"experiment {line.rpartition('/')[2]}"


def _dvcs_files(project: Project, *listing: str) -> list[tuple[str, str]]:
    """Return blob and path of DVC's files in what `ls-tree` or `ls-files --stage` lists.

    In a merge a path has several.
    """
    entries = git(project, *listing, check=False).split("\0")
    found = [entry.partition("\t") for entry in entries if "\t" in entry]
    place = 2 if listing[0] == "ls-tree" else 1  # mode, type, hash; or mode, hash, stage
    return [(said.split()[place], path) for said, _, path in found if _is_dvcs(path)]


def _working_tree(project: Project) -> list[tuple[str, Path]]:
    """Return DVC's files in the working tree that Git does not ignore, committed or not."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = [(name, project.root / name) for name in listed.split("\0") if _is_dvcs(name)]
    return [(name, path) for name, path in paths if path.is_file()]


def _blobs(project: Project, shas: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the content of each of some blobs of Git."""
    command = ["git", "cat-file", "--batch"]
    asked = "".join(f"{sha}\n" for sha in sorted(shas)).encode()
    done = subprocess.run(command, cwd=project.root, input=asked, capture_output=True, check=False)
    if done.returncode:
        raise CommandError(command, done.stderr.decode(errors="replace"))
    answer, start = done.stdout, 0
    while start < len(answer):
        end = answer.index(b"\n", start)
        header = answer[start:end].decode()
        if not (found := _BLOB.fullmatch(header)):
            raise CommandError(command, header)
        sha, size = found.groups()
        start, stop = end + 1, end + 1 + int(size)
        yield sha, answer[start:stop]
        start = stop + 1
