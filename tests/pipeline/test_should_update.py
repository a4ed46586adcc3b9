"""`should-update` in a real project, for unchanged and for rotated digits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from sandbox import UP_TO_DATE, Sandbox

from renate_stages.actions.example_data import write_digits


def put_digits_of_all_classes(project: Sandbox, scratch: Path, turns: int) -> None:
    """Add a third of all digits to DVC, rotated by a number of quarter turns."""
    images, labels = [], []
    for update in (1, 2, 3):
        write_digits(scratch / str(update), update)
        images.append(np.load(scratch / str(update) / "inputs.npy")[::3])
        labels.append(np.load(scratch / str(update) / "targets.npy")[::3])
    incoming = project.root / "data" / "incoming"
    shutil.rmtree(incoming)
    incoming.mkdir()
    np.save(incoming / "inputs.npy", np.rot90(np.concatenate(images), turns, axes=(1, 2)))
    np.save(incoming / "targets.npy", np.concatenate(labels))
    project.run("dvc", "add", "-q", "data/incoming")


def test_should_update_requests_an_update_for_rotated_digits_only(project, tmp_path):
    project.stop_tracking()
    project.commit("Track nothing")
    project.run("dvc", "repro", "-q")
    output = project.run("renate-stages", "should-update", code=1)
    assert "update 3 is trained on this data already" in output
    project.run("renate-stages", "next")
    printed = project.run("renate-stages", "should-update", code=2)
    assert "belongs to an earlier update, but update 4 is open" in printed

    put_digits_of_all_classes(project, tmp_path, turns=0)
    project.run("dvc", "repro", "-q", "prepare")
    output = project.run("renate-stages", "should-update", code=1)
    assert "shift: no" in output and "update 4: not needed" in output

    put_digits_of_all_classes(project, tmp_path, turns=1)
    printed = project.run("renate-stages", "should-update", code=2)
    assert "data/incoming was changed after `prepare` had read it" in printed
    printed = project.run("dvc", "repro", "prepare")
    assert "shift against update 3" in printed
    output = project.run("renate-stages", "should-update")
    assert (
        "shift: yes" in output
        and "performance_drop: yes" in output
        and "update 4: needed" in output
    )
    assert UP_TO_DATE in project.run("dvc", "repro", "prepare")
    before = project.read("metrics/data.json")
    project.run("dvc", "repro", "-q", "-f", "-s", "prepare")
    assert project.read("metrics/data.json") == before

    project.edit("params.yaml", ("age: null", "age: 0.000001"))
    assert "age: yes: update 3 is 0.0 days old" in project.run("renate-stages", "should-update")
    project.commit("Prepare update 4")
    clone = project.clone()  # not pulled: the metrics are in Git
    assert "update 4: needed" in clone.run("renate-stages", "should-update")
