"""Run a trial in a new process.

    python -m renate_stages.tuning.fresh_process SOCKET PROJECT

For code that cannot go on in a forked process. It imports all that is heavy itself, which takes some
seconds.
"""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

from renate_stages.processes import end_with_parent, heavy_imports
from renate_stages.project import Project
from renate_stages.tuning.channel import TrialChannel


def main() -> None:
    """Do what the search asks for, and exit."""
    end_with_parent()
    channel = TrialChannel(socket.socket(fileno=int(sys.argv[1])))
    project = Project.at(Path(sys.argv[2]))
    with heavy_imports():
        from renate_stages.tuning import trial

    def open_inputs(folder: Path) -> trial.TrialInputs:
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a trial that goes on
        scratch.mkdir()
        return trial.TrialInputs.open(project, scratch)

    sys.exit(trial.work(channel, open_inputs))


if __name__ == "__main__":
    main()
