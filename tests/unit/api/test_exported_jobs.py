"""`run_training_job` with `export_path`."""

from __future__ import annotations

import pytest
from small_project import REPOSITORY

from renate_stages import errors, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.state import state


def test_training_job_exports_the_trained_model(tmp_path, monkeypatch, warm_jobs):
    write_digits(tmp_path / "data", 1)
    (tmp_path / "code").mkdir()
    text = (REPOSITORY / "renate_config.py").read_text(encoding="utf-8")
    (tmp_path / "code" / "renate_config.py").write_text(f"import sizes\n{text}")
    (tmp_path / "code" / "sizes.py").write_text("HIDDEN = 8\n")
    monkeypatch.chdir(tmp_path)
    arguments = {
        "max_epochs": 1,
        "config_file": "code/renate_config.py",
        "data_path": "data",
        "output_state_url": "states/1",
        "export_path": "exported",
    }
    result = run_training_job({"hidden_size": 8}, **arguments)
    exported = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"export.json", "model.pt2", "renate_config.py", "sizes.py"} <= exported
    assert "renate_stages" not in exported, "the library is installed, not copied"
    weights = "model.safetensors"
    same = (tmp_path / "exported" / weights).read_bytes()
    assert result.state is not None and (result.state.folder / weights).read_bytes() == same

    with pytest.raises(errors.StateExistsError, match="exported already exists"):
        run_training_job({}, **{**arguments, "output_state_url": None})


def test_failed_export_of_a_training_job_keeps_the_new_state(tmp_path, warm_jobs):
    write_digits(tmp_path / "data", 1)
    text = (REPOSITORY / "renate_config.py").read_text(encoding="utf-8")
    code = "import sys\nif 'export' in sys.argv:\n    raise ValueError('no export here')\n"
    (tmp_path / "renate_config.py").write_text(code + text.replace("from __future__", "# "))
    problem = "export ended with exit code 2. The new state is complete in .*states/1"
    with pytest.raises(errors.StageProcessError, match=problem):
        run_training_job(
            {"hidden_size": 4},
            max_epochs=1,
            config_file=tmp_path / "renate_config.py",
            data_path=tmp_path / "data",
            working_directory=tmp_path / "work",
            output_state_url=tmp_path / "states" / "1",
            export_path=tmp_path / "exported",
        )
    assert not (tmp_path / "exported").exists()
    state.check(tmp_path / "states" / "1")
