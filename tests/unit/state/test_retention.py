"""Retention and forgetting: removed rows leave no bytes behind, and other rows do not change."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_project import edit_params, move_on, quiet, run, sources

from renate_stages import errors, files
from renate_stages.actions.forget import still_held, stores_of
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import printed
from renate_stages.stages import export, prepare
from renate_stages.state import State, state
from renate_stages.state.prepared import PreparedData

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_forgotten_rows_are_removed_from_every_store_without_leftover_bytes(sourced):
    first = run(sourced)
    parent = stores_of(first.folder)
    chosen = printed(parent["memory"].metadata("id"))[:5]
    chosen += printed(parent["holdouts/1"].metadata("id"))[:3]
    pixels = {
        name: store.gather(np.flatnonzero(np.isin(printed(store.metadata("id")), chosen)))[0]
        for name, store in parent.items()
    }
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(chosen).write(sourced.forget_list)
    messages = []
    forgot = run(sourced, say=messages.append)
    state.check(forgot.folder)

    assert forgot.provenance.kind == "forget" and forgot.provenance.parent == first.identity
    left = forgot.provenance.left
    assert {name: each["rows"] for name, each in left.items()} == {"memory": 5, "holdouts/1": 3}
    assert all(each["before"] != each["after"] for each in left.values())
    assert still_held(sourced) == {"parent-state/memory": 5, "parent-state/holdouts/1": 3}
    for folder in (sourced.state, sourced.root / "work"):
        written = b"".join(path.read_bytes() for path in folder.rglob("*.npy"))
        for images in pixels.values():
            assert not any(image.tobytes() in written for image in images)
    for name in ("model.safetensors", "learner.safetensors"):
        assert files.sha256(forgot.folder / name) == files.sha256(sourced.parent / name)
    assert "memory: 95 examples" in messages[-1]
    export.run(sourced, quiet)
    report = sourced.report.read_text()
    assert "This update forgets examples" in report and "| memory | 5 |" in report
    assert "may still reflect them" in report


def test_update_after_forgetting_trains_on_the_remaining_memory(sourced):
    first = run(sourced)
    chosen = printed(first.memory().metadata("id"))[:5]
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(chosen).write(sourced.forget_list)
    forgot = run(sourced)
    assert len(forgot.memory()) == 95
    move_on(sourced, update__kind="update")
    third = run(sourced)
    assert len(third.memory()) == 100 and third.provenance.left == {}
    assert sorted(third.split("holdouts")) == [1, 3]
    prepared = files.read_json(sourced.data_metrics)
    assert prepared["forgotten"] == {"rows": 5}  # the same digits came again, and are left out
    held = [printed(store.metadata("id")) for store in stores_of(sourced.state).values()]
    assert not {each for ids in held for each in ids} & set(chosen)


@pytest.mark.parametrize("learner", ["NCM", "SLDA", "RanPAC"])
def test_closed_form_head_subtracts_forgotten_memory_rows(sourced, learner):
    edit_params(sourced, learner=learner, hyperparameters__num_random_features=50)
    edit_params(sourced, retention__never_keep=["us"])  # trained on but not stored: stays learned
    first = run(sourced)
    before = load_file(first.folder / "learner.safetensors")["counts"]
    chosen = first.memory()
    ids, labels = printed(chosen.metadata("id"))[:9], chosen.column("targets")[:9]
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(ids).write(sourced.forget_list)
    forgot = run(sourced)
    after = load_file(forgot.folder / "learner.safetensors")["counts"]
    assert (before - after).tolist() == np.bincount(labels, minlength=10).tolist()
    for name in ("model.safetensors", "learner.safetensors"):
        assert files.sha256(forgot.folder / name) != files.sha256(sourced.parent / name)
    move_on(sourced, update__kind="update", retention__memory_updates=1)
    third = run(sourced)  # rows of update 1 leave the memory by age, but not the sums
    counts = load_file(third.folder / "learner.safetensors")["counts"]
    assert counts.sum() == after.sum() + len(PreparedData.open(sourced.prepared).train)
    assert set(third.memory().metadata("update").tolist()) == {3}


def test_forget_condition_removes_all_rows_of_a_source(sourced):
    run(sourced)
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(where=["source == 'eu'"]).write(sourced.forget_list)
    forgot = run(sourced)
    for store in stores_of(forgot.folder).values():
        assert sources(store) == {b"us"}


def test_prepare_is_refused_if_all_training_rows_are_forgotten(sourced):
    ForgetList().with_more(where=["source in ('eu', 'us')"]).write(sourced.forget_list)
    with pytest.raises(errors.AllForgottenError, match="training rows"):
        prepare.run(sourced, quiet)
    assert not sourced.prepared.exists()


def test_source_in_never_keep_is_trained_on_and_not_stored(sourced):
    edit_params(sourced, retention__never_keep=["eu"])
    first = run(sourced)
    for store in stores_of(first.folder).values():
        assert sources(store) == {b"us"}
    assert sources(PreparedData.open(sourced.prepared).train) == {b"eu", b"us"}


def test_retention_limits_holdouts_validation_and_memory_age(sourced):
    edit_params(
        sourced,
        retention__holdout_rows=20,
        retention__holdout_updates=2,
        retention__validation_rows=10,
        retention__validation_updates=1,
        retention__memory_updates=1,
    )
    ages = []
    for _ in range(4):
        found = run(sourced)
        ages.append(sorted(set(found.memory().stored_column("meta.update").tolist())))
        assert all(len(store) == 20 for store in found.split("holdouts").values())
        assert all(len(store) == 10 for store in found.split("validation").values())
        state.check(found.folder)
        move_on(sourced)
    final = State.open(sourced.parent)
    assert sorted(final.split("holdouts")) == [3, 4] and sorted(final.split("validation")) == [4]
    assert ages == [[1], [1, 2], [2, 3], [3, 4]]
    assert set(final.provenance.left) >= {"memory", "holdouts/2", "validation/3"}


def test_unaffected_parent_stores_are_linked_and_not_rewritten(sourced):
    run(sourced)
    move_on(sourced, retention__holdout_rows=1000, retention__memory_updates=9)
    second = run(sourced)
    assert second.provenance.left == {}
    for path in (sourced.parent / "holdouts" / "1").iterdir():
        assert path.samefile(second.folder / "holdouts" / "1" / path.name)
