"""The gate's verdict against numbers worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from renate_stages import errors
from renate_stages.evaluation.comparison import difference_interval
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts, Predictions
from renate_stages.gate.figures import Measured
from renate_stages.gate.judging import judge
from renate_stages.gate.verdict import Verdict, section
from renate_stages.params.rules import read_rules
from renate_stages.randomness import Generators


def answers(right: str, labels: str | None = None) -> Examined:
    """Return a classifier's answers: `+` means correct; labels default to 0."""
    correct = np.array([sign == "+" for sign in right])
    truth = np.array([int(label) for label in labels or "0" * len(right)], dtype=np.int64)
    confidence = np.ones(len(right), dtype=np.float32)
    metrics = {"accuracy": correct.sum() / len(right), "loss": 1 - correct.sum() / len(right)}
    predictions = Predictions(truth, np.where(correct, truth, 9), confidence)
    scores = np.stack([correct, np.ones(len(right))], axis=1)
    return Examined(len(right), metrics, predictions, {"accuracy": scores})


def scored(**values: float) -> Examined:
    return Examined(10, values)


def holdouts(*results: Examined) -> ExaminedHoldouts:
    """Return results on holdouts 1, 2, ..., with metrics that are means over rows."""
    return ExaminedHoldouts.of_means(dict(enumerate(results, 1)))


# Holdout 1 has 10 rows, holdout 2 has 30. The champion never learnt holdout 2's second half.
CHAMPION = holdouts(answers("+" * 10), answers("+" * 15 + "-" * 15, "1" * 15 + "2" * 15))
NEW = holdouts(answers("+" * 8 + "--"), answers("+" * 12 + "---" + "+" * 15, "1" * 15 + "2" * 15))


def judged(promote, measured: Measured, metric: str = "accuracy", mode="max") -> Verdict:
    lower = {"loss"} | ({metric} if mode == "min" else set())
    return judge(
        read_rules(promote, metric, mode, [*measured.slices]),
        measured,
        metric,
        sorted(lower),
        Generators(0, 3),
    )


def rule_of(promote, measured: Measured, **kwargs):
    ((_, _, outcome),) = judged(promote, measured, **kwargs).rules
    return outcome


# Camera `night` covers the last 4 rows of holdout 1 and the last 5 rows of holdout 2.
NIGHT = {1: np.array(["day"] * 6 + ["night"] * 4), 2: np.array(["day"] * 25 + ["night"] * 5)}
PLACES = {1: np.array(["north"] * 10), 2: np.array(["south"] * 30)}
SLICES = {"camera": NIGHT, "place": PLACES}
BOTH = Measured(3, NEW, 2, CHAMPION, slices=SLICES)
ALONE = Measured(3, NEW, slices=SLICES)


