"""Two processes share updates: the steps, the model and the memory are those of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import shared_updates
import torch
from shared_updates import ROWS, RUNS

LAUNCH = """
import sys
from pathlib import Path
from renate_stages.training.launch import start
sys.exit(start(sys.argv[2:], 2, Path(sys.argv[1])))
"""
SOLVED = ("NCM", "SLDA", "RanPAC")  # in one pass, without steps


ALWAYS = {"ER", "accumulated", "clipped", "clipped by value"}  # tests below name these
LONG = (
    *("ER separate", "memory of one", "DER++ joint", "CLS-ER", "Offline-ER", "Budgeted", "Joint"),
    *("LwF", "SLDA", "some steps", "batch norm separate", "averaged"),
)


def marked(names) -> list:
    """Names of updates, of which some are for the long form."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in names]


@pytest.fixture(scope="module")
def names(request) -> list[str]:
    """The updates that the selected tests are about."""
    here = [each for each in request.session.items if each.module is request.module]
    asked = {each.callspec.params["name"] for each in here if hasattr(each, "callspec")}
    return [name for name in RUNS if name in ALWAYS | asked]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, names):
    """What each of two processes found, in one launch; they run beside `alone`."""
    folder = tmp_path_factory.mktemp("pair")
    logs, script = folder / "logs", str(Path(shared_updates.__file__))
    logs.mkdir()
    command = [sys.executable, "-c", LAUNCH, str(logs), script, str(folder), ",".join(names)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield lambda: _results(process, folder)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pair, names):
    return shared_updates.everything(tmp_path_factory.mktemp("alone") / "found", names)


@pytest.fixture(scope="module")
def found(alone, pair):
    """What one process found, and each of the two."""
    return alone, pair()


def _results(process, folder):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def updates(found, name):
    """Yield what one process and the two found in each update."""
    alone, pair = found
    yield from zip(alone[name], *(each[name] for each in pair), strict=True)


@pytest.mark.parametrize("name", marked(RUNS))
def test_the_model_and_what_is_left_beside_are_those_of_one_process(found, name):
    for one, *both in updates(found, name):
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


@pytest.mark.parametrize("name", marked(RUNS))
def test_the_memory_is_that_of_one_process(found, name):
    for one, *both in updates(found, name):
        for each in both:
            for part in ("kept", "added", "policy"):
                assert each[part] == one[part], part


@pytest.mark.parametrize("name", marked(name for name in RUNS if name not in SOLVED))
def test_each_step_has_the_batch_of_one_process_divided_between_the_two(found, name):
    for one, *both in updates(found, name):
        assert len(one["steps"]) == len(both[0]["steps"]) == len(both[1]["steps"])
        for step, *halves in zip(one["steps"], *(each["steps"] for each in both), strict=True):
            for part, (_, whole) in step["rows"].items():
                own = [half["rows"][part][0] for half in halves]
                assert all(half["rows"][part][1] == whole for half in halves), part
                assert own[0] + own[1] == whole, "each row once, in the order of the draw"
                assert len(own[1]) - len(own[0]) in (0, 1)
            mean = sum(half["loss"] for half in halves) / 2
            assert mean == pytest.approx(step["loss"], abs=1e-6)


@pytest.mark.parametrize("name", marked(RUNS))
def test_epochs_are_as_long_and_curves_and_costs_the_same(found, name):
    for one, *both in updates(found, name):
        for each in both:
            assert (each["taken"], each["examples"]) == (one["taken"], one["examples"])
            for row, expected in zip(each["curves"], one["curves"], strict=True):
                assert row == pytest.approx(expected, abs=1e-5)
        assert both[0]["curves"] == both[1]["curves"], "both end, and keep an epoch, by these"


def test_there_are_steps_of_which_a_process_has_no_share(found):
    _, pair = found
    (first,) = pair[0]["ER"]
    assert [len(step["rows"]["new"][0]) for step in first["steps"]] == [4, 4, 4, 4, 0] * 2
    assert first["taken"] == 2 * -(-ROWS // 8)


def test_replayed_examples_differ_between_the_processes(found):
    _, pair = found
    steps = zip(*(each["ER"][0]["steps"] for each in pair), strict=True)
    drawn = [(a["rows"]["draw 0"][0], b["rows"]["draw 0"][0]) for a, b in steps]
    assert drawn and all(len(one) == len(other) == 3 and one != other for one, other in drawn)


def test_gradients_of_two_batches_make_a_step(found):
    alone, _ = found
    assert alone["accumulated"][0]["taken"] == 2 * 3, "of 5 batches an epoch, the last alone"


def test_clipping_bounds_the_gradient_of_the_whole_batch(found):
    alone, _ = found
    one, other, free = (alone[n][0]["model"] for n in ("clipped", "clipped by value", "ER"))
    assert any(not torch.equal(one[k], free[k]) for k in free)
    assert any(not torch.equal(one[k], other[k]) for k in free)


def test_a_training_that_goes_on_ends_in_the_same_bits_in_both_processes(found):
    _, pair = found
    for each in (each["resumed"] for each in pair):
        assert each["equal"] and each["curves"] and each["memory"]
        assert each["said"] == ["training goes on after epoch 2"]
        assert each["files"] == ["last.ckpt"], "one process writes"
    first, second = (each["resumed"] for each in pair)
    assert torch.equal(first["weights"], second["weights"])
    assert first["next"] != second["next"], "each augments and drops out in its own way"


def test_what_is_unknown_of_remembered_examples_counts_for_nothing(found):
    alone, pair = found
    for each in pair:
        assert each["distances"]["mean"] == pytest.approx(alone["distances"]["mean"], rel=1e-6)
