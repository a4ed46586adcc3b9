"""Run a trial in a new process.

    python -m renate_stages.tuning.fresh_process SOCKET PROJECT

For code that does not work in a forked process. Each process imports the heavy packages itself, which
takes some seconds.
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
    """Run the trial that the search sends, and exit."""
    end_with_parent()
    channel = TrialChannel(socket.socket(fileno=int(sys.argv[1])))
    project = Project.at(Path(sys.argv[2]))
    with heavy_imports():
        from renate_stages.tuning import trial

    def open_inputs(folder: Path) -> trial.TrialInputs:
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # an earlier process of this trial left it
        scratch.mkdir()
        return trial.TrialInputs.open(project, scratch)

    sys.exit(trial.work(channel, open_inputs))


if __name__ == "__main__":
    main()