@pytest.mark.parametrize(
    ("promote", "value", "champion", "margin", "passed"),
    [
        # (8/10 + 27/30) / 2 = 0.85 against (1 + 0.5) / 2 = 0.75
        ({"average": {"min": 0.85}}, 0.85, 0.75, 0.0, True),
        ({"average": {"min": 0.86}}, 0.85, 0.75, -0.01, False),
        ({"average": {"max_drop": 0}}, 0.85, 0.75, 0.1, True),
        # (8 + 27) / 40 = 0.875 against (10 + 15) / 40 = 0.625
        ({"overall": {"max_drop": 0.1}}, 0.875, 0.625, 0.35, True),
        # the lowest: holdout 1 with 0.8
        ({"worst_holdout": {"min": 0.75}}, 0.8, 1.0, 0.05, True),
        # the holdout that dropped most: holdout 1, 1.0 -> 0.8; holdout 2 improved
        ({"worst_holdout": {"max_drop": 0.2}}, 0.8, 1.0, 0.0, True),
        ({"worst_holdout": {"max_drop": 0.15}}, 0.8, 1.0, -0.05, False),
        # negative flips: 2 rows of holdout 1 and 3 of holdout 2, of 40; positive flips: 15
        ({"negative_flips": {"max": 0.125}}, 0.125, None, 0.0, True),
        ({"negative_flips": {"max": 0.1}}, 0.125, None, -0.025, False),
        ({"positive_flips": {"min": 0.3}}, 0.375, None, 0.075, True),
        # by class: 0: 8/10 (was 1), 1: 12/15 (was 1), 2: 1 (was 0)
        ({"classes": {"min": 0.8}}, 0.8, 1.0, 0.0, True),
        ({"classes": {"max_drop": 0.1}}, 0.8, 1.0, -0.1, False),
        ({"classes": {1: {"min": 0.85}}}, 0.8, 1.0, -0.05, False),
        ({"classes": {2: {"max_drop": 0}}}, 1.0, 0.0, 1.0, True),
        # by slice: day (6 + 22) / 31 (was 21), night (2 + 5) / 9 (was 4), north 8/10 (was 1),
        # south 27/30 (was 1/2)
        ({"slices": {"min": 0.8}}, 7 / 9, 4 / 9, 7 / 9 - 0.8, False),
        ({"slices": {"max_drop": 0.15}}, 0.8, 1.0, -0.05, False),
        ({"slices": {"camera": {"max_drop": 0}}}, 28 / 31, 21 / 31, 7 / 31, True),
        ({"slices": {"camera": {"night": {"min": 0.7}}}}, 7 / 9, 4 / 9, 7 / 9 - 0.7, True),
        ({"slices": {"place": {"north": {"max_drop": 0.1}}}}, 0.8, 1.0, -0.1, False),
        # confidence is always 1: the error is the share of wrong answers, 5 of 40 (was 15)
        ({"calibration_error": {"max": 0.1}}, 0.125, 0.375, -0.025, False),
        ({"calibration_error": {"max_rise": 0}}, 0.125, 0.375, 0.25, True),
        # loss: 0.15 against 0.25
        ({"average_loss": {"max": 0.1}}, 0.15, 0.25, -0.05, False),
        ({"average_loss": {"max_rise": 0}}, 0.15, 0.25, 0.1, True),
        # the holdout whose loss rose most: 1, 0 -> 0.2
        ({"worst_holdout_loss": {"max_rise": 0.15}}, 0.2, 0.0, -0.05, False),
    ],
)
def test_rule_outcome_has_value_champion_value_and_margin(promote, value, champion, margin, passed):
    outcome = rule_of(promote, BOTH)
    assert outcome["value"] == pytest.approx(value)
    assert outcome["opponent"] == (None if champion is None else pytest.approx(champion))
    assert outcome["margin"] == pytest.approx(margin)
    assert outcome["passed"] is passed


@pytest.mark.parametrize(
    ("promote", "at", "shown"),
    [
        ({"slices": {"max_drop": 1}}, "place north", "(slice place north lost most)"),
        ({"slices": {"camera": {"min": 0}}}, "camera night", "(slice camera night)"),
        ({"classes": {"max_drop": 1}}, 0, "(class 0 lost most)"),  # as did class 1, the second
        ({"classes": {1: {"min": 0}}}, 1, "(class 1)"),
        ({"classes": {1: {"max_drop": 1}}}, 1, "(class 1)"),
    ],
)
def test_class_or_slice_rule_names_the_deciding_part(promote, at, shown):
    verdict = judged(promote, BOTH)
    ((_, _, outcome),) = verdict.rules
    assert outcome["at"] == at
    assert shown in verdict.table()[0][2]
    assert shown in "\n".join(section(verdict))


