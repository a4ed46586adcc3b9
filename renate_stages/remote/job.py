"""Describe a job: the stage, its inputs, and where results go.

    <url>/objects/3f/9a0c...              all files, by content: inputs, the library, results
    <url>/jobs/train-<key>/configuration/<digest>/job.json    what to run; a channel of the job
    <url>/jobs/train-<key>/inputs/<digest>.manifest           its objects; the other channel
    <url>/jobs/train-<key>/tracked/       what its stage logged for MLflow
    <url>/jobs/train-<key>/checkpoints/   what an interrupted one goes on from
    <url>/jobs/train-<key>/outputs.json   what it has made; written last, so that it is all there
    <url>/jobs/train-<key>/failure.json   else: the last lines that it printed

The key is a digest of all that the result depends on: equal inputs have the same, on any machine.
The digest is the SHA-256 of `job.json`. It also is in the request that starts the job, which refuses
any other `job.json`.
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
CONFIGURATION = "configuration"  # a folder; name of its channel too
MANIFESTS = "inputs"  # likewise
CHECKPOINTS = "checkpoints"
OUTPUTS = "outputs.json"
FAILURE = "failure.json"


@dataclass(frozen=True)
class Job:
    """A stage to be run elsewhere.

    Args:
        stage: Its name.
        key: Digest of all that its result depends on.
        files: What it reads, by relative path.
        writes: What it makes: relative paths of files and folders.
        library: Name and bytes of the library's wheel.
        requirements: `name==version` of all packages.
        origin: Tags that say from which version of the project it was sent.
        nodes: Machines that run it together.
        command: Of `renate-stages`; none: the stage's.
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
        """Return the job of a stage as the project's files are now.

        Raises:
            InvalidParamsError: If there are to be other machines than the training has nodes.
            RenateStagesError: If a file or a package that it needs is not here.
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
        """What it is called, at its URL and by the service."""
        return f"{self.stage}-{self.key}"

    @property
    def service_name(self) -> str:
        """What the service's names of it begin with."""
        return f"renate-{self.name}"

    @property
    def folder(self) -> str:
        """Where its own files lie under the URL, with a slash at its end."""
        return f"jobs/{self.name}/"

    @property
    def library_entry(self) -> Entry:
        """Size and SHA-256 of the library's wheel."""
        return files.entry_of(self.library[1])

    def configuration(self, url: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Return what the job is told: `job.json`.

        Args:
            url: Under which all lies.
            variables: Of the stage's environment.
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
        """Return the place of `job.json` in the job's folder, given its SHA-256."""
        return f"{CONFIGURATION}/{digest}/{DESCRIPTION}"

    @staticmethod
    def manifest_in(digest: str) -> str:
        """Return the place of the list of its objects in the job's folder."""
        return f"{MANIFESTS}/{digest}.manifest"

    def manifest(self, objects_url: str) -> list[Any]:
        """Return the list of its objects, in the form that SageMaker reads."""
        entries = (*self.files.values(), self.library_entry)
        return [{"prefix": f"{objects_url}/"}, *sorted({name_of(entry) for entry in entries})]


def requirements_of(project: Project, remote: RemoteParams) -> list[str]:
    """Return `name==version` of all that jobs of a project need.

    Raises:
        RenateStagesError: If the file that names more is not there, or something of it not here.
    """
    default = type(remote).model_fields["requirements"].default
    listed = None if remote.requirements is None else project.root / remote.requirements
    if remote.requirements == default and listed is not None and not listed.exists():
        listed = None  # nobody has asked for it
    return package.pins(listed, remote.from_image)


def _under(project: Project, names: Sequence[str]) -> dict[str, Path]:
    """Return the files that paths name, or that lie under them, by relative path."""
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
