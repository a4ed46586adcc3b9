"""Inputs that DVC and MLflow record for a result, in a real project."""

from __future__ import annotations

import os
import shutil

import yaml
from sandbox import UP_TO_DATE, Sandbox

LOSSES = """import os

import torch

calls = 0


def loss(outputs, targets):
    global calls
    calls += outputs.requires_grad
    if calls > {last}:
        os.kill(os.getpid(), 9)
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing={smoothing})
"""
READ = 'float((Path(__file__).parent / "scale.txt").read_text())'


def declare(project: Sandbox, *names: str) -> None:
    content = yaml.safe_load(project.read("dvc.yaml"))
    for stage in ("prepare", "tune", "train", "export"):
        content["stages"][stage]["deps"] += names
    (project.root / "dvc.yaml").write_text(yaml.safe_dump(content))


def test_mlflow_run_records_the_dvc_hash_of_its_state(project):
    """The recorded hash is that of the new state, known after `train`, and not the parent's."""
    tags = {run["name"]: run for run in project.runs if run["status"] == "FINISHED"}
    lock = yaml.safe_load(project.read("dvc.lock"))
    (latest,) = [o["md5"] for o in lock["stages"]["train"]["outs"] if o["path"] == "state"]
    expected = [project.state_at("update-1"), project.state_at("update-2"), latest]
    assert [tags[f"update-{n}"]["dvc.state.md5"] for n in (1, 2, 3)] == expected
    assert [tags[f"update-{n}"]["dvc.parent.md5"] for n in (2, 3)] == expected[:2]


def test_mlflow_run_outside_dvc_records_no_state_hash(project):
    """`dvc.lock` then has the hash of another state."""
    project.edit("params.yaml", ("learning_rate: 0.05", "learning_rate: 0.04"))
    project.run("renate-stages", "tune")
    project.run("renate-stages", "train")
    assert "dvc.state.md5" not in project.runs[-1]


def test_files_read_by_user_code_must_be_stage_dependencies(project):
    project.stop_tracking()
    project.edit(
        "renate_config.py", ("return images.float() / 16", f"return images.float() / {READ}")
    )
    (project.root / "scale.txt").write_text("16")
    refused = project.run("dvc", "repro", code=None)
    assert "to_unit_range (renate_config.py, line " in refused and "Traceback" not in refused
    assert "  train:\n      - scale.txt\n  export:\n      - scale.txt\n" in refused
    declare(project, "scale.txt")
    project.run("dvc", "repro", "-q")
    assert project.read("export/scale.txt") == "16"
    assert UP_TO_DATE in project.run("dvc", "repro")
    (project.root / "scale.txt").write_text("8")
    status = project.run("dvc", "status")
    for stage in ("prepare", "tune", "train", "export"):
        assert f"{stage}:\n\tchanged deps:\n\t\tmodified:           scale.txt" in status
    assert not (project.root / "champion" / "__pycache__").exists()


def test_training_restarts_if_a_user_module_changed_since_the_checkpoint(project):
    """A resumed training would mix epochs of the old module with epochs of the new one."""
    project.stop_tracking()
    loss = 'return torch.nn.CrossEntropyLoss(reduction="none")'
    project.edit(
        "renate_config.py",
        ("import numpy as np\n", "import losses\nimport numpy as np\n"),
        (loss, "return losses.loss"),
    )
    declare(project, "losses.py")
    module = project.root / "losses.py"
    module.write_text(LOSSES.format(last=75, smoothing=0.5))
    os.environ["RENATE_STAGES_CHECKPOINT_SECONDS"] = "0"
    try:
        project.run("dvc", "repro", code=None)  # its process is killed in the sixth epoch
        assert list((project.root / ".renate" / "resume").rglob("last.ckpt"))
        module.write_text(LOSSES.format(last=10**9, smoothing=0.0))
        printed = project.run("dvc", "repro")
        assert "training starts anew: losses.py changed since the checkpoint" in printed
        found = project.hashes("state")
        shutil.rmtree(project.root / "state")
        project.run("dvc", "repro", "-q", "--force", "--single-item", "train")
        assert project.hashes("state") == found
    finally:
        del os.environ["RENATE_STAGES_CHECKPOINT_SECONDS"]
