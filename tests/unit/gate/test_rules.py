"""What `export.promote` may say, and a message for each mistake."""

from __future__ import annotations

import pytest

from renate_stages import errors
from renate_stages.params import Params
from renate_stages.params.rules import Rule, read_rules


def problems_of(promote, **evaluation) -> list[str]:
    with pytest.raises(errors.InvalidParamsError) as raised:
        Params.parse({"export": {"promote": promote}, "evaluation": evaluation})
    return raised.value.problems


def test_rules_are_read_in_order_and_short_names_are_of_the_headline_metric():
    content = {
        "worst_holdout": {"max_drop": 0.05},
        "average_accuracy": {"min": 0.9, "max_drop": 0},
        "negative_flips": {"max": 0.02},
        "overall_loss": {"max_rise": 0.5},
    }
    assert read_rules(content, "accuracy", "max") == (
        Rule("average_accuracy", "max_drop", 0.0),
        Rule("average_accuracy", "min", 0.9),
        Rule("negative_flips", "max", 0.02),
        Rule("overall_loss", "max_rise", 0.5),
        Rule("worst_holdout_accuracy", "max_drop", 0.05),
    )
    assert Params.parse({}).rules == ()


def test_a_rule_is_relative_where_it_needs_a_champion():
    rules = {
        "average": {"min": 0, "max_drop": 0},
        "negative_flips": {"max": 0},
        "classes": {"min": 0, "max_drop": 0},
    }
    relative = {
        (rule.figure, rule.limit) for rule in read_rules(rules, "f1", "max") if rule.relative
    }
    assert relative == {
        ("average_f1", "max_drop"),
        ("negative_flips", "max"),
        ("classes", "max_drop"),
    }


def test_parts_have_limits_of_all_and_of_one_alone_below_each_other():
    content = {
        "classes": {"max_drop": 0.1, 7: {"min": 0.8}},
        "slices": {
            "max_drop": 0.05,
            "camera": {"min": 0.6, "night": {"min": 0.8}},
            "source": {False: {"min": 0.7}},  # a bool's text is the value of the field
        },
    }
    rules = read_rules(content, "accuracy", "max", ["camera", "source"])
    assert rules == (
        Rule("classes", "max_drop", 0.1),
        Rule("classes", "min", 0.8, ("7",)),
        Rule("slices", "max_drop", 0.05),
        Rule("slices", "min", 0.6, ("camera",)),
        Rule("slices", "min", 0.8, ("camera", "night")),
        Rule("slices", "min", 0.7, ("source", "False")),
    )
    assert [rule.name for rule in rules[1:]] == [
        "classes.7",
        "slices",
        "slices.camera",
        "slices.camera.night",
        "slices.source.False",
    ]


@pytest.mark.parametrize(
    ("promote", "expected"),
    [
        (
            {"slices": {"camra": {"night": {"min": 0.8}}}},
            "export.promote.slices.camra.night: unknown field 'camra', did you mean 'camera'? (eval",
        ),
        (
            {"slices": {"colour": {"min": 0.8}}},
            "export.promote.slices.colour: unknown field 'colour' (evaluation.slices has: camera, s",
        ),
        (
            {"slices": {"max_dorp": 0.1}},
            "export.promote.slices.max_dorp: unknown limit, did you mean 'max_drop'? (limits of sli",
        ),
        (
            {"slices": {"camera": {"night": 0.8}}},
            "export.promote.slices.camera.night: unknown limit; for limits of one part, write nigh",
        ),
        (
            {"slices": {"camera": {"night": {"dark": {"min": 0.8}}}}},
            "export.promote.slices.camera.night.dark: unknown limit (limits of slices, for which h",
        ),
        (
            {"slices": {"camera": {"night": {}}}},
            "export.promote.slices.camera.night: expected limits, such as {max_drop: 0.01}",
        ),
        ({"slices": None}, "export.promote.slices: expected limits"),
        (
            {"slices": {"camera": {"night": {"min": 80}}}},
            "export.promote.slices.camera.night.min: expected a share from 0 to 1, found 80",
        ),
        (
            {"classes": {"cat": {"min": 0.8}}},
            "export.promote.classes.cat: expected a class label, a whole number, found 'cat'",
        ),
        (
            {"classes": {7: {"min": 0.8}, "7": {"min": 0.9}}},
            "export.promote.classes.7.min: this limit is set more than once (also as classes.7)",
        ),
        (
            {"calibration_error": {"max_drop": 0.1}},
            "export.promote.calibration_error.max_drop: unknown limit, did you mean",
        ),
        (
            {"calibration_error": {"max": 2}},
            "export.promote.calibration_error.max: expected a share from 0 to 1",
        ),
    ],
)
def test_a_wrong_part_is_refused_by_name(promote, expected):
    (problem,) = problems_of(promote, slices=["camera", "source"])
    assert problem.startswith(expected)


