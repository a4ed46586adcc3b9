"""The learners that `learner: auto` lists, by what is known about an update."""

from __future__ import annotations

import itertools

import pytest

from renate_stages.learners import registry
from renate_stages.params.auto_learner import (
    CLOSED_FORM,
    Situation,
    possible_learners,
    suited_learners,
)
from renate_stages.params.search_space import SearchSpace

CLASSES = {"task": "classification", "stores_examples": True, "new_classes": (4, 5)}
NO_MEMORY = {**CLASSES, "stores_examples": False}
FROZEN = {"frozen": True, "trained_share": 0.01}


@pytest.mark.parametrize(
    ("known", "listed"),
    [
        (CLASSES, "ER DER++ ER-ACE FineTuning"),
        ({**CLASSES, "new_classes": ()}, "ER DER++ FineTuning"),
        ({**CLASSES, "new_classes": None}, "ER DER++ ER-ACE FineTuning"),
        ({**CLASSES, "is_first": True}, "ER"),
        ({**CLASSES, "task": "regression", "new_classes": None}, "ER DER++ FineTuning"),
        ({**CLASSES, "task": None, "is_first": True}, "ER"),
        ({**CLASSES, **FROZEN}, "SLDA RanPAC NCM ER FineTuning"),
        ({**CLASSES, **FROZEN, "new_classes": ()}, "SLDA RanPAC NCM ER FineTuning"),
        ({**CLASSES, **FROZEN, "is_first": True}, "SLDA RanPAC NCM ER"),
        ({**CLASSES, **FROZEN, "unfit": {"RanPAC": "no"}}, "SLDA NCM ER FineTuning"),
        ({**CLASSES, **FROZEN, "task": "regression"}, "ER DER++ FineTuning"),
        ({**CLASSES, "unfit": {"DER++": "no", "NCM": "no"}}, "ER ER-ACE FineTuning"),
        (NO_MEMORY, "L2-SP LwF WiSE-FT FineTuning"),
        ({**NO_MEMORY, "new_classes": ()}, "WiSE-FT LwF L2-SP FineTuning"),
        ({**NO_MEMORY, "task": "tokens", "new_classes": None}, "WiSE-FT LwF L2-SP FineTuning"),
        ({**NO_MEMORY, "parent_learner": "MAS"}, "MAS L2-SP LwF WiSE-FT FineTuning"),
        ({**NO_MEMORY, "parent_learner": "ER"}, "L2-SP LwF WiSE-FT FineTuning"),
        ({**NO_MEMORY, "is_first": True}, "MAS"),
        ({**NO_MEMORY, **FROZEN}, "SLDA RanPAC NCM L2-SP FineTuning"),
        ({**NO_MEMORY, **FROZEN, "is_first": True}, "SLDA RanPAC NCM MAS"),
        ({**NO_MEMORY, **FROZEN, "unfit": dict.fromkeys(CLOSED_FORM, "no")}, "L2-SP FineTuning"),
    ],
)
def test_list_suits_task_memory_classes_and_backbone(known, listed):
    assert suited_learners(Situation(**known)).learners == tuple(listed.split())


def test_reasons_name_what_decided():
    frozen = suited_learners(Situation(**NO_MEMORY, **FROZEN, unfit={"RanPAC": "no such head"}))
    assert frozen.reasons == (
        "no example may be stored (memory_size is 0)",
        "task classification",
        "2 new classes",
        "the backbone is frozen: 1.0% of the parameters before the last layer are trained",
        "without RanPAC: no such head",
    )
    shifted = suited_learners(Situation("classification", True, new_classes=(), trained_share=1.0))
    assert shifted.reasons == (
        "examples may be stored",
        "task classification",
        "no new classes",
        "the backbone is trained: 100.0% of the parameters before the last layer are trained",
    )
    first = suited_learners(Situation(None, True, is_first=True))
    assert first.reasons[1:] == (
        "the task is not known",
        "first update, so there is nothing to forget",
    )


@pytest.mark.parametrize("task", ["classification", "regression", "auto"])
@pytest.mark.parametrize("hyperparameters", [{"memory_size": 0}, {"memory_size": 100}, "auto"])
def test_every_list_is_among_the_possible_learners(task, hyperparameters):
    possible = possible_learners(hyperparameters, task)
    assert set(possible) <= set(registry.LEARNERS)
    for first, classes, frozen, parent in itertools.product(
        (True, False), (None, (), (1,)), (True, False), (None, "MAS")
    ):
        found = "classification" if task == "auto" else task
        stores = hyperparameters != {"memory_size": 0}
        situation = Situation(found, stores, first, classes, 0.0, frozen, parent)
        assert set(suited_learners(situation).learners) <= set(possible)


def test_only_what_the_list_reads_is_searched():
    spaces = {"shrinkage": "auto", "alpha": {"uniform": [0, 1]}, "learning_rate": "auto"}
    constants_and_own = {"memory_size": 100, "hidden": {"choice": [8, 16]}}
    whole = SearchSpace.of("auto", constants_and_own | spaces)
    read = whole.read_by({"learning_rate", "hidden"})
    assert set(read.domains) == {"learner", "shrinkage", "alpha", "hidden", "learning_rate"}
    frozen = read.among(("SLDA", "ER"))
    assert set(frozen.domains) == {"learner", "shrinkage", "hidden", "learning_rate"}
    assert frozen.learners == ("SLDA", "ER") and frozen.middle()["learner"] == "SLDA"
    assert frozen.complete(frozen.encode({"learner": "ER"})).keys() == {
        *("learner", "hidden", "learning_rate", "memory_size")
    }
    assert set(read.among(("DER++",)).domains) == {"learner", "alpha", "hidden", "learning_rate"}
