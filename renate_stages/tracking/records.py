"""Types of the records that a stage writes in a job; any other record is refused.

A recording is a file with one record per line. Anyone with write access to the bucket may have
changed it. So a record contains what happened, but not the store, experiment or run to log to, nor
which state was made and whether it is complete: these are determined on this machine. Records contain
no paths of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from renate_stages.files.typed import described

RECORDING_BYTES = 256 * 2**20
"""Maximum size of a recording; a search of 500 trials with 5,000 points each needs 100 MiB."""
LINE_BYTES = 16 * 2**20
"""Maximum size of a record; a trial with 100,000 points of 10 metrics needs 3 MiB."""
RECORDS = 1_000_000
NAME_LENGTH = 250  # characters, MLflow's limit
TEXT_LENGTH = 1_000_000  # characters of a value; the writer cuts values to MLflow's limit
VALUES = 10_000  # values of one record
POINTS = 200_000  # epochs of a trial
TRIALS = 100_000

SHA256 = r"^[0-9a-f]{64}$"
RunTag = Literal["tuning.repeatable"]
TrialTag = Literal["trial.best", "trial.number", "trial.reason", "trial.status"]


def _is_relative(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("expected a name without empty parts, '.' and '..'")
    return name


Name = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LENGTH, pattern=r"^[\w.\- :/]+$"),
    AfterValidator(_is_relative),
]
Text = Annotated[str, Field(max_length=TEXT_LENGTH)]
Time = Annotated[int, Field(ge=0, lt=2**53, description="milliseconds since 1970")]
Step = Annotated[int, Field(ge=-(2**53), lt=2**53)]
Number = Annotated[int, Field(ge=0, lt=TRIALS)]
Status = Literal["FINISHED", "FAILED", "KILLED"]
Metrics = Annotated[dict[Name, float], Field(max_length=VALUES)]
Texts = Annotated[dict[Name, Text], Field(max_length=VALUES)]


class Record(BaseModel):
    """A line of a recording."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: Time


class Open(Record):
    """The stage opened a run."""

    do: Literal["open"]
    key: Annotated[str, Field(pattern=SHA256, description="digest of the stage's inputs")]


class Parameters(Record):
    """Parameters of the run as strings."""

    do: Literal["parameters"]
    values: Texts


class Points(Record):
    """One point of each of several metrics."""

    do: Literal["metrics"]
    values: Metrics
    step: Step
    timestamp: Time


class Tags(Record):
    """Those tags of the run that a job may set."""

    do: Literal["tags"]
    values: dict[RunTag, Text]


class Trial(Record):
    """A finished trial."""

    do: Literal["trial"]
    number: Number
    parameters: Texts
    points: Annotated[dict[Step, Metrics], Field(max_length=POINTS)]
    tags: dict[TrialTag, Text]
    status: Status
    started: Time
    ended: Time
    name: str = ""


class TaggedTrial(Record):
    """Tags of a trial that was recorded earlier."""

    do: Literal["trial_tags"]
    number: Number
    values: dict[TrialTag, Text]


class Artifact(Record):
    """A file, or a folder of files, among the stage's outputs."""

    do: Literal["artifact"]
    path: Annotated[str, Field(max_length=1000), AfterValidator(_is_relative)]
    folder: Name | None


class Close(Record):
    """The stage ended."""

    do: Literal["close"]
    status: Status
    error: Text | None


AnyRecord = Annotated[
    Open | Parameters | Points | Tags | Trial | TaggedTrial | Artifact | Close,
    Field(discriminator="do"),
]
_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def parse(line: bytes) -> AnyRecord:
    """Parse one line of a recording.

    Raises:
        ValueError: If it is not a valid record; names the kind of record and the field, in one line.
    """
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ValueError(described(error)) from error


def recorded(command: Mapping[str, Any], root: str, at: int) -> dict[str, Any] | None:
    """Return the record of a command to MLflow; None if a job may not give this command.

    Args:
        command: A command for `SideProcess.send`.
        root: The project's folder.
        at: Milliseconds since 1970.

    Raises:
        ValueError: If an artifact is not in the project.
    """
    record = {**command, "at": at}
    match command["do"]:
        case "open":
            record = {"do": "open", "key": command["key"], "at": at}
        case "tags":
            own = {n: v for n, v in command["values"].items() if n in get_args(RunTag)}
            if not own:
                return None
            record["values"] = own
        case "artifact":
            inside = command["path"].removeprefix(f"{root.rstrip('/')}/")
            if inside == command["path"]:
                raise ValueError(f"artifact: {inside} is not in the project")
            record["path"] = inside
        case "close":
            error = command["tags"].get("renate.error")
            record = {"do": "close", "status": command["status"], "error": error, "at": at}
    return record
