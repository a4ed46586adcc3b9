"""Write a small state with the code of one release: two updates of ER on random points.

    git archive COMMIT | tar -x -C OLD
    PYTHONPATH=OLD python tests/unit/state/make.py tests/unit/state/NAME

Old states must stay readable: `test_old_states.py` opens each folder here. Add one folder for each
new schema and each new store format, written by the code of that release, and never change it. This
script uses only functions that the stages have offered since the first release.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from renate_stages.files import yaml_file
from renate_stages.project import Project
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.state import state

CONFIG = """
from pathlib import Path

import numpy as np
import torch
from renate_stages.data import RenateDataModule
from renate_stages.models import MLP
from torch.utils.data import TensorDataset


class Points(RenateDataModule):
    def setup(self):
        points = torch.from_numpy(np.load(Path(self._data_path) / "points.npy"))
        self._train_data = TensorDataset(points, (points[:, 0] > 0).long())


def data_module_fn(data_path, seed=0):
    return Points(data_path, seed=seed)


def model_fn(model_state_url=None):
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url))
    return MLP(num_inputs=2, num_outputs=2, hidden_size=3)
"""
PARAMS = """
update: {number: 1, parent: 0, task_id: points}
learner: ER
hyperparameters: {learning_rate: 0.1, batch_size: 4, memory_batch_size: 4, memory_size: 6}
trainer: {max_epochs: 2}
tracking: {enabled: false}
"""


def write_project(root: Path) -> Project:
    """Write a project with a tiny model and without a parent state."""
    project = Project(root)
    project.user_config.write_text(CONFIG)
    deps = {"prepare": ["data/incoming", "renate_config.py"], "train": ["renate_config.py"]}
    stages = {name: {"cmd": "", "deps": found} for name, found in deps.items()}
    project.pipeline.write_text(yaml_file.dump({"stages": stages}))
    return project


def run_update(project: Project, number: int) -> None:
    """Run an update on twenty new points, starting from the state in `parent-state/`."""
    content = yaml_file.parse(PARAMS, "params.yaml")
    content["update"] |= {"number": number, "parent": number - 1}
    project.params.write_text(yaml_file.dump(content))
    shutil.rmtree(project.incoming, ignore_errors=True)
    project.incoming.mkdir(parents=True)
    points = np.random.default_rng(number).normal(size=(20, 2)).astype(np.float32)
    np.save(project.incoming / "points.npy", points)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project)


def main(target: Path) -> None:
    """Write the state after two updates to a new folder."""
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        project = write_project(Path(folder))
        project.parent.mkdir()
        state.write_empty(project.parent)
        for number in (1, 2):
            run_update(project, number)
            shutil.rmtree(project.parent)
            shutil.copytree(project.state, project.parent)
        shutil.copytree(project.state, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
