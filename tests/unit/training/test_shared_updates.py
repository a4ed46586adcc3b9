"""Updates shared by two processes give the batches, model and memory of a single process."""

from __future__ import annotations

from pathlib import Path

import pytest
import shared_updates
import torch
from shared_updates import ROWS, RUNS

CLOSED_FORM = ("NCM", "SLDA", "RanPAC")  # learners without gradient steps


ALWAYS = {  # used by tests without `name`
    *("ER", "one example per step", "accumulated", "clipped", "clipped by value")
}
LONG = (
    *("ER separate", "memory size 1", "DER++ joint", "CLS-ER", "Offline-ER", "Budgeted", "Joint"),
    *("LwF", "SLDA", "max steps", "batch norm separate", "model averaging"),
)


def mark_slow(names) -> list:
    """Return the names of updates as test parameters, marking those in `LONG` as slow."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in names]


@pytest.fixture(scope="module")
def names(request) -> list[str]:
    """Return the names of the updates that the selected tests need."""
    here = [each for each in request.session.items if each.module is request.module]
    asked = {each.callspec.params["name"] for each in here if hasattr(each, "callspec")}
    return [name for name in RUNS if name in ALWAYS | asked]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, names, launch_forked):
    """Return the results of each of two processes, which are forked from a warm one."""
    folder = tmp_path_factory.mktemp("two_processes")
    (folder / "logs").mkdir()
    script = str(Path(shared_updates.__file__))
    assert launch_forked([script, str(folder), ",".join(names)], 2, folder / "logs") == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, names):
    return shared_updates.everything(tmp_path_factory.mktemp("one_process") / "results", names)


@pytest.fixture(scope="module")
def results(one_process, two_processes):
    """Return the results of one process, and those of each of two processes."""
    return one_process, two_processes


def updates(results, name):
    """Yield, for each update, the results of one process and of both processes."""
    one_process, two_processes = results
    yield from zip(one_process[name], *(each[name] for each in two_processes), strict=True)


@pytest.mark.parametrize("name", mark_slow(RUNS))
def test_model_learner_state_and_memory_fields_equal_those_of_one_process(results, name):
    for one, *both in updates(results, name):
        for each in both:
            for part in ("model", "learner", "fields"):
                assert each[part].keys() == one[part].keys()
                for key, tensor in one[part].items():
                    # Ridge regression on random features amplifies the last bits of features.
                    atol = 1e-3 if name == "RanPAC" else 5e-6
                    torch.testing.assert_close(
                        each[part][key], tensor, rtol=1e-5, atol=atol, equal_nan=True
                    )
        for key, tensor in both[0]["model"].items():
            assert torch.equal(tensor, both[1]["model"][key]), key


@pytest.mark.parametrize("name", mark_slow(RUNS))
def test_memory_selection_equals_that_of_one_process(results, name):
    for one, *both in updates(results, name):
        for each in both:
            for part in ("kept", "added", "policy"):
                assert each[part] == one[part], part


@pytest.mark.parametrize("name", mark_slow(name for name in RUNS if name not in CLOSED_FORM))
def test_each_batch_of_one_process_is_divided_between_two_processes(results, name):
    for one, *both in updates(results, name):
        assert len(one["steps"]) == len(both[0]["steps"]) == len(both[1]["steps"])
        for step, *halves in zip(one["steps"], *(each["steps"] for each in both), strict=True):
            for part, (_, whole) in step["rows"].items():
                own = [half["rows"][part][0] for half in halves]
                assert all(half["rows"][part][1] == whole for half in halves), part
                assert own[0] + own[1] == whole, "each row occurs once, in the drawn order"
                assert len(own[1]) - len(own[0]) in (0, 1)
            mean = sum(half["loss"] for half in halves) / 2
            assert mean == pytest.approx(step["loss"], abs=1e-6)


@pytest.mark.parametrize("name", mark_slow(RUNS))
def test_step_counts_example_counts_and_curves_equal_those_of_one_process(results, name):
    for one, *both in updates(results, name):
        for each in both:
            assert (each["step_count"], each["examples"]) == (one["step_count"], one["examples"])
            for row, expected in zip(each["curves"], one["curves"], strict=True):
                assert row == pytest.approx(expected, abs=1e-5)
        assert both[0]["curves"] == both[1]["curves"], "stopping and the best epoch depend on these"


def test_steps_are_equal_and_a_single_row_leaves_one_process_without_rows(results):
    _, (zero, one) = results

    def rows(process, name):
        return [len(step["rows"]["new"][0]) for step in process[name][0]["steps"]]

    assert (rows(zero, "ER"), rows(one, "ER")) == ([3] * 10, [4, 4, 4, 3, 3] * 2)
    assert zero["ER"][0]["step_count"] == 2 * -(-ROWS // 8)
    single = "one example per step"
    assert (rows(zero, single), rows(one, single)) == ([0] * ROWS, [1] * ROWS)


def test_replayed_examples_differ_between_processes(results):
    _, two_processes = results
    steps = zip(*(each["ER"][0]["steps"] for each in two_processes), strict=True)
    drawn = [(a["rows"]["draw 0"][0], b["rows"]["draw 0"][0]) for a, b in steps]
    assert drawn and all(len(one) == len(other) == 3 and one != other for one, other in drawn)


def test_gradients_of_two_batches_are_accumulated_into_one_step(results):
    one_process, _ = results
    assert one_process["accumulated"][0]["step_count"] == 2 * 3, "the 5th batch makes its own step"


def test_gradient_clipping_by_norm_and_by_value_changes_the_model(results):
    one_process, _ = results
    one, other, free = (one_process[n][0]["model"] for n in ("clipped", "clipped by value", "ER"))
    assert any(not torch.equal(one[k], free[k]) for k in free)
    assert any(not torch.equal(one[k], other[k]) for k in free)


def test_resumed_training_has_identical_bits_in_both_processes(results):
    _, two_processes = results
    for each in (each["resumed"] for each in two_processes):
        assert each["equal"] and each["curves"] and each["memory"]
        assert each["messages"] == ["training goes on after epoch 2"]
        assert each["files"] == ["last.ckpt"], "only one process writes checkpoints"
    first, second = (each["resumed"] for each in two_processes)
    assert torch.equal(first["weights"], second["weights"])
    assert first["next"] != second["next"], "random numbers differ between processes"


def test_unknown_logits_of_memory_examples_do_not_count_in_the_distillation_loss(results):
    one_process, two_processes = results
    for each in two_processes:
        assert each["distances"]["mean"] == pytest.approx(
            one_process["distances"]["mean"], rel=1e-6
        )
