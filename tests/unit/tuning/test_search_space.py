"""Search spaces in params.yaml: their values, their errors, and the configurations of trials."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from syne_tune import config_space

from renate_stages import errors
from renate_stages.learners import registry
from renate_stages.learners.base import hyperparameters_of
from renate_stages.params import default_spaces
from renate_stages.params.domains import Domain, as_written
from renate_stages.params.search_space import SearchSpace
from renate_stages.user import optimization

KINDS = {
    "uniform": [-1, 2.5],
    "loguniform": [0.001, 10],
    "randint": [2, 5],
    "lograndint": [1, 100],
    "choice": ["SGD", 3, True, None, [1, 2]],
    "ordinal": [16, 32, 64],
    "finrange": [0.0, 1.0, 5],
    "logfinrange": [1, 1000, 4],
}


def problems_of(learner, hyperparameters) -> list[str]:
    with pytest.raises(errors.InvalidParamsError) as raised:
        SearchSpace.of(learner, hyperparameters)
    return raised.value.problems


def domain_of(content) -> Domain:
    return SearchSpace.of("ER", {"x": content}).domains["x"]


@pytest.mark.parametrize(("kind", "values"), KINDS.items())
def test_values_drawn_by_syne_tune_are_plain_values_of_the_space(kind, values):
    space = SearchSpace.of("ER", {"x": {kind: values}})
    domain, drawn_from = space.domains["x"], space.syne_tune()["x"]
    random_state, generator = np.random.RandomState(0), np.random.default_rng(0)
    types = {type(each) for each in domain.values} if domain.is_list else {float}
    if domain.is_whole:
        types = {int}
    for _ in range(200):
        value = space.complete({"x": drawn_from.sample(random_state=random_state)})["x"]
        own = domain.draw(generator)
        assert domain.contains(value) and domain.contains(own)
        assert type(value) in types and type(own) in types
        assert domain.decode(drawn_from.cast(domain.encode(value))) == value
    assert domain.contains(domain.middle())


@pytest.mark.parametrize(
    ("content", "middle", "grid", "size"),
    [
        ({"uniform": [0, 1]}, 0.5, [0.0, 0.5, 1.0], 0),
        ({"loguniform": [0.01, 1]}, 0.1, [0.01, 0.1, 1.0], 0),
        ({"randint": [1, 3]}, 2, [1, 2, 3], 3),
        ({"randint": [1, 9]}, 5, [1, 5, 9], 9),
        ({"lograndint": [1, 100]}, 10, [1, 10, 100], 100),
        ({"choice": ["a", "b"]}, "a", ["a", "b"], 2),
        ({"ordinal": [1, 2, 3, 4, 5]}, 3, [1, 3, 5], 5),
        ({"finrange": [0.0, 1.0, 5]}, 0.5, [0.0, 0.5, 1.0], 5),
        ({"finrange": [16, 64, 4]}, 32, [16, 48, 64], 4),
        ({"logfinrange": [16, 128, 4]}, 32, [16, 64, 128], 4),
    ],
)
def test_middle_grid_and_size_of_a_domain(content, middle, grid, size):
    domain = domain_of(content)
    assert (domain.middle(), domain.grid(3), domain.size) == (middle, grid, size)


@pytest.mark.parametrize(
    ("content", "inside", "outside"),
    [
        ({"uniform": [0, 1]}, [0, 1, 0.5], [-0.1, 1.1, "0.5", None, True]),
        ({"randint": [1, 3]}, [1, 3, 2.0], [0, 4, 1.5]),
        ({"choice": [0, 0.9, "a", None]}, [0, 0.0, 0.9, "a", None], [False, 1, "b"]),
        ({"choice": [True, False]}, [True], [1, 0]),
        ({"choice": [[1, 2], 3]}, [[1, 2], 3], [[2, 1], 1]),
        ({"finrange": [0.0, 1.0, 4]}, [0, 0.333333, 1], [0.3]),
        ({"logfinrange": [1, 100, 3]}, [1, 10, 100], [11]),
    ],
)
def test_space_accepts_only_earlier_values_inside_its_domains(content, inside, outside):
    space = SearchSpace.of("ER", {"x": content})
    assert all(space.accepts({"x": each, "y": 1}) == {"x": each} for each in inside)
    assert not any(space.accepts({"x": each}) for each in outside)
    assert space.accepts({}) == {}


def test_drawn_number_is_rounded_to_six_digits_within_its_bounds():
    space = SearchSpace.of("ER", {"x": {"uniform": [0.1, 0.98765432109]}})
    assert space.complete({"x": 0.98765432}) == {"x": 0.987654}
    assert space.complete({"x": 0.123456789}) == {"x": 0.123457}
    narrow = SearchSpace.of("ER", {"x": {"uniform": [0.9876542, 0.9876549]}})
    assert narrow.complete({"x": 0.9876541}) == {"x": 0.9876542}
    assert narrow.complete({"x": 0.9876548}) == {"x": 0.9876549}
    assert space.complete({"x": np.float64(0.5)}) == {"x": 0.5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"unifrom": [0, 1]}, "unknown kind of space 'unifrom', did you mean 'uniform'? (known: "),
        ({"uniform": [0, 1], "choice": [1]}, "expected one space, such as {uniform: [0, 1]}"),
        ({}, "expected one space"),
        ({"uniform": [1, 0]}, "the first number must be smaller than the second, found [1, 0]"),
        ({"uniform": [0]}, "expected 2 numbers, found [0]"),
        ({"uniform": 3}, "uniform takes [low, high]: expected a list, found 3"),
        ({"uniform": "ab"}, "expected a list, found 'ab'"),
        ({"uniform": [0, True]}, "expected 2 numbers"),
        ({"uniform": [0, float("inf")]}, "expected 2 numbers"),
        ({"loguniform": [0, 1]}, "the first number must be greater than 0, found [0, 1]"),
        ({"lograndint": [0, 3]}, "the first number must be greater than 0"),
        ({"randint": [0, 1.5]}, "expected whole numbers, found [0, 1.5]"),
        ({"choice": [1]}, "expected at least two values; write a constant instead, found [1]"),
        ({"choice": [1, 1.0]}, "a value is listed more than once"),
        ({"choice": [1, {"a": 1}]}, "each value must be a constant or a list of constants"),
        ({"ordinal": []}, "expected at least two values"),
        ({"finrange": [0, 1]}, "finrange takes [low, high, number of values]: expected 3 numbers"),
        ({"finrange": [0, 1, 1]}, "the number of values must be a whole number from 2 to 10000"),
        (
            {"finrange": [0.0, 1, 10**9]},
            "the number of values must be a whole number from 2 to 10000",
        ),
        ({"finrange": [0, 1, 2.5]}, "the number of values must be a whole number from 2 to 10000"),
        ({"finrange": [0, 1, 5]}, "fewer than 5 whole numbers between the bounds"),
        ({"logfinrange": [0.0, 1, 5]}, "the first number must be greater than 0"),
    ],
)
def test_invalid_space_error_says_what_is_allowed(content, expected):
    (problem,) = problems_of("ER", {"rate": content, "batch_size": 4})
    assert problem.startswith("hyperparameters.rate: ") and expected in problem


@pytest.mark.parametrize(
    ("learner", "hyperparameters", "expected"),
    [
        ({"uniform": [0, 1]}, {}, "learner: expected a name or {choice: [...]}"),
        ({"choice": ["ER", "Der"]}, {}, "learner: unknown learner 'Der', did you mean 'DER'?"),
        ({"choice": ["ER", 3]}, {}, "learner: expected a name or {choice: [...]}, found 3"),
        (["ER"], {}, "learner: expected a name or {choice: [...]}, found ['ER']"),
        ("ER", [1], "hyperparameters: expected names or auto, found [1]"),
        ("ER", "atuo", "hyperparameters: expected names or auto, found 'atuo'"),
        (
            "ER",
            {"learner": {"choice": ["a", "b"]}},
            "hyperparameters.learner: learner is not a hyperparameter",
        ),
        ("ER", {"max_epochs": 3}, "hyperparameters.max_epochs: set a constant in trainer.max_epo"),
        ("ER", {"max_epochs": {"uniform": [1, 3]}}, "hyperparameters.max_epochs: expected whole"),
        ("ER", {"max_epochs": {"choice": [0, 3]}}, "hyperparameters.max_epochs: expected whole"),
        ("ER", {1: 2}, "hyperparameters: a name must be a string, found 1"),
        ("ER", None, "hyperparameters: expected names or auto, found None"),
        ("ER", {"alpha": "auto"}, "hyperparameters.alpha: it has no default space (known: batch"),
    ],
)
def test_invalid_learner_or_hyperparameters_are_reported(learner, hyperparameters, expected):
    (problem,) = problems_of(learner, hyperparameters)
    assert problem.startswith(expected)


def test_constants_lists_and_null_are_not_searched():
    constants = {"optimizer": "SGD", "sizes": [1, 2], "limit": None, "flag": False}
    space = SearchSpace.of("ER", constants)
    assert not space and space.complete({}) == space.middle() == constants
    assert (space.learner, space.learners) == ("ER", ("ER",))


def test_trial_gets_only_the_hyperparameters_of_its_learner():
    space = SearchSpace.of(
        {"choice": ["ER", "DER++", "LwF"]},
        {
            "alpha": {"uniform": [0, 1]},
            "temperature": {"choice": [1.0, 2.0]},
            "batch_size": {"choice": [16, 32]},
            "learning_rate": {"loguniform": [0.001, 1]},
            "beta": 0.5,
        },
    )
    drawn = space.encode({"alpha": 0.25, "temperature": 2.0, "batch_size": 16})
    shared = {"beta": 0.5, "batch_size": 16, "learning_rate": 0.0316228}

    def complete_for(learner: str):
        return space.complete(drawn | {"learner": f'"{learner}"'})

    assert complete_for("ER") == {"learner": "ER", **shared}
    assert complete_for("DER++") == {"learner": "DER++", "alpha": 0.25, **shared}
    assert complete_for("LwF") == {"learner": "LwF", "temperature": 2.0, **shared}
    read = space.read_by({"learning_rate", "alpha"})  # the user's model_fn reads alpha too
    assert read.complete(drawn | {"learner": '"ER"'}) == {"learner": "ER", "alpha": 0.25, **shared}


def test_unread_space_is_refused_but_unread_default_space_is_left_out():
    space = SearchSpace.of("ER", {"alpha": {"uniform": [0, 1]}, "batch_size": {"choice": [1, 2]}})
    with pytest.raises(
        errors.InvalidParamsError, match=r"alpha: it is searched, but nothing reads it"
    ):
        space.read_by({"learning_rate"})
    automatic = SearchSpace.of("ER", "auto").read_by({"learning_rate"})
    assert set(automatic.domains) == {"learning_rate", "batch_size", "memory_batch_size"}


@pytest.mark.parametrize("learner", registry.LEARNERS)
def test_default_spaces_contain_only_hyperparameters_that_are_read(learner):
    space = SearchSpace.of(learner, "auto")
    taken = set(hyperparameters_of(registry.learner_class(learner)))
    assert set(space.domains) <= taken | set(optimization.optimizer_hyperparameters())
    assert space.read_by(optimization.optimizer_hyperparameters()).domains == space.domains
    solves = "backbone" in registry.LEARNERS[learner].needs
    assert ("learning_rate" in space.domains) != solves


@pytest.mark.parametrize("learner", [*registry.LEARNERS, "Avalanche-EWC", "a.module:Learner"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_config_space_is_a_space_of_its_own_for_every_learner(learner, optimizer):
    space = default_spaces.config_space(learner, optimizer)
    assert set(SearchSpace.of(learner, space).domains) == set(space) - {"optimizer"}
    assert space.get("optimizer", "SGD") == optimizer
    for each in space.values():
        if isinstance(each, dict):
            each.clear()  # a copy, which may be changed
    assert all(default_spaces.config_space(learner, optimizer).values())


def test_config_space_of_an_unknown_learner_is_refused():
    with pytest.raises(errors.UnknownLearnerError, match="did you mean 'DER'"):
        default_spaces.config_space("DRE")


def test_default_spaces_can_be_requested_one_by_one():
    space = SearchSpace.of("DER", {"alpha": "auto", "learning_rate": "auto", "optimizer": "Adam"})
    assert space.domains["alpha"] == Domain("loguniform", (0.05, 2.0))
    assert space.domains["learning_rate"] == Domain("loguniform", (1e-5, 1e-2))
    assert "momentum" not in default_spaces.of_learners(["ER"], "AdamW")
    both = SearchSpace.of({"choice": ["EWC", "SLDA"]}, "auto")
    assert {"learner", "ewc_weight", "shrinkage", "learning_rate"} <= set(both.domains)


def test_most_epochs_is_the_searched_maximum_or_the_trainer_setting():
    assert SearchSpace.of("ER", {"max_epochs": {"choice": [3, 9, 5]}}).most_epochs(50) == 9
    assert SearchSpace.of("ER", {"max_epochs": {"lograndint": [3, 81]}}).most_epochs(None) == 81
    assert SearchSpace.of("ER", {"rate": {"uniform": [0, 1]}}).most_epochs(50) == 50


def test_params_are_parsed_without_importing_torch_or_syne_tune():
    code = (
        "import sys; from renate_stages.params import Params; "
        "p = Params.parse({'learner': {'choice': ['ER', 'DER']}, 'hyperparameters': 'auto'}); "
        "bool(p.search_space); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'syne_tune', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "written",
    [
        {"uniform": [0.1, 0.5]},
        {"loguniform": [0.001, 1.0]},
        {"randint": [1, 9]},
        {"lograndint": [1, 64]},
        {"finrange": [0.0, 1.0, 5]},
        {"logfinrange": [1, 16, 5]},
        {"choice": ["a", "b"]},
        {"ordinal": [16, 32, 64]},
    ],
)
def test_syne_tune_domain_is_converted_to_its_params_yaml_form(written):
    (kind, values), *_ = written.items()
    listed = {"choice": config_space.Categorical, "ordinal": config_space.Ordinal}
    made = listed[kind](values) if kind in listed else Domain.parse(written).syne_tune()
    assert as_written(made) == written


@pytest.mark.parametrize(
    ("made", "written", "values"),
    [
        (
            config_space.quniform(0.0, 1.0, 0.25),
            {"quniform": [0, 1, 0.25]},
            [0, 0.25, 0.5, 0.75, 1],
        ),
        (config_space.qrandint(16, 64, 16), {"qrandint": [16, 64, 16]}, [16, 32, 48, 64]),
    ],
)
def test_stepped_range_has_the_multiples_of_its_step(made, written, values):
    assert as_written(made) == written
    domain = Domain.parse(written)
    assert domain.grid(100) == values
    drawn = {made.sample(random_state=np.random.RandomState(seed)) for seed in range(40)}
    assert drawn == set(values)


def test_stepped_range_whose_bounds_are_no_multiples_is_refused():
    (problem,) = problems_of("ER", {"x": {"quniform": [0.1, 1, 0.25]}})
    assert problem.startswith(
        "hyperparameters.x: quniform takes [low, high, step], where both bounds"
    )


def test_unsupported_syne_tune_domain_is_refused():
    for domain in (
        config_space.qloguniform(0.1, 1.0, 0.1),
        config_space.reverseloguniform(0.1, 0.9),
    ):
        assert as_written(domain) is domain
        with pytest.raises(ValueError, match="expected one space"):
            Domain.parse(as_written(domain))
