"""Print the blocks of `params.yaml` that set Renate's defaults, for a project that DVC runs.

python -m renate_stages.compat.renate ER
"""

from __future__ import annotations

import sys

from renate_stages.files import yaml_file
from renate_stages.params import renate


def main(arguments: list[str]) -> int:
    """Print the blocks for the updater that the command line names; return the exit code."""
    updater = arguments[0] if arguments else "ER"
    if len(arguments) > 1 or updater not in renate.UPDATERS:
        known = ", ".join(renate.UPDATERS)
        print(f"error: expected one of {known}; found {' '.join(arguments)}", file=sys.stderr)
        return 2
    found = renate.translated(updater, {})
    values = {**renate.OPTIMIZER, **found.hyperparameters}
    print("# Without optimizer and learning_rate if renate_config.py defines optimizer_fn.")
    print(yaml_file.dump({"learner": found.learner, "hyperparameters": values, **renate.BLOCKS}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
