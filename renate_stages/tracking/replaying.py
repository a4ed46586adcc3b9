"""Logging what was recorded elsewhere: in the project's own store, with the times of then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from renate_stages.tracking.location import store_of
from renate_stages.tracking.recording import Command
from renate_stages.tracking.runs import RunIdentity, Tracker, open_command, run_tags
from renate_stages.tracking.side_process import SideProcess


def replay(project_root: Path, commands: Iterable[Command], tags: Mapping[str, str]) -> None:
    """Log each recorded run as a new attempt.

    As with every run, what MLflow refuses is one line on stderr, and no error.

    Args:
        project_root: The project's folder.
        commands: What `recorded` returned.
        tags: Of the run, beside those recorded: where it ran, the commit it was made from.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
    """
    store = store_of(project_root)
    tracker = None
    for command in commands:
        given = {name: value for name, value in command.items() if name != "at"}
        if command["do"] == "open":
            own = {n: v for n, v in command["tags"].items() if not n.startswith("mlflow.")}
            identity = RunIdentity(
                experiment=command["experiment"],
                name=command["name"],
                key=command["key"],
                tags={**own, **tags},
                experiment_tags=command["experiment_tags"],
            )
            tracker = Tracker(SideProcess(store.root), store)
            opening = open_command(store, identity, run_tags(identity))
            tracker._send({"do": "open", "mode": "new", "started": command["at"], **opening})
        elif tracker is not None and command["do"] == "close":
            tracker._close(command["status"], command["tags"], ended=command["at"])
            tracker = None
        elif tracker is not None:
            tracker._send(given)
    if tracker is not None:  # the stage was killed before it could say how it ended
        tracker._close("KILLED", {})
