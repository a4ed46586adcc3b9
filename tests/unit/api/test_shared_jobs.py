"""`run_training_job` on two devices, for which it starts the training processes itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from small_project import REPOSITORY

from renate_stages import files
from renate_stages.actions.digits import write_digits

SCRIPT = """
import json
import sys
from pathlib import Path

from renate_stages import run_training_job
from renate_stages.errors import SharedTrainingError

def job(devices, **values):
    return run_training_job(
        {"memory_size": 50, "hidden_size": 8, **values}, max_epochs=1, config_file=sys.argv[1],
        data_path="data", devices=devices, output_state_url=f"state-{devices}")

if __name__ == "__main__":
    one, two = job(1), job(2)
    figures = json.dumps([[each.curves[0], len(each.state.memory())] for each in (one, two)])
    Path("figures.json").write_text(figures)
    try:
        run_training_job({"hidden_size": -1}, config_file=sys.argv[1], data_path="data", devices=2)
    except SharedTrainingError as error:
        print(error)
"""


def test_training_job_on_two_devices_matches_one_device(tmp_path):
    write_digits(tmp_path / "data", 1)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(REPOSITORY / "renate_config.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, refused = done.stdout.split("the training processes ")
    (one, kept), (two, also_kept) = files.read_json(tmp_path / "figures.json")
    assert two == pytest.approx(one, abs=1e-5) and kept == also_kept == 50
    assert refused.startswith("ended with exit code 2")
    assert done.stderr.count("hidden_size is -1") == 1, done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data", "script.py", "figures.json", "state-1", "state-2", "renate_working_dir"}
