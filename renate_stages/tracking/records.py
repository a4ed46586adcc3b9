"""The types of what a stage logs in a job; anything else is refused.

A recording is a file with one record a line. Whoever may write to the bucket may have written it, so
a record can say what happened, and not what it means for the project: which store, experiment and
run it belongs to, which state it made and whether that is complete are this side's to say. It names
no file of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from renate_stages.files.typed import described

RECORDING_BYTES = 256 * 2**20
"""The largest recording. A search of 500 trials with 5,000 points each has 100 MiB."""
LINE_BYTES = 16 * 2**20
"""The longest record: a trial with 100,000 points of 10 metrics has 3 MiB."""
RECORDS = 1_000_000
NAME_LENGTH = 250  # characters, as MLflow has it
TEXT_LENGTH = 1_000_000  # characters of a value; the writer cuts it to what MLflow keeps
VALUES = 10_000  # of one record
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
    """The stage began to log a run."""

    do: Literal["open"]
    key: Annotated[str, Field(pattern=SHA256, description="of the stage's inputs")]


class Parameters(Record):
    """Parameters of the run, as text."""

    do: Literal["parameters"]
    values: Texts


class Points(Record):
    """One point of each of some metrics."""

    do: Literal["metrics"]
    values: Metrics
    step: Step
    timestamp: Time


class Tags(Record):
    """Tags of the run, of those that a job may set."""

    do: Literal["tags"]
    values: dict[RunTag, Text]


class Trial(Record):
    """A trial that has ended."""

    do: Literal["trial"]
    number: Number
    parameters: Texts
    points: Annotated[dict[Step, Metrics], Field(max_length=POINTS)]
    tags: dict[TrialTag, Text]
    status: Status
    started: Time
    ended: Time


class TaggedTrial(Record):
    """Tags of a trial that has been recorded."""

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
    """Read one line of a recording.

    Raises:
        ValueError: With the record's kind and the field that is wrong, in one line.
    """
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ValueError(described(error)) from error


def recorded(command: Mapping[str, Any], root: str, at: int) -> dict[str, Any] | None:
    """Return what to record of a command to MLflow; None where it is not a job's to say.

    Args:
        command: As `SideProcess` is sent it.
        root: The project's folder, in which artifacts are.
        at: Milliseconds since 1970.

    Raises:
        ValueError: An artifact is not in the project.
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
