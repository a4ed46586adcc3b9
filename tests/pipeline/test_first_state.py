"""Start of a project: its location, an imported model, no data, a failed first run."""

from __future__ import annotations

import torch
from sandbox import OUTPUTS, Sandbox, generate

from renate_stages.actions.example_data import write_digits
from renate_stages.models import MLP


def fit_model_to_digits(folder) -> MLP:
    """Return the template's model, trained on a folder of digits by a plain PyTorch loop."""
    import numpy as np

    inputs = torch.from_numpy(np.load(folder / "inputs.npy")).float() / 16
    targets = torch.from_numpy(np.load(folder / "targets.npy"))
    model = MLP(num_inputs=64, num_outputs=10, hidden_size=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def test_init_imports_an_existing_model_and_its_old_data(tmp_path):
    torch.manual_seed(0)
    old_data = tmp_path / "old"
    write_digits(old_data, 1)
    model = tmp_path / "model.pt"
    torch.save(fit_model_to_digits(old_data).state_dict(), model)

    project = generate(tmp_path)
    printed = project.run("renate-stages", "init", "--model", str(model), "--memory", str(old_data))
    assert "parent: created a state from the model model.pt" in printed
    first = project.read_json("parent-state/state.json")
    assert (first["kind"], first["update"], first["classes"]) == ("init", 0, [0, 1, 2, 3])
    assert not project.run("git", "status", "--porcelain")
    before = project.snapshot
    assert "already" in project.run("renate-stages", "init", "--model", str(model), code=2)
    assert project.snapshot == before

    project.stop_tracking()
    project.put_digits(2)
    project.run("dvc", "repro", "-q")
    accuracy = project.read_json("metrics/update.json")["accuracy"]["holdout"]
    assert set(accuracy) == {"0", "1"}
    assert accuracy["0"] >= 0.9 and accuracy["1"] >= 0.9
    project.commit("Update 1")
    project.run("renate-stages", "next")
    assert "1 tagged update:" in project.run("renate-stages", "verify")


def test_init_refuses_a_folder_inside_another_git_repository(tmp_path):
    inner = generate(tmp_path / "outer")
    outer = Sandbox(tmp_path / "outer")
    outer.run("git", "init", "-q")
    assert "a repository of its own" in inner.run("renate-stages", "init", code=2)
    assert not (inner.root / ".git").exists()
    assert not (inner.root / "parent-state").exists()


def test_init_accepts_a_folder_ignored_by_the_surrounding_git_repository(tmp_path):
    inner = generate(tmp_path / "outer")
    outer = Sandbox(tmp_path / "outer")
    outer.run("git", "init", "-q")
    (outer.root / ".gitignore").write_text("/digits/\n")
    assert "git: created a repository" in inner.run("renate-stages", "init")
    assert inner.run("git", "rev-parse", "--show-toplevel").strip() == str(inner.root.resolve())
    assert "digits" not in outer.run("git", "status", "--porcelain")


def test_empty_project_reports_what_the_user_must_fill_in(tmp_path):
    project = generate(tmp_path, starting_data="empty")
    printed = project.run("renate-stages", "status")
    assert "`renate-stages init` in a new project" in printed
    assert "data/incoming: created" in project.run("renate-stages", "init")
    assert "put it in data/incoming and run `dvc add data/incoming`" in project.run(
        "renate-stages", "status"
    )
    assert "3 skipped" in project.run("python", "-m", "pytest", "-q", "tests")
    assert "uses your own data" in project.run("renate-stages", "example-data", "1", code=2)

    (project.root / "data" / "incoming" / "rows.csv").write_text("1,2\n")
    project.run("dvc", "add", "-q", "data/incoming")
    message = "data_module_fn: fill in IncomingData"
    assert message in project.run("python", "-m", "pytest", "-q", "tests", code=1)
    printed = project.run("dvc", "repro", code=255)
    assert message in printed and "Traceback" not in printed


def test_failed_first_run_adds_no_outputs_to_git(tmp_path):
    project = generate(tmp_path)
    project.run("renate-stages", "init")

    project.edit("params.yaml", ("max_epochs:", "max_epoch:"))
    printed = project.run("dvc", "repro", code=255)
    assert "did you mean 'max_epochs'" in printed and "Traceback" not in printed
    project.run("git", "add", "-A")
    assert not [name for name in project.in_git if name.startswith(OUTPUTS)]

    project.edit(
        "params.yaml",
        ("max_epoch:", "max_epochs:"),
        ("learning_rate: 0.05", "learning_rate: 1.0e+30"),
    )
    printed = project.run("dvc", "repro", code=255)
    assert "not finite" in printed and "Traceback" not in printed
    project.run("git", "add", "-A")
    assert not [name for name in project.in_git if name.startswith(OUTPUTS)]
    assert (project.root / "work" / "restored").is_dir() and not (project.root / "state").exists()
    (run,) = project.runs
    assert run["status"] == "FAILED" and "NotFiniteError" in run["renate.error"]
