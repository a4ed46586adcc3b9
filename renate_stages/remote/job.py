"""Describe a job: the stage, its inputs, and where results go.

    <url>/objects/3f/9a0c...              all files, by content: inputs, the library, results
    <url>/jobs/train-<key>/configuration/<digest>/job.json    what to run; a channel of the job
    <url>/jobs/train-<key>/inputs/<digest>.manifest           list of its objects; another channel
    <url>/jobs/train-<key>/tracked/       what the stage logged for MLflow
    <url>/jobs/train-<key>/checkpoints/   checkpoints from which an interrupted job resumes
    <url>/jobs/train-<key>/outputs.json   list of the results, written after all of them
    <url>/jobs/train-<key>/failure.json   the last lines that a failed stage printed

The key is a digest of everything that the result depends on: equal inputs have the same key on any
machine. The digest is the SHA-256 of `job.json`. The request that starts the job contains it too,
so that the job refuses any other `job.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files, tracking
from renate_stages.errors import InvalidParamsError, MissingFileError
from renate_stages.files import Entry
from renate_stages.files.hashes import Hashes
from renate_stages.lineage import StageDefinition
from renate_stages.params import Params
from renate_stages.params.remote import RemoteParams
from renate_stages.project import Project
from renate_stages.remote import package
from renate_stages.remote.start import DESCRIPTION
from renate_stages.storage.objects import name_of
from renate_stages.user.declared_files import values_of

KEY_LENGTH = 20  # hexadecimal digits: a job's name has no room for 64
OBJECTS = "objects"
CONFIGURATION = "configuration"  # name of a folder and of its channel
MANIFESTS = "inputs"  # name of a folder and of its channel
CHECKPOINTS = "checkpoints"
OUTPUTS = "outputs.json"
FAILURE = "failure.json"


@dataclass(frozen=True)
class Job:
    """A stage to run as a job.

    Args:
        stage: Name of the stage.
        key: Digest of everything that its result depends on.
        files: Files that it reads, by relative path.
        writes: Relative paths of the files and folders that it writes.
        library: Name and bytes of the library's wheel.
        requirements: `name==version` of all packages.
        origin: Tags with the version of the project that the job was sent from.
        nodes: Number of machines that run the job together.
        command: Arguments of `renate-stages`; if empty, the name of the stage.
    """

    stage: str
    key: str
    files: Mapping[str, Entry]
    writes: Sequence[str]
    library: tuple[str, bytes]
    requirements: Sequence[str]
    nodes: int = 1
    command: Sequence[str] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project, params: Params, stage: str) -> Job:
        """Return the job of a stage for the current files of the project.

        Raises:
            InvalidParamsError: If the number of instances differs from `trainer.num_nodes`.
            RenateStagesError: If a file or a package that the job needs is missing.
        """
        definition = StageDefinition.read(project, stage)
        remote = params.remote
        named = (*definition.reads, *definition.params, *remote.files)
        pipeline = project.relative(project.pipeline)
        found = Hashes(project.hashes).entries(_under(project, (*named, pipeline)))
        requirements = requirements_of(project, remote)
        library = package.wheel()
        nodes = remote.sagemaker.instance_count if stage == "train" else 1
        if stage == "train" and nodes != params.trainer.num_nodes:
            problem = f"remote.sagemaker.instance_count is {nodes}, and trainer.num_nodes "
            raise InvalidParamsError(
                "params.yaml", [f"{problem}{params.trainer.num_nodes}: each node is an instance"]
            )
        by_value = {*definition.params, pipeline}
        depends = {
            "files": {n: e["sha256"] for n, e in found.items() if n not in by_value},
            "params": values_of(project.root, definition.params),
            "library": files.digest(library[1].hex()),
            "requirements": requirements,
            "place": [remote.sagemaker.image_uri, remote.sagemaker.instance_type, nodes],
        }
        key = files.digest(depends)[:KEY_LENGTH]
        origin = tracking.provenance_tags(project.root)
        own = (key, found, definition.writes, library, requirements, nodes)
        return cls(stage, *own, origin=origin)

    @property
    def name(self) -> str:
        """The job's name, at its URL and in the service's name."""
        return f"{self.stage}-{self.key}"

    @property
    def service_name(self) -> str:
        """The prefix of the names that the service gives the job."""
        return f"renate-{self.name}"

    @property
    def folder(self) -> str:
        """The job's own folder under the URL, with a slash at its end."""
        return f"jobs/{self.name}/"

    @property
    def library_entry(self) -> Entry:
        """Size and SHA-256 of the library's wheel."""
        return files.entry_of(self.library[1])

    def configuration(self, url: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Return the content of `job.json`.

        Args:
            url: URL under which all files are stored.
            variables: Environment variables of the stage.
        """
        return {
            "stage": self.stage,
            "command": list(self.command or (self.stage,)),
            "key": self.key,
            "url": url,
            "variables": dict(variables),
            "files": dict(self.files),
            "writes": list(self.writes),
            "wheel": {"name": self.library[0], "object": name_of(self.library_entry)},
            "requirements": list(self.requirements),
            "nodes": self.nodes,
        }

    @staticmethod
    def description_in(digest: str) -> str:
        """Return the path of `job.json` in the job's folder, given its SHA-256."""
        return f"{CONFIGURATION}/{digest}/{DESCRIPTION}"

    @staticmethod
    def manifest_in(digest: str) -> str:
        """Return the path of the list of objects in the job's folder, given the same SHA-256."""
        return f"{MANIFESTS}/{digest}.manifest"

    def manifest(self, objects_url: str) -> list[Any]:
        """Return the list of the job's objects in the format that SageMaker reads."""
        entries = (*self.files.values(), self.library_entry)
        return [{"prefix": f"{objects_url}/"}, *sorted({name_of(entry) for entry in entries})]


def requirements_of(project: Project, remote: RemoteParams) -> list[str]:
    """Return `name==version` of all packages that jobs of a project need.

    Raises:
        RenateStagesError: If the requirements file is missing, or names a package that is not
            installed here.
    """
    default = type(remote).model_fields["requirements"].default
    listed = None if remote.requirements is None else project.root / remote.requirements
    if remote.requirements == default and listed is not None and not listed.exists():
        listed = None  # the default file is optional
    return package.pins(listed, remote.from_image)


def _under(project: Project, names: Sequence[str]) -> dict[str, Path]:
    """Return the files at the given paths and in the given folders, by relative path."""
    found: dict[str, Path] = {}
    for name in names:
        path = project.root / name
        if path.is_file():
            found[name] = path
        elif path.is_dir():
            inside = (each for each in sorted(path.rglob("*")) if each.is_file())
            found |= {project.relative(each): each for each in inside}
        else:
            raise MissingFileError(
                path, "the stage depends on it", "run `dvc repro`, which creates or pulls it"
            )
    return found
