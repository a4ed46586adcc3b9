"""Choose the hyperparameters of this update: `renate-stages tune`.

They are constants (params.py refuses a search space), so there is nothing to choose.
"""

from __future__ import annotations

from collections.abc import Callable

from renate_stages import files, yaml_file
from renate_stages.params import Params
from renate_stages.project import Project


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Write the hyperparameters of `params.yaml` to `tuned.yaml`.

    Raises:
        InvalidParamsError: If one of them is neither a constant nor a list.
    """
    params = Params.load(project.params)
    chosen = dict(sorted(params.hyperparameters.items()))
    heading = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"
    files.write_text(project.tuned, heading + yaml_file.dump({"hyperparameters": chosen}))
    say("no search space: tuned.yaml holds the constants of params.yaml")
