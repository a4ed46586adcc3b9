"""A fake cloud provider for tests: the outputs, states and log lines of its jobs are given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from renate_stages import files
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote.backend import JobState
from renate_stages.remote.job import FAILURE, OUTPUTS
from renate_stages.remote.messages import recording_in
from renate_stages.remote.start import BEGIN
from renate_stages.storage.objects import name_of

MADE = {
    "metrics/update.json": b"{}",
    "plots/classes.csv": b"class\n",
    "state/state.json": b'{"new": 1}',
    "state/memory/00001-00.inputs.npy": b"a shard",
}


@dataclass
class FakeProvider:
    """A backend that runs no jobs: tests set the outputs, states and log lines of its jobs.

    Args:
        bucket: The local folder that is used as bucket.
        made: The content of each file that a job writes.
        states: The states that are reported for a job, in order; the last one is repeated.
        lines: The lines that a job prints.
    """

    bucket: Path
    made: Mapping[str, bytes] = field(default_factory=lambda: dict(MADE))
    states: list[JobState | Exception] = field(
        default_factory=lambda: [JobState("", "completed", "Completed")]
    )
    lines: list[str] = field(default_factory=lambda: ["pulling the image", BEGIN, "training"])
    known: list[JobState] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    tracked: bytes = b""
    digests: list[str] = field(default_factory=list)
    failure: dict | None = None
    service = "Place"

    def connect(self, params: Params) -> FakeProvider:
        return self

    def submit(self, name: str, url: str, folder: str, digest: str) -> str:
        job = f"{name}-{len(self.submitted)}"
        self.digests.append(digest)
        self.submitted.append(job)
        self.finish(folder, job)
        return job

    def finish(self, folder: str, job: str) -> None:
        """Write the outputs of a job, or its failure message."""
        own = self.bucket / folder
        tracked = files.entry_of(self.tracked) if self.tracked else None
        if tracked:
            files.write_text(own / recording_in(tracked), self.tracked.decode())
        header = {"job": job, "tracked": tracked}
        if self.failure is not None:
            (own / FAILURE).write_text(json.dumps({**header, **self.failure}))
            return
        entries = {name: self.put(content) for name, content in self.made.items()}
        own.mkdir(parents=True, exist_ok=True)
        (own / OUTPUTS).write_text(json.dumps({**header, "files": entries}))

    def put(self, content: bytes) -> files.Entry:
        """Write an object to the bucket, as a job does with each output file."""
        entry = files.entry_of(content)
        target = self.bucket / "objects" / name_of(entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return entry

    def find(self, name: str) -> list[JobState]:
        return [each for each in self.known if each.name.startswith(name)]

    def state(self, job: str) -> JobState:
        found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(found, Exception):
            raise found
        return JobState(job, found.status, found.phase, found.reason)

    def log(self, job: str) -> FakeProvider:
        return self

    def new_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def log_address(self, job: str) -> str:
        return f"the log of {job}"

    def stop(self, job: str) -> None:
        self.stopped.append(job)


def write_training_inputs(project: Project) -> None:
    """Write a small file for each input of `train`; the content does not matter to the tests."""
    for name in (
        "forget.yaml",
        "parent-state/evaluations.csv",
        "parent-state/holdouts/index.json",
        "parent-state/memory/index.json",
        "parent-state/memory/00001-00.inputs.npy",
        "parent-state/validation/index.json",
        "work/prepared/index.json",
        "work/restored/state.json",
        "work/tuning/search.json",
        "tuned.yaml",
    ):
        path = project.root / name
        path.unlink(missing_ok=True)
        content = "a shard" if name.endswith("npy") else f"file: {name}\n"
        files.write_text(path, content)
