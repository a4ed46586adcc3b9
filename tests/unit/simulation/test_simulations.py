"""A simulation runs the updates of `run_training_job`, continues, and reports their figures."""

import csv
import json
import math
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from scipy import stats

from renate_stages.actions.example_data import write_digits
from renate_stages.api.training_job import run_training_job
from renate_stages.errors import SimulationChangedError
from renate_stages.simulation import one_run, results, side_by_side, simulate
from renate_stages.simulation.settings import read_plan

REPOSITORY = Path(__file__).parents[3]
SETTINGS = {
    "params": None,
    "data_path": "digits",
    "scenario": {"name": "class-incremental", "groupings": [[0, 1], [7, 3]]},
    "learners": ["FineTuning", {"name": "ER", "learner": "ER"}],
    "seeds": [0, 1],
    "hyperparameters": {"learning_rate": 0.05, "batch_size": 32, "hidden_size": 8},
    "trainer": {"max_epochs": 2},
    "processes": 1,
}


def write_settings(folder, **changes):
    path = folder / "simulate.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return path


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Run a simulation whose process is forked; `tests/pipeline` runs one in new processes."""
    folder = tmp_path_factory.mktemp("simulated")
    code = (REPOSITORY / "renate_config.py").read_text()
    (folder / "renate_config.py").write_text(f"{code}\n\nfrom shapes_of.scale import RATE\n")
    (folder / "shapes_of").mkdir()
    (folder / "shapes_of" / "scale.py").write_text("RATE = 1\n")
    write_digits(folder / "digits", None)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "get_context", lambda _: get_context("fork"))
        assert simulate(write_settings(folder), said.append)
    return folder, said


def results_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("update-*.json"))
    }


def table_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_writes_results_of_every_run_and_keeps_the_last_state(simulated):
    folder, said = simulated
    output = folder / "simulation"
    runs = [f"{name}-seed-{seed}" for name in ("FineTuning", "ER") for seed in (0, 1)]
    assert sorted(path.name for path in (output / "runs").iterdir()) == sorted(runs)
    for name in runs:
        files = {path.name for path in (output / "runs" / name).iterdir()}
        written = {"update-1.json", "update-2.json"}
        assert files == {"settings.json", "log.txt", "state-2", *written}
    assert {path.name for path in output.iterdir()} == {
        *("report.md", "table.csv", "updates.csv", "pictures", "runs"),
    }
    pictures = {path.name for path in (output / "pictures").iterdir()}
    assert pictures == {"curves.png", "matrix_FineTuning.png", "matrix_ER.png"}
    assert said[0] == "2 learners, 2 seeds, 2 updates: 4 of 4 runs left"


def test_updates_are_those_of_run_training_job(simulated, tmp_path):
    folder, _ = simulated
    for number in (1, 2):
        job = run_training_job(
            SETTINGS["hyperparameters"],
            updater="ER",
            config_file=folder / "renate_config.py",
            data_path=folder / "digits",
            data={"scenario": SETTINGS["scenario"]},
            input_state_url=tmp_path / "state-1" if number == 2 else None,
            output_state_url=tmp_path / f"state-{number}",
            working_directory=tmp_path / "work",
            seed=1,
            max_epochs=2,
        )
        path = folder / f"simulation/runs/ER-seed-1/update-{number}.json"
        assert json.loads(path.read_text())["metrics"] == job.metrics


def test_table_has_means_and_intervals_over_seeds(simulated):
    folder, _ = simulated
    rows = table_of(folder / "simulation/updates.csv")
    assert [(row["learner"], row["seed"], row["update"]) for row in rows] == [
        (name, seed, update) for name in ("FineTuning", "ER") for seed in "01" for update in "12"
    ]
    last = {(row["learner"], row["seed"]): row for row in rows if row["update"] == "2"}
    first = {(row["learner"], row["seed"]): row for row in rows if row["update"] == "1"}
    table = {row["learner"]: row for row in table_of(folder / "simulation/table.csv")}
    quantile = stats.t.ppf(0.975, 1)
    for name in ("FineTuning", "ER"):
        for figure in ("average", "forgetting", "forward_transfer"):
            values = [float(last[name, seed][figure]) for seed in "01"]
            half = quantile * stdev(values) / math.sqrt(2)
            found = [float(table[name][f"{figure}{end}"]) for end in ("", "_low", "_high")]
            expected = [mean(values), mean(values) - half, mean(values) + half]
            assert found == pytest.approx(expected, abs=1e-7)
        both = [[float(each[name, seed]["average"]) for each in (first, last)] for seed in "01"]
        assert float(table[name]["incremental"]) == pytest.approx(mean(map(mean, both)), abs=1e-7)
    differences = [
        float(last["ER", seed]["average"]) - float(last["FineTuning", seed]["average"])
        for seed in "01"
    ]
    assert float(table["ER"]["difference"]) == pytest.approx(mean(differences), abs=1e-7)
    assert table["FineTuning"]["difference"] == ""


def test_finished_updates_are_not_run_again(simulated):
    folder, _ = simulated
    before = results_of(folder)
    said: list[str] = []
    assert simulate(folder / "simulate.yaml", said.append)
    assert said[0].endswith("0 of 4 runs left")
    assert results_of(folder) == before


def test_an_interrupted_run_continues_with_the_same_figures(simulated, tmp_path):
    folder, _ = simulated
    plan = read_plan(folder / "simulate.yaml")
    plan = replace(plan, output=tmp_path / "simulation", keep_all=True)
    run = plan.runs[2]
    own = one_run.folder_of(plan, run)
    one_run.check_settings(plan, run)
    one_run.run_updates(plan, run, 2)
    expected = one_run.results_of(plan, run)
    (own / "update-2.json").unlink()  # as if it was killed after writing the state
    one_run.run_updates(plan, run, 2)
    again = one_run.results_of(plan, run)
    assert [each["metrics"] for each in again] == [each["metrics"] for each in expected]
    assert {path.name for path in own.glob("state-*")} == {"state-1", "state-2"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hyperparameters": {"learning_rate": 0.1}}, "hyperparameters"),
        ({"trainer": {"max_epochs": 3}}, "block trainer"),
    ],
)
def test_results_of_other_settings_are_not_continued(simulated, change, named):
    folder, _ = simulated
    plan = read_plan(folder / "simulate.yaml")
    other = read_plan(write_settings(folder, **change))
    write_settings(folder)
    with pytest.raises(SimulationChangedError, match=named):
        one_run.check_settings(other, other.runs[0])
    one_run.check_settings(plan, plan.runs[0])


def test_changed_code_and_data_are_not_continued(simulated):
    folder, _ = simulated
    plan = read_plan(folder / "simulate.yaml")
    unused = folder / "unused.py"
    unused.write_text("RATE = 1\n")
    one_run.check_settings(plan, plan.runs[0])
    for name in ("shapes_of/scale.py", "renate_config.py"):
        before = (folder / name).read_text()
        (folder / name).write_text(f"{before}OTHER = 1\n")
        with pytest.raises(SimulationChangedError, match=rf"differs in code \({name}\)"):
            one_run.check_settings(plan, plan.runs[0])
        (folder / name).write_text(before)
    one_run.check_settings(plan, plan.runs[0])
    extra = folder / "digits" / "more.npy"
    extra.write_bytes(b"1")
    with pytest.raises(SimulationChangedError, match="files of the data"):
        one_run.check_settings(plan, plan.runs[0])
    extra.unlink()


def test_a_failed_run_is_named_in_the_table_and_the_others_count(simulated, tmp_path, capfd):
    folder, _ = simulated
    plan = replace(read_plan(folder / "simulate.yaml"), output=tmp_path / "simulation")
    bad = replace(plan.runs[0], hyperparameters={"learning_rate": -1})
    plan = replace(plan, runs=(bad,))
    one_run.check_settings(plan, bad)
    one_run.run_updates(plan, bad, 1)
    assert "FineTuning, seed 0: update 1 failed" in capfd.readouterr().out
    text = results.write(plan, 0.0)
    assert "failed: FineTuning, seed 0, update 1:" in text and "learning_rate" in text
    assert "| learner | seeds |\n|---|---|\n| FineTuning | 0 |\n" in text
