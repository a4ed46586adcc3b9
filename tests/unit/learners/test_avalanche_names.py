"""Avalanche learner names, refusals and search spaces, checked without importing Avalanche."""

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


def test_avalanche_name_is_split_into_strategy_and_plugins() -> None:
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
def test_invalid_avalanche_name_is_reported_as_params_error(name: str, problem: str) -> None:
    with pytest.raises(InvalidParamsError, match="learner: ") as caught:
        Params.parse({"learner": name})
    assert problem in str(caught.value)


def test_plugin_list_is_parsed_to_the_joined_learner_name() -> None:
    params = Params.parse({"learner": {"avalanche": {"plugins": ["ER", "LwF"]}}})
    assert params.fixed().learner == "Avalanche-ER+LwF"
    assert not params.search_space


@pytest.mark.parametrize("content", [None, [], {"plugins": []}, {"plugins": ["ER"], "lr": 1}])
def test_invalid_plugin_list_is_reported_as_params_error(content: object) -> None:
    with pytest.raises(InvalidParamsError, match=r"learner\.avalanche"):
        Params.parse({"learner": {"avalanche": content}})


def test_learner_choice_can_mix_built_in_and_avalanche_learners() -> None:
    content = {"learner": {"choice": ["ER", "Avalanche-EWC"]}}
    assert Params.parse(content).search_space.learners == ("ER", "Avalanche-EWC")


def test_auto_hyperparameters_cover_all_parts_of_an_avalanche_learner() -> None:
    content = {"learner": "Avalanche-ER+EWC", "hyperparameters": "auto"}
    assert {"ewc_lambda", "memory_batch_size", "learning_rate"} <= set(
        Params.parse(content).search_space.domains
    )


def test_params_are_validated_without_importing_avalanche_or_torch() -> None:
    script = (
        "import sys; from renate_stages.params import Params;"
        "Params.parse({'learner': 'Avalanche-EWC'}).search_space;"
        "assert not {'avalanche', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(find_spec("avalanche") is not None, reason="avalanche-lib is installed")
def test_missing_avalanche_extra_error_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"renate-stages\[avalanche\]"):
        registry.learner_class("Avalanche-EWC")
    with pytest.raises(MissingExtraError):
        registry.check_installed(["ER", "Avalanche-EWC"])
    registry.check_installed(["ER"])


def test_avalanche_guide_lists_every_supported_and_refused_part() -> None:
    for name, part in catalog.PARTS.items():
        (line,) = [each for each in GUIDE.splitlines() if each.startswith(f"| {name} | ")]
        assert part.summary in line and part.reference in line and part.fix in line
        assert all(f"`{argument}`" in line for argument in part.arguments)
    for name, reason in catalog.REFUSED.items():
        assert f"| {name} | {reason} |" in GUIDE
    assert not set(catalog.PARTS) & set(catalog.REFUSED)


def test_learner_table_lists_all_avalanche_parts() -> None:
    table = registry.table()
    assert all(name in table for name in catalog.PARTS)
