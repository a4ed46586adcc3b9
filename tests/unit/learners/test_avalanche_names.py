"""What is known of Avalanche without it: names, refusals, spaces. Nothing of it is imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from renate_stages.errors import InvalidParamsError, MissingExtraError
from renate_stages.learners import registry
from renate_stages.learners.avalanche import catalog
from renate_stages.params import Params

GUIDE = (Path(__file__).parents[3] / "docs" / "avalanche.md").read_text(encoding="utf-8")


def test_names_are_strategies_and_plugins_joined() -> None:
    found = catalog.composed("Avalanche-LwF+DER+my.plugins:Mine")
    assert found.strategy == "DER"
    assert found.plugins == ("LwF", "my.plugins:Mine")
    assert {"alpha", "temperature", "memory_size"} <= set(found.arguments)
    assert catalog.composed("Avalanche-Replay") == catalog.composed("Avalanche-ER")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Avalanche-EWX", "did you mean 'EWC'"),
        ("Avalanche-DER+ER-ACE", "only one is allowed"),
        ("Avalanche-ER+Replay", "listed more than once"),
        ("Avalanche-BiC", "is not supported"),
        ("Avalanche-", "unknown Avalanche strategy or plugin ''"),
        ("Avalanche-ER+ER-AML", "hangs if"),
    ],
)
def test_a_wrong_name_is_a_problem_of_the_parameters(name: str, problem: str) -> None:
    with pytest.raises(InvalidParamsError, match="learner: ") as caught:
        Params.parse({"learner": name})
    assert problem in str(caught.value)


def test_a_list_of_plugins_is_the_name_that_joins_them() -> None:
    params = Params.parse({"learner": {"avalanche": {"plugins": ["ER", "LwF"]}}})
    assert params.fixed().learner == "Avalanche-ER+LwF"
    assert not params.search_space


@pytest.mark.parametrize("content", [None, [], {"plugins": []}, {"plugins": ["ER"], "lr": 1}])
def test_a_wrong_list_is_a_problem_of_the_parameters(content: object) -> None:
    with pytest.raises(InvalidParamsError, match=r"learner\.avalanche"):
        Params.parse({"learner": {"avalanche": content}})


def test_learners_of_both_kinds_are_one_choice() -> None:
    content = {"learner": {"choice": ["ER", "Avalanche-EWC"]}}
    assert Params.parse(content).search_space.learners == ("ER", "Avalanche-EWC")


def test_auto_knows_the_spaces_of_the_parts() -> None:
    content = {"learner": "Avalanche-ER+EWC", "hyperparameters": "auto"}
    assert {"ewc_lambda", "memory_batch_size", "learning_rate"} <= set(
        Params.parse(content).search_space.domains
    )


def test_parameters_are_checked_without_importing_avalanche_or_torch() -> None:
    script = (
        "import sys; from renate_stages.params import Params;"
        "Params.parse({'learner': 'Avalanche-EWC'}).search_space;"
        "assert not {'avalanche', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(find_spec("avalanche") is not None, reason="avalanche-lib is installed")
def test_without_the_extra_the_message_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"renate-stages\[avalanche\]"):
        registry.learner_class("Avalanche-EWC")
    with pytest.raises(MissingExtraError):
        registry.check_installed(["ER", "Avalanche-EWC"])
    registry.check_installed(["ER"])


def test_the_guide_has_every_part_and_every_refusal() -> None:
    for name, part in catalog.PARTS.items():
        (line,) = [each for each in GUIDE.splitlines() if each.startswith(f"| {name} | ")]
        assert part.summary in line and part.reference in line and part.fix in line
        assert all(f"`{argument}`" in line for argument in part.arguments)
    for name, reason in catalog.REFUSED.items():
        assert f"| {name} | {reason} |" in GUIDE
    assert not set(catalog.PARTS) & set(catalog.REFUSED)


def test_the_list_of_learners_names_them() -> None:
    table = registry.table()
    assert all(name in table for name in catalog.PARTS)
