"""A small repository with three updates, whose stages are one script, for tests of the lineage."""

from __future__ import annotations

from pathlib import Path

from small_project import edit_params

from renate_stages import lineage
from renate_stages.export.exported import Exported
from renate_stages.files import yaml_file
from renate_stages.project import Project

# Small versions of `train` and `export`: the accuracy that the gate judges is `seed` / 10.
PIPELINE = {
    "stages": {
        "train": {
            "cmd": "python make.py train",
            "deps": ["parent-state"],
            "params": ["seed", "update"],
            "outs": ["state"],
        },
        "export": {
            "cmd": "python make.py export",
            "deps": ["state", "champion"],
            "params": ["seed", "update"],
            "outs": ["export", {"reports/verdict.json": {"cache": False}}],
        },
    }
}
MAKE = """
import sys
from pathlib import Path
from renate_stages.params import Params
params = Params.load(Path("params.yaml"))
number = params.update.number
if sys.argv[1] == "train":
    Path("state").mkdir(exist_ok=True)
    Path("state/state.json").write_text(f"{number} {params.seed}")
else:
    from renate_stages import files
    from renate_stages.evaluation.examined import Examined, ExaminedHoldouts
    from renate_stages.export.exported import Exported
    from renate_stages.gate.figures import Measured
    from renate_stages.params.rules import read_rules
    from renate_stages.gate.judging import judge
    from renate_stages.randomness import Generators
    Path("export").mkdir(exist_ok=True)
    Exported(number, f"identity-{number}-{params.seed}", "t", {}, {"average_accuracy": 0.5}).write(Path("export"))
    champion = Exported.read(Path("champion"))
    new = ExaminedHoldouts.of_means({1: Examined(10, {"accuracy": params.seed / 10})})
    rules = read_rules({"average": {"min": 0.5}}, "accuracy", "max")
    measured = Measured(number, new, champion.update, new if champion else None)
    verdict = judge(rules, measured, "accuracy", ["loss"], Generators(0, number))
    files.write_json(Path("reports/verdict.json"), verdict.content)
"""
GOOD, BAD = 9, 1


def run_update(project: Project, quality: int) -> None:
    edit_params(project, seed=quality)
    lineage.dvc(project, "repro", "--quiet")
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-q", "-m", "An update")


def make_three_updates(root: Path) -> Project:
    """Make two tagged updates and an open third one, which all passed the gate, and no champion."""
    project = Project(root)
    project.root.mkdir()
    project.pipeline.write_text(yaml_file.dump(PIPELINE))
    project.params.write_text(
        "seed: 0\nupdate:\n  number: 1\n  parent: 0\ntracking:\n  enabled: false\n"
    )
    (project.root / "make.py").write_text(MAKE)
    (project.root / ".gitignore").write_text(".renate\n__pycache__\n")
    lineage.git(project, "init", "-q", "-b", "main")
    lineage.dvc(project, "init", "--quiet")
    project.parent.mkdir()
    (project.parent / "state.json").write_text("empty")
    Exported().write(project.champion)
    lineage.track(project, project.parent, project.parent_pointer)
    lineage.track(project, project.champion, project.champion_pointer)
    project.incoming.mkdir(parents=True)
    (project.incoming / "rows").write_text("1")
    lineage.track(project, project.incoming)
    run_update(project, GOOD)
    for _ in (2, 3):
        lineage.open_next(project)
        run_update(project, GOOD)
    return project
