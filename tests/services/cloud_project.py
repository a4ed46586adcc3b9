"""A generated project whose stages can run in the simulated cloud."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warm_commands
from sandbox import SLUG, Sandbox, generate

from renate_stages.files import yaml_file

if TYPE_CHECKING:
    from cloud import Cloud

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1"
# The SDK needs other versions of these packages than the lock file and the image have.
FROM_IMAGE = ["importlib-metadata", "protobuf", "rich"]
BACKEND = "RENATE_STAGES_BACKEND"


@dataclass(frozen=True)
class CloudProject(Sandbox):
    """A project that uses the environment with the SageMaker SDK, and the simulated cloud.

    Args:
        python: Interpreter of that environment.
        variables: Additional environment variables of commands.
    """

    python: Path = Path()
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        found = super().environment
        return {
            **{name: value for name, value in found.items() if name != "PYTHONPATH"},
            "PATH": f"{self.python.parent}{os.pathsep}{found['PATH']}",
            "RENATE_STAGES_POLL_SECONDS": "0.2",
            **self.variables,
        }

    @property
    def warm_folders(self) -> list[str]:
        """Folders of that environment's commands, which run in forked processes.

        The process that forks them has imported the SDK. It gets only the variables of the cloud:
        with variables of a test, such as HOME, each test would start its own process.
        """
        cloud = [
            each for each in self.variables.items() if each[0].startswith(("AWS_", "SAGEMAKER_"))
        ]
        return warm_commands.folders(self.python, tuple(sorted(cloud)))

    @property
    def params(self) -> dict[str, Any]:
        """Content of params.yaml."""
        return yaml_file.read(self.root / "params.yaml")

    def change(self, **changes: Any) -> None:
        """Set values in params.yaml; `a__b` names the key b of block a."""

        def act(content: Any) -> None:
            for path, value in changes.items():
                *blocks, key = path.split("__")
                block = content
                for name in blocks:
                    block = block[name]
                block[key] = value

        yaml_file.edit(self.root / "params.yaml", act)


def project_in(
    folder: Path, cloud: Cloud, bucket: str, python: Path, **variables: str
) -> CloudProject:
    """Generate a project with the digits of update 1, whose jobs would run in the cloud."""
    made = generate(folder)
    project = CloudProject(made.root, python, {**cloud.client_environment, **variables})
    project.change(
        trainer__max_epochs=2,
        remote__url=f"s3://{bucket}/updates",
        remote__from_image=FROM_IMAGE,
        remote__requirements=None,
        remote__sagemaker={"image_uri": IMAGE, "role": cloud.role, "region": "us-east-1"},
    )
    project.run("renate-stages", "init")
    return project


def in_cloud(project: CloudProject, **variables: str) -> CloudProject:
    """Return the same project, with stages that run in the cloud."""
    given = {**project.variables, BACKEND: "sagemaker", **variables}
    return CloudProject(project.root, project.python, given)


def copy_of(root: Path, generated: CloudProject, bucket: str, target: Path) -> CloudProject:
    """Return a copy of a project that stores its jobs in this test's bucket."""
    target.mkdir()
    subprocess.run(["cp", "-a", root, target / "digits"], check=True)
    variables = {**generated.variables, "BUCKET": bucket}
    copy = CloudProject(target / "digits", generated.python, variables)
    copy.change(remote__url=f"s3://{bucket}/updates")
    return copy


def jobs_of(cloud: Cloud, project: CloudProject) -> list[str]:
    """Return the names of the jobs that a project has submitted, in order."""
    bucket = project.variables["BUCKET"]
    return [
        name
        for name, request in cloud.requests.items()
        if request["OutputDataConfig"]["S3OutputPath"].startswith(f"s3://{bucket}/")
    ]


__all__ = ["BACKEND", "SLUG", "CloudProject", "copy_of", "in_cloud", "jobs_of", "project_in"]
