"""Rules in `export.promote`: parsing, and an error for each mistake."""

from __future__ import annotations

import pytest

from renate_stages import errors
from renate_stages.params import Params
from renate_stages.params.rules import Rule, read_rules


def problems_of(promote, **evaluation) -> list[str]:
    with pytest.raises(errors.InvalidParamsError) as raised:
        Params.parse({"export": {"promote": promote}, "evaluation": evaluation})
    return raised.value.problems


def test_rules_are_sorted_and_short_names_refer_to_the_headline_metric():
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
        Rule("overall_loss", "max_rise", 0.5, lower=True),
        Rule("worst_holdout_accuracy", "max_drop", 0.05),
    )
    assert Params.parse({}).rules == ()


def test_rules_that_need_a_champion_are_relative():
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


def test_class_and_slice_rules_limit_all_parts_or_a_single_part():
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
def test_invalid_class_or_slice_rule_error_names_its_key(promote, expected):
    (problem,) = problems_of(promote, slices=["camera", "source"])
    assert problem.startswith(expected)


def test_slice_rule_without_measured_slices_is_refused():
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
            {"average_f1": {"min": 0.9, "max_rise": 0.1}},
            "export.promote.average_f1.max_rise: unknown limit, did you mean 'max_worsening'? (lim",
        ),
        (
            {"average_f1": {"max_worsening": 0.1}},
            "export.promote.average_f1.max_worsening: it is unknown whether lower values of this me",
        ),
        (
            {"average": {"max_worsening": "2 per cent"}},
            "export.promote.average.max_worsening: expected a finite number or a percentage such as",
        ),
        (
            {"average": {"max_worsening": "-2%"}},
            "export.promote.average.max_worsening: expected a number >= 0, found -2.0",
        ),
        (
            {"average": {"min": "90%"}},
            "export.promote.average.min: expected a finite number, found '90%'",
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
            {"average_f1": 0.9},
            "export.promote.average_f1: expected limits, such as {max_drop: 0.01}",
        ),
        ({"average_f1": None}, "export.promote.average_f1: expected limits"),
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
def test_invalid_rule_error_names_its_key(promote, expected):
    (problem,) = problems_of(promote)
    assert problem.startswith(expected)


def test_all_invalid_rules_are_reported_at_once():
    assert len(problems_of({"avarage": {"min": 1}, "overall": {"max": 1}, "classes": 3})) == 3


def test_metric_with_mode_min_has_max_rise_and_no_max_drop():
    content = {"average_error": {"max": 0.1, "max_rise": 0.01}}
    rules = read_rules(content, "error", "min")
    assert [rule.limit for rule in rules] == ["max", "max_rise"]
    (problem,) = problems_of({"average_error": {"max_drop": 0.1}}, metric="error", mode="min")
    assert "for which lower is better: max, max_rise" in problem


@pytest.mark.parametrize("mode", ["max", "min"])
def test_lower_loss_is_better_in_every_mode(mode):
    (rule,) = read_rules({"average": {"max_rise": 0.1}}, "loss", mode)
    assert rule == Rule("average_loss", "max_rise", 0.1, lower=True)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_max_worsening_works_in_every_mode_and_takes_percentages(mode):
    content = {"average": {"max_worsening": "2%"}, "classes": {"max_worsening": 0.1}}
    assert read_rules(content, "error", mode) == (
        Rule("average_error", "max_worsening", 2.0, lower=mode == "min", percent=True),
        Rule("classes", "max_worsening", 0.1),
    )


def test_rules_on_other_metrics_get_their_direction_from_the_limit():
    content = {"overall_f1": {"min": 0.5, "max_worsening": 0.1}, "average_mae": {"max": 3}}
    assert read_rules(content, "accuracy", "max") == (
        Rule("average_mae", "max", 3.0, lower=True),
        Rule("overall_f1", "max_worsening", 0.1),
        Rule("overall_f1", "min", 0.5),
    )
    assert [rule.metric for rule in read_rules(content, "accuracy", "max")] == ["mae", "f1", "f1"]


def test_promotion_is_manual_unless_set_to_auto():
    assert Params.parse({}).export.promotion == "manual"
    with pytest.raises(errors.InvalidParamsError, match="'manual' or 'auto', found 'automatic'"):
        Params.parse({"export": {"promotion": "automatic"}})
