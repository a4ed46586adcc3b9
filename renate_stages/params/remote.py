"""The block `remote` of `params.yaml`: where `tune` and `train` run. No stage depends on it."""

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
    """What a SageMaker training job asks for."""

    role: str | None = Field(
        default=None, description="ARN or name of the role jobs run as; none: the SDK's default"
    )
    image_uri: str | None = Field(default=None, description="container image, with Python and pip")
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = Field(default=1, ge=1, description="nodes of `train`; `tune` takes one")
    volume_gb: int = Field(default=30, ge=1, description="disk of each instance, in GiB")
    max_runtime: Seconds = Field(default=86400, gt=0, description="or such as '6 h'")
    spot: bool = Field(default=False, description="spare capacity, cheaper; may be interrupted")
    max_wait: OptionalSeconds = Field(
        default=None, description="of a spot job, all in all; none: twice max_runtime"
    )
    keep_alive: OptionalSeconds = Field(
        default=None, gt=0, le=3600, description="keep the instances for the next job so long"
    )
    subnets: list[str] = Field(default=[], description="of a VPC")
    security_groups: list[str] = Field(default=[], description="of a VPC")
    kms_key: str | None = Field(
        default=None, description="encrypts volumes; and what SageMaker writes"
    )
    tags: dict[str, str] = Field(default={}, description="of each job")
    environment: dict[str, str] = Field(
        default={}, description="variables of the job; seen by all who may describe it: no secrets"
    )
    region: str | None = Field(default=None, description="none: as AWS's own settings say")

    @model_validator(mode="after")
    def _is_whole(self) -> SageMakerParams:
        if self.max_wait is not None and not self.spot:
            raise ValueError("max_wait is of spot jobs: set spot: true, or leave it out")
        if self.max_wait is not None and self.max_wait < self.max_runtime:
            raise ValueError(
                f"max_wait {self.max_wait:g} s is less than max_runtime {self.max_runtime:g} s, "
                "which it includes"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups are given together, or neither")
        return self


class RemoteParams(Block):
    """Where `tune` and `train` run. It changes no output."""

    backend: Literal["local", "sagemaker"] = Field(
        default="local", description=f"{BACKEND_VARIABLE} overrides it"
    )
    url: str | None = Field(
        default=None, description="s3://bucket/folder for what jobs read and write"
    )
    stages: list[Literal["tune", "train"]] = Field(
        default=["tune", "train"], description="those that run there; the others run here"
    )
    files: list[str] = Field(
        default=[], description="paths of the project that jobs get beside a stage's dependencies"
    )
    requirements: str | None = Field(
        default="requirements.txt",
        description="packages of jobs beside the library's own, in the versions installed here",
    )
    from_image: list[str] = Field(
        default=[], description="packages that the image has in versions of its own, such as torch"
    )
    reuse: bool = Field(
        default=True, description="take what an earlier job made of equal inputs, if it is there"
    )
    sagemaker: SageMakerParams = SageMakerParams()

    @field_validator("url")
    @classmethod
    def _is_no_secret(cls, url: str | None) -> str | None:
        if url and hide_secrets(url) != url:
            raise ValueError(
                "expected an address without user name, password and query, since params.yaml is in "
                "Git; give credentials as AWS's tools find them"
            )
        return url.rstrip("/") if url else url

    def chosen_backend(self) -> str:
        """Return where stages run: as the environment says, or else `params.yaml`.

        Raises:
            InvalidParamsError: If the environment names no backend, or what the backend needs is
                not given.
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
        """Refuse to run in SageMaker without what that needs.

        Raises:
            InvalidParamsError: With all that is lacking.
        """
        problems = []
        if not (self.url or "").startswith("s3://"):
            found = f"found {self.url!r}" if self.url else "and none is given"
            problems.append(f"remote.url: SageMaker needs s3://bucket/folder, {found}")
        if self.sagemaker.image_uri is None:
            problems.append(
                "remote.sagemaker.image_uri: name a container image with Python and pip; "
                "docs/sagemaker.md says which fit"
            )
        if problems:
            raise InvalidParamsError("params.yaml", problems)
