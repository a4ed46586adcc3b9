"""Choose the hyperparameters of this update: `renate-stages tune`.

This version does not search yet: it refuses a search space.
"""

from __future__ import annotations

from collections.abc import Callable

from renate_stages import files, yaml_file
from renate_stages.errors import InvalidParamsError
from renate_stages.params import Params
from renate_stages.project import Project


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Write the hyperparameters of `params.yaml` to `tuned.yaml`.

    Raises:
        InvalidParamsError: If one of them is a search space.
    """
    params = Params.load(project.params)
    if params.search_space:
        name, domain = next(iter(params.search_space.domains.items()))
        path = name if name == "learner" else f"hyperparameters.{name}"
        problem = (
            f"{path}: {{{domain.kind}: {list(domain.values)}}} is a search space, and this version "
            f"does not search yet: write one value, and compare values with `dvc exp run -S "
            f"{path}=VALUE`"
        )
        raise InvalidParamsError("params.yaml", [problem])
    chosen = dict(sorted(params.hyperparameters.items()))
    heading = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"
    files.write_text(project.tuned, heading + yaml_file.dump({"hyperparameters": chosen}))
    say("no search space: tuned.yaml holds the constants of params.yaml")