@pytest.mark.parametrize(
    ("promote", "rows"),
    [
        ({"classes": {0: {"max_drop": 1}}}, {1: slice(0, 10)}),
        ({"slices": {"place": {"north": {"max_drop": 1}}}}, {1: slice(0, 10)}),
        ({"slices": {"camera": {"night": {"max_drop": 1}}}}, {1: slice(6, 10), 2: slice(25, 30)}),
    ],
)
def test_interval_of_a_part_is_resampled_from_its_own_rows_only(promote, rows):
    outcome = rule_of(promote, BOTH)
    ((name, _, _),) = judged(promote, BOTH).rules
    before, after = (
        {n: each[n].predictions.correct[part] for n, part in rows.items()}
        for each in (CHAMPION, NEW)
    )
    expected = difference_interval(
        before, after, Generators(0, 3).numpy(f"gate.{name}"), average=False
    )
    assert (outcome["low"], outcome["high"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("promote", "why"),
    [
        (
            {"slices": {"camera": {"nigth": {"max_drop": 1}}}},
            "no row of the holdouts is in this slice, did you mean 'night'? (known: day, night)",
        ),
        (
            {"classes": {7: {"max_drop": 1}}},
            "no row of the holdouts is in this class (known: 0, 1, 2)",
        ),
    ],
)
def test_rule_on_a_part_without_rows_fails_even_without_a_comparison(promote, why):
    itself = Measured(3, NEW, 3, slices=SLICES, relation="itself")
    for measured in (BOTH, ALONE, itself):
        verdict = judged(promote, measured)
        assert not verdict.passed
        ((name, limit, outcome),) = verdict.rules
        assert outcome["why"] == why
        assert verdict.table()[0][5] == f"FAILED: {why}"
        assert verdict.failures == [f"{name} {limit}: FAILED: {why}"]


def test_slice_rule_fails_when_the_model_is_not_a_classifier():
    regression = Measured(3, holdouts(scored(accuracy=0.5)), slices={"camera": NIGHT})
    verdict = judged({"slices": {"camera": {"night": {"min": 0}}}}, regression)
    assert verdict.failures == [
        "slices.camera.night min: FAILED: no row of the holdouts has a slice"
    ]
    assert not judged({"slices": {"min": 0}}, regression).passed


def test_markdown_characters_in_a_slice_name_are_escaped():
    odd = {"camera": {n: np.full(len(each), "a|b\nc") for n, each in NIGHT.items()}}
    verdict = judged({"slices": {"min": 0.5}}, Measured(3, NEW, slices=odd))
    assert verdict.content["rules"]["slices"]["min"]["at"] == "camera a|b\nc"
    (row,) = [line for line in section(verdict) if "slices min" in line]
    assert "(slice camera a\\|b c)" in row


def test_floating_point_noise_does_not_decide_a_rule():
    champion, new = (holdouts(scored(accuracy=value)) for value in (0.95, 0.94))
    assert 0.95 - 0.94 > 0.01, "in floating point"
    outcome = rule_of({"average": {"max_drop": 0.01}}, Measured(3, new, 2, champion))
    assert (outcome["margin"], outcome["passed"]) == (0.0, True)


def test_worst_holdout_is_the_highest_when_lower_is_better():
    new = holdouts(scored(error=0.1), scored(error=0.4))
    champion = holdouts(scored(error=0.05), scored(error=0.9))
    both = Measured(3, new, 2, champion)
    outcome = rule_of({"worst_holdout": {"max": 0.3}}, both, metric="error", mode="min")
    assert (outcome["value"], outcome["at"], outcome["margin"]) == (0.4, 2, -0.1)
    outcome = rule_of({"worst_holdout": {"max_rise": 0.06}}, both, metric="error", mode="min")
    assert (outcome["value"], outcome["at"], outcome["margin"]) == (0.1, 1, 0.01)


def test_only_absolute_rules_count_without_a_champion():
    rules = {
        "average": {"min": 0.9, "max_drop": 0.0},
        "worst_holdout": {"max_drop": 0.0},
        "negative_flips": {"max": 0.0},
    }
    verdict = judged(rules, ALONE)
    passed = {(figure, limit): each["passed"] for figure, limit, each in verdict.rules}
    assert [rule for rule, each in passed.items() if not each] == [("average_accuracy", "min")]
    assert not verdict.passed
    del rules["average"]["min"]
    verdict = judged(rules, ALONE)
    assert not verdict.passed and not verdict.refused
    assert verdict.opponent == "no model"


def test_update_without_rules_is_not_judged():
    verdict = judged({}, BOTH)
    assert not verdict.passed and not verdict.refused
    assert verdict.headline == (
        "update 3 against the champion, update 2: not judged: export.promote has no rules"
    )


def test_parents_model_is_the_opponent_without_a_champion():
    against_parent = Measured(3, NEW, opponent=CHAMPION, parent_update=2)
    rule = {"worst_holdout": {"max_drop": 0.15}, "average": {"max_drop": 0}}
    both, verdict = judged(rule, BOTH), judged(rule, against_parent)
    assert verdict.content["rules"] == both.content["rules"]
    assert verdict.headline.startswith("update 3 against its parent, update 2: refused: worst")
    assert verdict.columns[3] == "parent"
    failed = judged(rule, Measured(3, NEW, problem="model_fn failed", parent_update=2))
    assert failed.refused
    assert failed.problem == "its parent, update 2, could not be measured: model_fn failed"


@pytest.mark.parametrize(
    ("new", "opponent", "mode", "percent", "margin"),
    [
        (0.93, 0.95, "max", 2, -0.001),  # 2 % of 0.95 is 0.019
        (0.932, 0.95, "max", 2, 0.001),
        (3050.0, 3000.0, "min", 2, 10.0),
        (1e22, 3000.0, "min", 2, -1e22),
        (-0.5, -0.4, "max", 20, -0.02),  # of the absolute value
        (0.1, 0.0, "min", 50, -0.1),
    ],
)
def test_percentage_is_of_the_opponents_value(new, opponent, mode, percent, margin):
    both = Measured(3, holdouts(scored(m=new)), 2, holdouts(scored(m=opponent)))
    rule = {"overall": {"max_worsening": f"{percent}%"}}
    outcome = rule_of(rule, both, metric="m", mode=mode)
    assert outcome["margin"] == pytest.approx(margin)
    assert outcome["passed"] == (margin >= 0)


def test_percentage_of_the_worst_holdout_is_decided_by_the_largest_relative_worsening():
    new, opponent = (
        holdouts(scored(m=2.0), scored(m=110.0)),
        holdouts(scored(m=1.0), scored(m=100.0)),
    )
    both = Measured(3, new, 2, opponent)
    absolute = rule_of({"worst_holdout": {"max_worsening": 5}}, both, metric="m", mode="min")
    assert (absolute["at"], absolute["passed"]) == (2, False)
    relative = rule_of({"worst_holdout": {"max_worsening": "20%"}}, both, metric="m", mode="min")
    assert (relative["at"], relative["margin"]) == (1, -0.8)
    table = judged({"worst_holdout": {"max_worsening": "20%"}}, both, "m", "min").table()
    assert table[0][:2] == ("worst_holdout_m max_worsening", "20 %")


def test_rule_on_another_metric_judges_by_its_own_direction():
    new, opponent = (holdouts(Examined(9, {"accuracy": 1.0, "mae": v})) for v in (3.0, 2.0))
    both = Measured(3, new, 2, opponent)
    outcome = rule_of({"average_mae": {"max_rise": 0.5}}, both)
    assert (outcome["value"], outcome["opponent"], outcome["margin"]) == (3.0, 2.0, -0.5)


@pytest.mark.parametrize("rule", [{"average": {"max_drop": 1.0}}, {"negative_flips": {"max": 1.0}}])
def test_relative_rules_fail_when_the_champion_cannot_be_measured(rule):
    verdict = judged(rule, Measured(3, NEW, 2, None, "model_fn failed at line 7"))
    assert not verdict.passed
    reason = "The champion, update 2, could not be measured: model_fn failed at line 7"
    assert reason in section(verdict)
    assert judged({"average": {"min": 0.5}}, Measured(3, NEW, 2, None, "failed")).passed


def test_rule_on_a_figure_without_a_value_fails():
    diverged = Measured(3, holdouts(scored(accuracy=float("nan"))), 0)
    assert not judged({"average": {"min": 0.0}}, diverged).passed
    assert not judged({"worst_holdout": {"min": 0.0}}, diverged).passed
    assert not judged({"average": {"min": 0.0}}, Measured(3, holdouts())).passed


def test_interval_contains_the_difference_from_the_champion():
    outcome = rule_of({"overall": {"max_drop": 0}}, BOTH)
    change = outcome["value"] - outcome["opponent"]
    assert outcome["low"] < change < outcome["high"]
    # Var of the mean of 40 differences: 20 rows of +-1 or 0; a normal interval is close to it.
    differences = np.concatenate(
        [NEW[n].predictions.correct.astype(float) - CHAMPION[n].predictions.correct for n in (1, 2)]
    )
    spread = (
        np.sqrt(
            sum(
                differences[part].var() * len(differences[part])
                for part in (slice(10), slice(10, None))
            )
        )
        / 40
    )
    assert outcome["high"] - outcome["low"] == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert rule_of({"average_loss": {"max_rise": 0}}, BOTH)["low"] is None, (
        "no losses of rows are known"
    )


def test_average_and_overall_change_have_one_interval_if_holdouts_are_of_equal_size():
    before = holdouts(answers("+" * 10 + "-" * 10), answers("+" * 6 + "-" * 14))
    after = holdouts(answers("+" * 14 + "-" * 6), answers("-" * 3 + "+" * 17))
    measured = Measured(3, after, 2, before)
    known = judged({"average": {"max_drop": 0}}, measured).content["figures"]
    average, overall = known["average_accuracy"], known["overall_accuracy"]
    assert average == pytest.approx(overall) and average["low"] < average["high"]
    other = judged({"average": {"max_drop": 0}}, BOTH).content["figures"]
    assert other["average_accuracy"]["low"] != pytest.approx(other["overall_accuracy"]["low"])


def test_a_figures_interval_does_not_depend_on_the_other_rules():
    alone = rule_of({"overall": {"max_drop": 0}}, BOTH)
    both = judged(
        {"average": {"max_drop": 0}, "overall": {"max_drop": 0}, "classes": {"min": 0}}, BOTH
    )
    assert both.content["rules"]["overall_accuracy"]["max_drop"] == alone


def test_metric_without_values_of_rows_has_no_interval():
    macro = holdouts(Examined(10, {"accuracy": 0.5}, NEW[1].predictions))
    both = Measured(3, macro, 2, holdouts(CHAMPION[1]))
    assert rule_of({"average": {"max_drop": 1}}, both)["low"] is None


def test_verdict_has_the_same_keys_with_and_without_a_champion():
    def keys(content, at=""):
        for name, value in content.items():
            yield f"{at}{name}"
            if isinstance(value, dict):
                yield from keys(value, f"{at}{name}.")

    rules = {"average": {"max_drop": 0.1}, "classes": {"max_drop": 0.1}, "slices": {"min": 0}}
    with_one, without = judged(rules, BOTH).content, judged(rules, ALONE).content
    assert list(keys(with_one)) == list(keys(without))
    assert json.loads(json.dumps(with_one, allow_nan=False)) == with_one


def test_table_shows_which_rule_failed_where_and_by_how_much():
    verdict = judged({"worst_holdout": {"max_drop": 0.15}, "average": {"min": 0.5}}, BOTH)
    assert verdict.headline == (
        "update 3 against the champion, update 2: refused: worst_holdout_accuracy max_drop"
    )
    first, second = verdict.table()
    assert first[0] == "average_accuracy min" and first[5] == "passed by 0.3500"
    assert second[:4] == (
        "worst_holdout_accuracy max_drop",
        "0.1500",
        "0.8000 (holdout 1 lost most)",
        "1.0000",
    )
    assert second[4].startswith("-0.2000 (-") and second[5] == "FAILED by 0.0500"
    text = "\n".join(section(verdict))
    assert text.startswith("## Gate\n\nUpdate 3 against the champion, update 2: refused")
    assert "FAILED by" in text


@pytest.mark.parametrize(
    ("change", "shown"), [(-0.2, "lost most"), (0.2, "gained least"), (0.0, "gained least")]
)
@pytest.mark.parametrize("rule", [{"max_drop": 0.5}, {"max_worsening": "50%"}])
def test_table_marks_the_holdout_that_lost_most_or_gained_least(rule, change, shown):
    right = round(10 * (0.6 + change))
    new, old = (holdouts(answers("+" * each + "-" * (10 - each))) for each in (right, 6))
    verdict = judged({"worst_holdout": rule}, Measured(3, new, 2, old))
    assert verdict.table()[0][2] == f"{0.6 + change:.4f} (holdout 1 {shown})"


def test_missing_or_malformed_verdict_file_is_reported(tmp_path):
    with pytest.raises(errors.NoVerdictError, match=r"verdict\.json is missing"):
        Verdict.read(tmp_path / "verdict.json")
    (tmp_path / "verdict.json").write_text("{}")
    with pytest.raises(errors.MalformedFileError, match=r"verdict of the gate: passed: Field req"):
        Verdict.read(tmp_path / "verdict.json")


def test_gate_that_applies_no_rule_is_not_judged():
    verdict = judged({"average": {"max_drop": 0.0}}, ALONE)
    assert verdict.headline == (
        "update 3: not judged: 1 rule not applied, since the update "
        "has neither champion nor parent model to compare with"
    )
