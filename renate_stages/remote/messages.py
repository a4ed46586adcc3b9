"""The messages between a stage here and its job, as closed types.

    job.json        what to run; its SHA-256 travels in the request that starts the job
    outputs.json    what the job has made
    failure.json    else: why not

Whoever may write to the bucket may write the last two. So they are small, name only files that the
stage writes, each by size and SHA-256, and hold nothing that is carried out.
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
"""The largest of these files. One that lists 500,000 files has 80 MB."""
FILES = 500_000
NAME_LENGTH = 1024  # characters of a path
LAST_LINES = 200  # of what a failed stage printed, which travel back
LINE_LENGTH = 2000  # characters of each

EXPERIMENT = "DVC_EXP_NAME"  # names the run in MLflow

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
    """The content of a file: its size in bytes, and its SHA-256."""

    size: int = Field(ge=0, lt=2**60)
    sha256: str = Field(pattern=SHA256)


Listed = Annotated[dict[Inside, Content], Field(max_length=FILES)]


class Wheel(Message):
    """The library: name of the file, and of the object that holds it."""

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
        files: What the stage wrote.
        tracked: What the stage logged, the content of `recording_in`; None: nothing.
    """

    job: JobName | None
    files: Listed
    tracked: Content | None


class Failure(Message):
    """`failure.json`.

    Args:
        job: The service's name of the job.
        exit_code: Of the stage.
        lines: The last lines that it printed.
        damaged: Objects whose content is not what their name says.
        tracked: As in `Outputs`.
    """

    job: JobName | None
    exit_code: int = Field(ge=1, le=255)
    lines: Annotated[list[Line], Field(max_length=LAST_LINES)]
    damaged: Annotated[list[ObjectName], Field(max_length=FILES)] = []
    tracked: Content | None = None


def recording_in(tracked: Entry) -> str:
    """Return the place, in the job's folder, of what its stage logged: records of `tracking`."""
    return f"tracked/{tracked['sha256']}.jsonl"


def parse(kind: type[M], content: bytes) -> M:
    """Read a message.

    Raises:
        ValueError: With the field that is wrong, in one line.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(described(error)) from error
