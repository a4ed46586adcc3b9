"""`renate-stages remote check`: check step by step what jobs need.

Each step prints what it checked and what the service answered. A step is skipped if an earlier step
that it needs has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from renate_stages.errors import RenateStagesError
from renate_stages.errors.redaction import shown
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote import cloud, package
from renate_stages.remote.following import follow
from renate_stages.remote.job import Job, requirements_of
from renate_stages.remote.results import failure
from renate_stages.storage.storage import Storage

PROBE = "check"


class Checklist:
    """Checks the services that the block `remote` of `params.yaml` needs.

    Args:
        project: The project whose stages will run as jobs.
        params: Parameters of the project.
        say: Prints the result of each step.
    """

    def __init__(self, project: Project, params: Params, say: Callable[[str], None]) -> None:
        self.project = project
        self.params = params
        self.say = lambda line: say(shown(line))
        self.passed = True

    def run(self, *, submit: bool) -> bool:
        """Run all steps; return whether all of them passed.

        Args:
            submit: Whether to also run a small job, which costs money.
        """
        remote = self.params.remote.model_copy(update={"backend": "sagemaker"})
        if self._step("params.yaml: remote", remote.chosen_backend) is None:
            return False
        params = self.params.model_copy(update={"remote": remote})
        backend: Any = self._step("SageMaker's SDK", lambda: cloud.connect(params))
        self._step("packages", self._packages)
        if backend is None:
            return False
        if self._step("identity", backend.identity) is None:
            return False
        storage = Storage.at(str(remote.url))
        bucket = self._step(f"write, read, list, remove in {remote.url}", lambda: _probe(storage))
        self._step("role", backend.role)
        self._step("permission to list training jobs", lambda: backend.find("renate") is not None)
        self._step(
            f"quota of {remote.sagemaker.instance_type}",
            lambda: backend.quota() or "unknown",
        )
        if submit and bucket is not None and self.passed:
            self._step("a job", lambda: self._job(backend, storage))
        return self.passed

    def _step(self, what: str, act: Callable[[], Any]) -> Any:
        """Run one step and print its result; return what `act` returns, or None if it failed."""
        try:
            found = act()
        except (RenateStagesError, ConnectionError, ValueError) as error:
            self.passed = False
            self.say(f"FAILED  {what}: {error}")
            return None
        shown = f": {found}" if isinstance(found, str) else ""
        self.say(f"ok      {what}{shown}")
        return found

    def _packages(self) -> str:
        pinned = requirements_of(self.project, self.params.remote)
        return f"{len(pinned)} pinned to the installed versions"

    def _job(self, backend: Any, storage: Storage) -> str:
        """Run `renate-stages --help` in a job, which tests image, installation, role and bucket."""
        key, library = str(int(time.time())), package.wheel()
        requirements = requirements_of(self.project, self.params.remote)
        job = Job(PROBE, key, {}, (), library, requirements, command=("--help",))
        digest = cloud.send(self.project, job, storage, self.say)
        submitted = backend.submit(job.service_name, storage.url, job.folder, digest)
        state = follow(backend, submitted, self.say)
        if state.status != "completed":
            own = storage.child(job.folder.rstrip("/"))
            raise failure(self.project, self.params, job, state, own, backend)
        return f"{state.name} ran for {state.seconds or 0:g} s and wrote to {storage.url}"


def _probe(storage: Storage) -> str:
    """Write, read, list and remove a small file."""
    place = storage.child(PROBE)
    name, content = f"probe-{time.time_ns()}", b"renate-stages"
    place.write(name, content)
    read, listed = place.read(name), place.sizes()
    place.remove([name])
    if read != content or listed.get(name) != len(content) or place.has(name):
        raise ValueError("the file was not read, listed or removed as it was written")
    return "all work"
