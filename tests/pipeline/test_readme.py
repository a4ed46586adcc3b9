"""The commands of the README, run in an empty folder as a new user runs them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

from sandbox import REPOSITORY, generate

SKIPPED_COMMANDS = ("pip", "cookiecutter", "cd", "mlflow")  # installation, generation, a server


def test_readme_commands_of_two_updates_run_as_written(tmp_path):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Your own project\n\n```text\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    project = replace(generate(tmp_path), warm=False)
    printed = {}
    for line in block[1].splitlines():
        for command in line.split("#")[0].split("&&"):
            words = shlex.split(command)
            if words and words[0] not in SKIPPED_COMMANDS:
                printed[" ".join(words)] = project.run(*words)
    assert "accuracy.holdout.2" in printed["dvc metrics diff update-1"]
    assert json.loads(project.read("state/state.json"))["update"] == 2
    # A mistake in params.yaml gives one error and leaves the state unchanged.
    before = project.read("state/state.json")
    project.edit("params.yaml", ("max_epochs:", "max_epoch:"))
    broken = project.run("renate-stages", "train", code=2)
    assert "did you mean 'max_epochs'" in broken and "Traceback" not in broken
    assert project.read("state/state.json") == before
