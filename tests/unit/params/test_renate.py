"""Renate's updaters and hyperparameters in terms of ours."""

from __future__ import annotations

import pytest

from renate_stages import errors
from renate_stages.compat.renate import defaults
from renate_stages.learners import registry
from renate_stages.learners.base import hyperparameters_of
from renate_stages.params import renate
from renate_stages.params.default_spaces import config_space as our_space


def values(updater: str, **given):
    return renate.translated(updater, given).hyperparameters


@pytest.mark.parametrize("updater", renate.UPDATERS)
def test_every_default_is_a_hyperparameter_of_the_learner(updater):
    known = renate.UPDATERS[updater]
    if updater.startswith("Avalanche") or registry.problem_of(known.learner):
        pytest.skip("needs an extra, or is not available")
    taken = hyperparameters_of(registry.learner_class(known.learner))
    assert {*known.defaults, *known.names.values()} <= set(taken)
    assert set(renate.translated(updater, {}).hyperparameters) <= set(taken)


def test_defaults_of_updaters_are_those_of_renate():
    er, der, cls, own = (values(name) for name in ("ER", "DER", "CLS-ER", "Super-ER"))
    assert er["replay_weight"] == defaults.ER_ALPHA
    assert (der["alpha"], der["beta"]) == (defaults.DER_ALPHA, defaults.DER_BETA)
    assert cls["replay_weight"] == defaults.CLS_ALPHA
    assert cls["consistency_weight"] == defaults.CLS_BETA
    assert cls["stable_probability"] == defaults.CLS_STABLE_MODEL_UPDATE_PROBABILITY
    assert own["consistency_weight"] == defaults.SER_CLS_ALPHA
    assert own["replay_weight"] == defaults.SER_DER_BETA
    assert own["pod_alpha"] == defaults.SER_POD_ALPHA
    for found in (er, der, cls, own):
        assert found["loss_weight"] == defaults.LOSS_WEIGHT
        assert found["loss_normalization"] == defaults.LOSS_NORMALIZATION
        assert found["memory_size"] == defaults.MEMORY_SIZE
        assert found["batch_size"] + found["memory_batch_size"] == defaults.BATCH_SIZE
    assert renate.OPTIMIZER["optimizer"] == defaults.OPTIMIZER
    assert renate.OPTIMIZER["learning_rate"] == defaults.LEARNING_RATE
    assert renate.BATCH_MEMORY_FRAC == defaults.BATCH_MEMORY_FRAC


@pytest.mark.parametrize(
    ("given", "new", "old"),
    [
        ({}, 16, 16),
        ({"batch_size": 100, "batch_memory_frac": 0.3}, 70, 30),
        ({"batch_size": 64, "memory_size": 10}, 54, 10),
        ({"batch_size": 64, "memory_size": "1GB"}, 32, 32),
        ({"memory_batch_size": 5}, 32, 5),
    ],
)
def test_batch_is_split_as_in_renate(given, new, old):
    found = values("ER", **given)
    assert (found["batch_size"], found["memory_batch_size"]) == (new, old)


def test_updaters_without_replay_use_the_whole_batch():
    for updater in ("FineTuning", "Joint", "GDumb", "RD"):
        found = renate.translated(updater, {"batch_memory_frac": 0.5})
        assert found.hyperparameters["batch_size"] == 32
        assert any("batch_memory_frac has no effect" in note for note in found.notes)


def test_searched_hyperparameters_are_renamed_too():
    found = renate.translated("CLS-ER", {"beta": {"uniform": [0, 1]}})
    assert found.hyperparameters["consistency_weight"] == {"uniform": [0, 1]}
    assert "consistency_weight" not in found.filled and "replay_weight" in found.filled


def test_keys_that_arguments_replace_are_left_out_and_named_if_they_differ():
    arguments = {"max_epochs": 5, "updater": "ER", "chunk_id": None}
    given = {"max_epochs": 50, "updater": "ER", "chunk_id": 3, "seed": 1}
    found = renate.translated("ER", given, arguments)
    assert found.hyperparameters["chunk_id"] == 3
    assert not {"max_epochs", "updater", "seed"} & found.hyperparameters.keys()
    assert [note.split(" to ")[0] for note in found.notes] == [
        "config_space sets max_epochs",
        "config_space sets seed",
    ]


def test_texts_of_renates_command_line_become_values():
    found = renate.translated(
        "Joint", {"reset": "False", "early_stopping": "True", "mask_unused_classes": "False"}
    )
    assert found.hyperparameters["reset"] is False
    assert found.hyperparameters["mask_unused_classes"] is False
    assert found.trainer == {"patience": 3}
    assert values("Offline-ER", loss_weight_new_data="None")["loss_weight_new_data"] is None


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"ema_memory_update_gamma": 0.9}, "ema_memory_update_gamma"),
        ({"batch_memory_frac": 0.0}, "batch_memory_frac"),
        ({"batch_memory_frac": 1.5}, "batch_memory_frac"),
        ({"batch_size": {"choice": [16, 32]}}, "batch_size"),
        ({"early_stopping": {"choice": [True, False]}}, "early_stopping"),
        ({"alpha": 1.0, "replay_weight": 1.0}, "replay_weight"),
    ],
)
def test_values_that_cannot_be_translated_are_refused_by_name(given, name):
    with pytest.raises(errors.InvalidHyperparameterError, match=f"hyperparameters.{name}: "):
        renate.translated("ER", given)


def test_gamma_of_one_is_renates_default_and_accepted():
    assert "ema_memory_update_gamma" not in values("ER", ema_memory_update_gamma=1.0)


def test_learner_that_renate_does_not_have_gets_no_defaults():
    found = renate.translated("LwF", {"temperature": 2.0})
    assert found.hyperparameters == {"temperature": 2.0} and not found.filled
    assert our_space("LwF")
