"""`run_training_job` on two devices, for which it starts the training processes itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from small_project import REPOSITORY

from renate_stages import run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.errors import SharedTrainingError

SCRIPT = """
import sys
from renate_stages import run_training_job

if __name__ == "__main__":
    run_training_job(
        {"hidden_size": 8}, max_epochs=1, config_file=sys.argv[1], data_path="data", devices=2,
        output_state_url="state-2")
"""


def job(devices, **values):
    return run_training_job(
        {"memory_size": 50, "hidden_size": 8, **values},
        max_epochs=1,
        config_file=REPOSITORY / "renate_config.py",
        data_path="data",
        devices=devices,
        output_state_url=f"state-{devices}" if values.get("hidden_size", 8) > 0 else None,
    )


def test_training_job_on_two_devices_matches_one_device(tmp_path, monkeypatch, warm_jobs, capfd):
    write_digits(tmp_path / "data", 1)
    monkeypatch.chdir(tmp_path)
    one, two = job(1), job(2)
    assert two.curves[0] == pytest.approx(one.curves[0], abs=1e-5)
    assert one.state is not None and two.state is not None
    assert len(one.state.memory()) == len(two.state.memory()) == 50
    with pytest.raises(SharedTrainingError, match="training processes ended with exit code 2"):
        job(2, hidden_size=-1)
    printed = capfd.readouterr().err
    assert printed.count("hidden_size is -1") == 1, printed
    assert "Traceback" not in printed
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data", "state-1", "state-2", "renate_working_dir"}


@pytest.mark.slow
def test_script_starts_new_training_processes(tmp_path):
    write_digits(tmp_path / "data", 1)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(REPOSITORY / "renate_config.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data", "script.py", "state-2", "renate_working_dir"}
