"""Typed messages between a local stage and its job.

    job.json        what to run; the request that starts the job contains its SHA-256
    outputs.json    the results of a job that succeeded
    failure.json    the reason why a job failed

Anyone with write access to the bucket can write the last two. So their size is limited, they name
only files that the stage writes, each with size and SHA-256, and nothing in them is executed.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from renate_stages.errors.redaction import printable
from renate_stages.files import Entry
from renate_stages.files.typed import described
from renate_stages.state import is_inside
from renate_stages.tracking.records import SHA256

MESSAGE_BYTES = 128 * 2**20
"""Maximum size of these files. A list of 500,000 files takes 80 MB."""
FILES = 500_000
NAME_LENGTH = 1024  # characters of a path
LAST_LINES = 200  # of a failed stage's output, which the job sends back
LINE_LENGTH = 2000  # characters of each of these lines

EXPERIMENT = "DVC_EXP_NAME"  # environment variable that names the run in MLflow

M = TypeVar("M", bound="Message")


def _inside(name: str) -> str:
    if not is_inside(name) or printable(name) != name:
        raise ValueError("expected a relative path inside the project")
    return name


Inside = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_inside)]
ObjectName = Annotated[str, Field(pattern=r"^[0-9a-f]{2}/[0-9a-f]{62}$")]
JobName = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9-]+$")]
Line = Annotated[str, Field(max_length=LINE_LENGTH)]


class Message(BaseModel):
    """A file that travels between a stage and its job."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Content(Message):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0, lt=2**60)
    sha256: str = Field(pattern=SHA256)


Listed = Annotated[dict[Inside, Content], Field(max_length=FILES)]


class Wheel(Message):
    """The library's wheel: its file name, and the name of the object with its content."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+\.whl$")
    object: ObjectName


class JobDescription(Message):
    """`job.json`; see `Job.configuration`."""

    stage: str
    command: list[str]
    key: str = Field(pattern=r"^[0-9a-z]+$")
    url: str
    variables: dict[Literal["DVC_EXP_NAME"], str]
    files: Listed
    writes: list[Inside]
    wheel: Wheel
    requirements: list[str]
    nodes: int = Field(ge=1)


class Outputs(Message):
    """`outputs.json`.

    Args:
        job: The service's name of the job.
        files: The files that the stage wrote.
        tracked: Size and SHA-256 of the file `recording_in`, with what the stage logged; None if it
            logged nothing.
    """

    job: JobName | None
    files: Listed
    tracked: Content | None


class Failure(Message):
    """`failure.json`.

    Args:
        job: The service's name of the job.
        exit_code: Exit code of the stage.
        lines: The last lines that it printed.
        damaged: Objects whose content does not match the SHA-256 in their name.
        tracked: As in `Outputs`.
    """

    job: JobName | None
    exit_code: int = Field(ge=1, le=255)
    lines: Annotated[list[Line], Field(max_length=LAST_LINES)]
    damaged: Annotated[list[ObjectName], Field(max_length=FILES)] = []
    tracked: Content | None = None


def recording_in(tracked: Entry) -> str:
    """Return the path, in the job's folder, of the records of `tracking` that the stage logged."""
    return f"tracked/{tracked['sha256']}.jsonl"


def parse(kind: type[M], content: bytes) -> M:
    """Parse a message.

    Raises:
        ValueError: If it is not valid; one line names the invalid field.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(described(error)) from error
