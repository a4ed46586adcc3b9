"""History of the trials of all updates: its file, and its use for the current search space."""

from __future__ import annotations

import math

import pytest

from renate_stages import errors
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning import History, TrialEpoch, TrialRecord

SPACE = SearchSpace.of("ER", {"rate": {"uniform": [0, 1]}, "batch_size": 32})


def trial(update=1, number=0, values=(0.5,), status="completed", **configuration) -> TrialRecord:
    configuration = {"learner": "ER", "rate": 0.5, "batch_size": 32} | configuration
    epochs = tuple(TrialEpoch(n, 10 * n, {"accuracy": v}) for n, v in enumerate(values, 1))
    given = {name: value for name, value in configuration.items() if value is not ...}
    return TrialRecord(update, number, status, given, epochs)


def usable(*trials: TrialRecord, space=SPACE, mode="max"):
    return History().with_trials(trials).usable(space, "accuracy", mode)


def test_history_file_has_a_row_for_each_epoch(tmp_path):
    history = History().with_trials(
        [
            trial(2, 0, (0.25, 1 / 3), "stopped", rate=0.1),
            trial(1, 1, (), "failed", rate=1e-05),
        ]
    )
    history.write(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_bytes() == (
        b"update,trial,status,epoch,steps,config.batch_size,config.learner,config.rate,"
        b"metric.accuracy\n"
        b"1,1,failed,0,0,32,ER,1e-05,\n"
        b"2,0,stopped,1,10,32,ER,0.1,0.25\n"
        b"2,0,stopped,2,20,32,ER,0.1,0.3333333333333333\n"
    )


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        1,
        True,
        None,
        "SGD",
        "1",
        "true",
        "null",
        "",
        " 2",
        'a "b", c',
        '"quoted"',
        "two\nlines",
        "\xe9",
        "NaN",
        [1, "a"],
        1e300,
        -0.0,
    ],
)
def test_hyperparameter_values_are_read_back_unchanged(tmp_path, value):
    history = History().with_trials([trial(x=value), trial(number=1, x=...)])
    history.write(tmp_path / "history.csv")
    read = History.read(tmp_path / "history.csv")
    assert read == history and type(read.trials[0].configuration["x"]) is type(value)
    assert "x" not in read.trials[1].configuration  # an empty cell means no value
    read.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "history.csv").read_bytes()


def test_nan_metric_is_read_back(tmp_path):
    History().with_trials([trial(values=(math.nan, 0.5))]).write(tmp_path / "history.csv")
    (read,) = History.read(tmp_path / "history.csv").trials
    assert math.isnan(read.epochs[0].metrics["accuracy"]) and read.value("accuracy") == 0.5
    assert read.value("loss") is None


def test_updates_accumulate_and_a_repeated_trial_is_replaced(tmp_path):
    first = History().with_trials([trial(1, 0), trial(1, 1)])
    both = first.with_trials([trial(2, 0), trial(1, 1, (0.75,))])
    assert [(each.update, each.trial) for each in both.trials] == [(1, 0), (1, 1), (2, 0)]
    assert both.trials[1].value("accuracy") == 0.75


def test_missing_or_empty_history_file_has_no_trials(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    assert History.read(tmp_path / "none.csv") == History.read(tmp_path / "empty.csv") == History()
    History().write(tmp_path / "written.csv")
    assert History.read(tmp_path / "written.csv") == History()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"update,trial\n1,2\n", "column status is missing"),
        (b"update,trial,status,epoch,steps\n1,2\n", "expected 5 cells, found 2"),
        (b"update,trial,status,epoch,steps\n1,x,ok,1,1\n", "invalid literal"),
        (
            b"update,trial,status,epoch,steps,metric.a\n1,1,ok,1,1,high\n",
            "a metric is not a number",
        ),
        (b"\xff", "decode"),
    ],
)
def test_damaged_history_file_is_reported(tmp_path, content, expected):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(errors.MalformedFileError, match=expected) as raised:
        History.read(path)
    assert "history.csv" in str(raised.value)


def test_all_trials_of_the_same_space_are_usable():
    found = usable(trial(1, 0, (0.9, 0.7)), trial(1, 1, (0.6,), rate=0.25), trial(2, 0, (0.1,)))
    assert found.notes == ("history: 4 of 4 rows, 3 of 3 trials and 2 of 2 updates can be used",)
    assert [each.value for each in found.trials] == [0.7, 0.6, 0.1]
    assert found.best(5) == [{"rate": 0.5}, {"rate": 0.25}]
    assert usable().notes == () and usable().best(3) == []


def test_best_configurations_alternate_between_updates_from_the_latest_on():
    trials = [
        trial(update, number, (value,), rate=rate)
        for update, number, value, rate in [
            (1, 0, 0.9, 0.11),
            (1, 1, 0.8, 0.12),
            (2, 0, 0.3, 0.21),
            (2, 1, 0.5, 0.22),
            (2, 2, 0.4, 0.23),
        ]
    ]
    rates = [point["rate"] for point in usable(*trials).best(9)]
    assert rates == [0.22, 0.11, 0.23, 0.12, 0.21]
    rates = [point["rate"] for point in usable(*trials, mode="min").best(3)]
    assert rates == [0.21, 0.12, 0.23]


def test_hyperparameter_missing_in_earlier_trials_gets_its_middle_value():
    space = SearchSpace.of("ER", {"rate": {"uniform": [0, 1]}, "momentum": {"uniform": [0, 0.5]}})
    found = usable(trial(batch_size=...), space=space)
    assert found.best(1) == [{"rate": 0.5, "momentum": 0.25}]
    assert found.notes[1:] == ("1 row (1 trial) of update 1 have no momentum: 0.25 is assumed",)


def test_removed_hyperparameters_and_changed_constants_are_reported():
    found = usable(trial(1, 0, (0.1, 0.2), old=3, batch_size=64), trial(2, 0, learner="DER"))
    assert len(found.trials) == 2
    assert found.notes[1:] == (
        "2 rows (1 trial) of update 1 had batch_size 64, which is now 32: used anyway",
        "2 rows (1 trial) of update 1 had old, which is no longer in params.yaml: used without it",
        "1 row (1 trial) of update 2 had learner 'DER', which is now 'ER': used anyway",
    )


def test_trials_outside_the_space_are_reported_and_not_used():
    found = usable(
        trial(1, 0, (0.5, 0.5), rate=2.0),
        trial(1, 1, rate="fast"),
        trial(2, 0, (), "failed"),
        trial(2, 1, (0.5, math.nan)),
        trial(3, 0),
    )
    assert [each.update for each in found.trials] == [3]
    assert found.notes == (
        "history: 1 of 7 rows, 1 of 5 trials and 1 of 3 updates can be used",
        "3 rows (2 trials) of update 1 not used: rate not in the present search space",
        "1 row (1 trial) of update 2 not used: they failed",
        "2 rows (1 trial) of update 2 not used: accuracy was not measured",
    )


def test_hyperparameter_of_another_learner_is_not_reported_as_missing():
    space = SearchSpace.of({"choice": ["ER", "DER"]}, {"alpha": {"uniform": [0, 1]}})
    own = {"rate": ..., "batch_size": ...}
    found = usable(trial(**own), trial(1, 1, learner="DER", alpha=0.3, **own), space=space)
    assert len(found.notes) == 1
    assert found.best(2) == [
        {"learner": '"ER"', "alpha": 0.5},
        {"learner": '"DER"', "alpha": 0.3},
    ]
