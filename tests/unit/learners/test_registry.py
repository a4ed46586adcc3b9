"""Learner names (built-in, dotted, from entry points) and the table of learners."""

from __future__ import annotations

import subprocess
import sys

import pytest

from renate_stages.errors import UnknownLearnerError
from renate_stages.learners import registry
from renate_stages.learners.base import Learner
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.params import Params


@pytest.mark.parametrize("name", registry.LEARNERS)
def test_every_registered_learner_is_a_documented_learner_class(name):
    found = registry.learner_class(name)
    assert issubclass(found, Learner) and found.__doc__
    line = next(each for each in registry.table().splitlines() if each.startswith(f"{name} "))
    entry = registry.LEARNERS[name]
    assert entry.summary in line and entry.reference in line
    assert set(entry.needs) <= {"memory", "labels", "features", "layers", "backbone"}


@pytest.mark.parametrize("dot", [".", ":"])
def test_dotted_name_selects_the_users_own_learner(dot):
    name = f"renate_stages.learners.fine_tuning{dot}FineTuning"
    assert Params.parse({"learner": name}).learner == name
    assert registry.learner_class(name) is FineTuning


@pytest.mark.parametrize("name", ["nowhere.at:All", "renate_stages.data:Batch", "json:nothing"])
def test_dotted_name_that_is_not_a_learner_is_refused(name):
    Params.parse({"learner": name})  # only training imports the class
    with pytest.raises(UnknownLearnerError, match=name.split(":")[0]):
        registry.learner_class(name)


def test_entry_points_of_installed_packages_add_learners(tmp_path, monkeypatch):
    package = tmp_path / "extra-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\nMine = renate_stages.learners.fine_tuning:FineTuning\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.learner_class("Mine") is FineTuning
    assert Params.parse({"learner": "Mine"}).learner == "Mine"
    assert "Mine" in registry.table()


def test_learner_table_does_not_import_torch():
    code = (
        "import sys; from renate_stages.learners import registry; registry.table(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("LearningToPrompt", "RanPAC"), ("learningtopromptreplay", "ER"), ("SPeft", "NCM")],
)
def test_updater_of_renate_that_is_missing_is_named_with_the_nearest_learner(name, nearest):
    problem = registry.problem_of(name)
    assert problem is not None
    assert "is not available" in problem and f"the nearest learner is {nearest}:" in problem
    assert nearest in registry.LEARNERS


def test_every_missing_updater_says_so_only_while_it_is_missing():
    for name, (nearest, _) in registry.UNAVAILABLE.items():
        problem = registry.problem_of(name)
        assert problem is None if name in registry.LEARNERS else nearest in str(problem)


@pytest.mark.parametrize("name", ["PODER", "pod_er", "POD-er", "Pod ER"])
def test_misspelt_pod_er_is_not_taken_for_der(name):
    assert "did you mean 'POD-ER'?" in str(registry.problem_of(name))
