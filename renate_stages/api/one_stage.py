"""Run one stage of `run_training_job` in its own process.

    python -m renate_stages.api.one_stage ROOT STAGE

With several devices, `train` runs in one such process per device.
"""

from __future__ import annotations

import sys
from pathlib import Path

from renate_stages.project import Project
from renate_stages.training import launch
from renate_stages.training.guarded import guarded


def main() -> None:
    """Run the stage that the command line names."""
    root, stage = sys.argv[1:]
    project = Project.at(Path(root))
    if stage == "train":
        from renate_stages.stages import train

        train.run(project)
    else:
        from renate_stages.stages import export

        export.run(project)


if __name__ == "__main__":
    launch.begin(trains=sys.argv[2:] == ["train"])
    guarded(main)
