"""The block `remote` of `params.yaml`: where `tune` and `train` run; no stage depends on it."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator, model_validator

from renate_stages.errors import InvalidParamsError
from renate_stages.errors.redaction import hide_secrets
from renate_stages.params.blocks import Block, OptionalSeconds, Seconds

BACKENDS = ("local", "sagemaker")
BACKEND_VARIABLE = "RENATE_STAGES_BACKEND"


class SageMakerParams(Block):
    """Settings of SageMaker training jobs."""

    role: str | None = Field(
        default=None, description="ARN or name of the role of jobs; none: the SDK's default"
    )
    image_uri: str | None = Field(default=None, description="container image with Python and pip")
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = Field(
        default=1, ge=1, description="instances for `train`; `tune` uses one"
    )
    volume_gb: int = Field(default=30, ge=1, description="disk of each instance, in GiB")
    max_runtime: Seconds = Field(
        default=86400, gt=0, description="seconds of computing, or a text such as '6 h'"
    )
    spot: bool = Field(
        default=False, description="use spot instances: cheaper, but may be interrupted"
    )
    max_wait: OptionalSeconds = Field(
        default=None,
        description="total time of a spot job, with waiting; none: twice max_runtime",
    )
    keep_alive: OptionalSeconds = Field(
        default=None, gt=0, le=3600, description="how long to keep instances warm for the next job"
    )
    subnets: list[str] = Field(default=[], description="subnets of a VPC")
    security_groups: list[str] = Field(default=[], description="security groups of a VPC")
    kms_key: str | None = Field(
        default=None, description="key to encrypt volumes and the outputs that SageMaker writes"
    )
    tags: dict[str, str] = Field(default={}, description="tags of each job")
    environment: dict[str, str] = Field(
        default={},
        description="environment variables of jobs; no secrets: they are shown in the job's details",
    )
    region: str | None = Field(default=None, description="AWS region; none: from AWS's settings")

    @model_validator(mode="after")
    def _is_whole(self) -> SageMakerParams:
        if self.max_wait is not None and not self.spot:
            raise ValueError("max_wait applies to spot jobs only; set spot: true, or remove it")
        if self.max_wait is not None and self.max_wait < self.max_runtime:
            raise ValueError(
                f"max_wait {self.max_wait:g} s includes max_runtime, so it must be at least "
                f"{self.max_runtime:g} s"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups must be set together, or both left out")
        return self


class RemoteParams(Block):
    """Where `tune` and `train` run. It changes no output."""

    backend: Literal["local", "sagemaker"] = Field(
        default="local", description=f"{BACKEND_VARIABLE} overrides it"
    )
    url: str | None = Field(
        default=None, description="s3://bucket/folder for the inputs and outputs of jobs"
    )
    stages: list[Literal["tune", "train"]] = Field(
        default=["tune", "train"], description="stages to run as jobs; others run on this machine"
    )
    files: list[str] = Field(
        default=[], description="project files to upload in addition to a stage's dependencies"
    )
    requirements: str | None = Field(
        default="requirements.txt",
        description="additional packages to install in jobs, in the versions installed here",
    )
    from_image: list[str] = Field(
        default=[],
        description="packages not to install, because the image has its own version: torch, ...",
    )
    reuse: bool = Field(
        default=True, description="use the outputs of an earlier job with the same inputs"
    )
    sagemaker: SageMakerParams = SageMakerParams()

    @field_validator("url")
    @classmethod
    def _is_no_secret(cls, url: str | None) -> str | None:
        if url and hide_secrets(url) != url:
            raise ValueError(
                "expected a URL without user name, password and query, because params.yaml is in "
                "Git; store credentials where AWS's tools look for them"
            )
        return url.rstrip("/") if url else url

    def chosen_backend(self) -> str:
        """Return the backend for stages: from the environment variable, or else `params.yaml`.

        Raises:
            InvalidParamsError: If the variable's value is not a backend, or if a setting that the
                backend needs is missing.
        """
        given = os.environ.get(BACKEND_VARIABLE)
        backend = given or self.backend
        if backend not in BACKENDS:
            allowed = ", ".join(BACKENDS)
            problem = f"{BACKEND_VARIABLE}: expected one of {allowed}, found {backend!r}"
            raise InvalidParamsError("environment", [problem])
        if backend == "sagemaker":
            self.check_sagemaker()
        return backend

    def check_sagemaker(self) -> None:
        """Check that all settings that SageMaker needs are set.

        Raises:
            InvalidParamsError: If settings are missing; lists all of them.
        """
        problems = []
        if not (self.url or "").startswith("s3://"):
            found = repr(self.url) if self.url else "none"
            problems.append(f"remote.url: SageMaker needs s3://bucket/folder, found {found}")
        if self.sagemaker.image_uri is None:
            problems.append(
                "remote.sagemaker.image_uri: expected a container image with Python and pip, found "
                "none; docs/sagemaker.md lists suitable ones"
            )
        if problems:
            raise InvalidParamsError("params.yaml", problems)
