"""`learner: auto` in whole searches: which list is taken, and what the report says about it."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_project import edit_config, edit_params, move_on
from small_searches import quiet, searched
from torch import nn

from renate_stages.data import StoredDataset, ingest
from renate_stages.models import MLP, RenateWrapper
from renate_stages.params import Params
from renate_stages.params.auto_learner import CLOSED_FORM
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state.inputs import read_tuned
from renate_stages.tuning import outcome
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.search import SearchResult, best_trial
from renate_stages.tuning.situation import trained_share, unfit_for_outputs

pytestmark = pytest.mark.usefixtures("warm_searches", "no_pictures")
ALL_LEARNERS = {"scheduler": "grid", "max_trials": 5}
SETTINGS = {"learner": "auto", "trainer__max_epochs": 1, "tuning": ALL_LEARNERS}
FROZEN = """def frozen(model):
    model.features.requires_grad_(False)
    return model


def loss_fn("""
WITHOUT_HEAD = """    fail(fault)
    from renate_stages.models import RenateWrapper
    layers = torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    model[1].requires_grad_(False)
    model = RenateWrapper(model)
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model
"""
CONSTANTS = {"batch_size": 32, "learning_rate": 0.05, "momentum": 0.9, "memory_size": 100}


@pytest.fixture
def second_update(at_update_2, tmp_path, monkeypatch) -> Project:
    """Return a copy of a project whose parent, of ER, knows digits 0 to 3; the new ones are 4 to 6."""
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(at_update_2.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def auto_of(project, memory_size: int = 100, **changes) -> dict:
    """Run a search with `learner: auto` in which the learner alone is searched."""
    constants = {**CONSTANTS, "memory_size": memory_size}
    edit_params(project, hyperparameters=constants)
    fixed = {f"hyperparameters__{name}": value for name, value in constants.items()}
    return searched(project, **{**SETTINGS, **changes, **fixed})


def test_learners_are_compared_by_the_last_reports_of_their_trials_as_trials_are():
    """A trial that got worse after its best epoch is not reported as better than the chosen one."""

    def trial(learner: str, *values: float, status: str = "completed") -> SimpleNamespace:
        seen = [SimpleNamespace(metrics={"accuracy": each}, epoch=1) for each in values]
        return SimpleNamespace(
            seen=seen, shown=len(seen), status=status, configuration={"learner": learner}, number=0
        )

    trials = [trial("ER", 0.9, 0.7), trial("ER", 0.6), trial("FineTuning", 0.8)]
    trials += [trial("LwF", 0.95, status="failed"), trial("DER++")]
    chosen = best_trial(trials, Objective("accuracy", "max"))
    result = SearchResult(tuple(trials), chosen, "the space")
    summary = outcome.summary(Params.parse({}), result, [])
    assert chosen is trials[2]
    assert summary["learners"] == {"ER": 0.7, "FineTuning": 0.8}


def freeze(project) -> None:
    """Let model_fn return models whose part before the head is not trained."""
    edit_config(project, "return MLP(num_inputs", "return frozen(MLP(num_inputs")
    edit_config(project, "hidden_size=hidden_size)\n", "hidden_size=hidden_size))\n")
    stored = "MLP.from_state_dict(torch.load(model_state_url))"
    edit_config(project, stored, f"frozen({stored})")
    edit_config(project, "def loss_fn(", FROZEN)


def test_new_classes_and_a_memory_make_a_search_among_replay_and_the_report_says_so(second_update):
    summary = auto_of(second_update)
    assert summary["auto_learner"] == {
        "learners": ["ER", "DER++", "ER-ACE", "FineTuning"],
        "reasons": [
            "examples may be stored",
            "task classification",
            "3 new classes",
            "the backbone is trained: 100.0% of the parameters before the last layer are trained",
        ],
    }
    assert summary["trials"] == {"completed": 4}
    assert set(summary["learners"]) == {"ER", "DER++", "ER-ACE", "FineTuning"}
    chosen = read_tuned(second_update.tuned)["learner"]
    assert summary["learners"][chosen] == max(summary["learners"].values())
    train.run(second_update, quiet)
    export.run(second_update, quiet)
    report = second_update.report.read_text()
    assert "| `learner: auto` searched | ER, DER++, ER-ACE, FineTuning |" in report
    assert "| because | examples may be stored; task classification; 3 new classes;" in report
    assert f"| `learner` | {chosen} |" in report


def test_data_without_new_classes_leaves_out_what_needs_them(second_update):
    labels = np.load(second_update.incoming / "targets.npy")
    np.save(second_update.incoming / "targets.npy", labels % 4)
    prepare.run(second_update, quiet)
    summary = auto_of(second_update, tuning={"scheduler": "random", "max_trials": 1})
    assert summary["auto_learner"]["learners"] == ["ER", "DER++", "FineTuning"]
    assert "no new classes" in summary["auto_learner"]["reasons"]


def test_without_memory_learners_that_need_only_the_parent_are_searched(second_update):
    summary = auto_of(second_update, memory_size=0)
    assert set(summary["learners"]) == {"L2-SP", "LwF", "WiSE-FT", "FineTuning"}


def test_frozen_backbone_is_solved_in_closed_form_and_the_sums_go_on_without_memory(
    project_before_tune,
):
    project = project_before_tune
    freeze(project)
    summary = auto_of(project, memory_size=0)
    assert summary["auto_learner"]["learners"] == ["SLDA", "RanPAC", "NCM", "MAS"]
    assert summary["trials"] == {"completed": 4}, "each learner suits the model"
    first = read_tuned(project.tuned)["learner"]
    assert first in ("SLDA", "RanPAC"), summary["learners"]
    train.run(project, quiet)
    assert not (project.state / "memory" / "shards").exists()


def test_later_update_lists_only_closed_forms_whose_sums_the_parent_left(project_before_tune):
    from renate_stages.actions.example_data import write_digits

    project = project_before_tune
    freeze(project)
    edit_params(project, learner="NCM", hyperparameters={"batch_size": 32})
    tune.run(project, quiet)
    train.run(project, quiet)
    move_on(project, learner="auto")
    write_digits(project.incoming, 2)
    prepare.run(project, quiet)
    restore_state.run(project, quiet)
    summary = auto_of(project, memory_size=0)
    lacking = "the parent has neither sums of these features nor stored examples"
    assert summary["auto_learner"]["learners"] == ["NCM", "L2-SP", "FineTuning"]
    assert [f"without {name}: {lacking}" for name in ("SLDA", "RanPAC")] == summary["auto_learner"][
        "reasons"
    ][-2:]
    assert read_tuned(project.tuned)["learner"] == "NCM", summary["learners"]


def test_model_without_a_head_has_no_learner_in_closed_form_in_its_list(project_before_tune):
    edit_config(project_before_tune, "    fail(fault)\n", WITHOUT_HEAD)
    summary = auto_of(project_before_tune)
    assert summary["auto_learner"]["learners"] == ["ER"]
    reasons = summary["auto_learner"]["reasons"]
    assert (
        "the backbone is frozen: 0.0% of the parameters before the last layer are trained"
        in reasons
    )
    assert reasons[-3:] == [f"without {n}: Sequential has no `head`" for n in CLOSED_FORM]


def test_outputs_that_cannot_be_stored_rule_out_learners_that_store_them(tmp_path):
    class TwoOutputs(nn.Module):
        def forward(self, x):
            return {"mean": x, "spread": x}

    pairs = [(torch.ones(2), torch.arange(number)) for number in (1, 2)]
    ragged = ingest(pairs, tmp_path / "ragged", 1, "train", ragged=("targets",))
    even = ingest([(torch.ones(2), 0)] * 2, tmp_path / "even", 1, "train")
    model, two = MLP(2, 3), RenateWrapper(TwoOutputs())

    def unfit(model, store):
        return unfit_for_outputs(model, StoredDataset(store, None, None, None), "default_task")

    assert unfit(model, even) == {}
    assert unfit(model, ragged) == {"DER++": "targets have different lengths"}
    assert unfit(two, even) == {"DER++": "outputs are not one tensor"}


def test_share_of_trained_parameters_counts_those_before_the_last_layer():
    model = MLP(4, 3, hidden_size=(5, 2))
    assert trained_share(model, "default_task") == 1
    model.features.requires_grad_(False)
    assert trained_share(model, "default_task") == 0
    model.features[-2].bias.requires_grad_(True)
    assert trained_share(model, "default_task") == 2 / (4 * 5 + 5 + 5 * 2 + 2)
    assert trained_share(MLP(4, 3, num_hidden_layers=0), "default_task") == 0
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    plain[0].requires_grad_(False)
    assert trained_share(RenateWrapper(plain), "default_task") == 0
    assert trained_share(RenateWrapper(nn.Conv1d(1, 1, 1)), "default_task") == 1