def test_slices_cannot_be_ruled_on_where_none_are_measured():
    (problem,) = problems_of({"slices": {"max_drop": 0.1}})
    assert problem.startswith("export.promote.slices: evaluation.slices is empty")


@pytest.mark.parametrize(
    ("promote", "expected"),
    [
        (
            {"avarage_accuracy": {"min": 0.9}},
            "export.promote.avarage_accuracy: unknown figure, did you mean 'average_accuracy'?",
        ),
        (
            {"average_f1": {"min": 0.9}},
            "export.promote.average_f1: unknown figure, did you mean 'average'? (known here: ",
        ),
        (
            {"average": {"max_dorp": 0.1}},
            "export.promote.average.max_dorp: unknown limit, did you mean 'max_drop'? (limits of ave",
        ),
        (
            {"average": {"max_rise": 0.1}},
            "export.promote.average.max_rise: unknown limit",
        ),
        (
            {"negative_flips": {"min": 0.1}},
            "export.promote.negative_flips.min: unknown limit",
        ),
        (
            {"average": 0.9},
            "export.promote.average: expected limits, such as {max_drop: 0.01}, found 0.9",
        ),
        ({"average": {}}, "export.promote.average: expected limits"),
        (
            {"average": {"min": "0.9"}},
            "export.promote.average.min: expected a finite number, found '0.9'",
        ),
        (
            {"average": {"min": True}},
            "export.promote.average.min: expected a finite number, found True",
        ),
        (
            {"average": {"min": float("nan")}},
            "export.promote.average.min: expected a finite number, found nan",
        ),
        (
            {"average": {"max_drop": -0.1}},
            "export.promote.average.max_drop: expected a number >= 0, found -0.1",
        ),
        (
            {"negative_flips": {"max": 2}},
            "export.promote.negative_flips.max: expected a share from 0 to 1, found 2",
        ),
        (
            {"average": {"min": 0.9}, "average_accuracy": {"min": 0.8}},
            "export.promote.average_accuracy.min: this limit is set more than once (also as average_accuracy)",
        ),
        ("average", "export.promote: expected a figure and its limits, such as "),
        (["average"], "export.promote: expected a figure and its limits, such as "),
    ],
)
def test_a_wrong_rule_is_refused_by_name(promote, expected):
    (problem,) = problems_of(promote)
    assert problem.startswith(expected)


def test_all_wrong_rules_are_told_at_once():
    assert len(problems_of({"avarage": {"min": 1}, "overall": {"max": 1}, "classes": 3})) == 3


def test_a_metric_of_which_less_is_better_may_rise_and_not_drop():
    content = {"average_error": {"max": 0.1, "max_rise": 0.01}}
    rules = read_rules(content, "error", "min")
    assert [rule.limit for rule in rules] == ["max", "max_rise"]
    (problem,) = problems_of({"average_error": {"max_drop": 0.1}}, metric="error", mode="min")
    assert "for which lower is better: max, max_rise" in problem


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_the_loss_less_is_better_whatever_the_mode_says(mode):
    (rule,) = read_rules({"average": {"max_rise": 0.1}}, "loss", mode)
    assert rule == Rule("average_loss", "max_rise", 0.1)


def test_promotion_is_manual_unless_auto_is_asked_for():
    assert Params.parse({}).export.promotion == "manual"
    with pytest.raises(errors.InvalidParamsError, match="'manual' or 'auto', found 'automatic'"):
        Params.parse({"export": {"promotion": "automatic"}})
