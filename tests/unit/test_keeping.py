"""Retention and forgetting: what may not be kept leaves no byte, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_project import edit_params, move_on

from renate_stages import errors, files, state
from renate_stages.forget import still_held, stores_of
from renate_stages.forget_list import ForgetList
from renate_stages.memory.identity import to_text
from renate_stages.memory.predicate import Predicate
from renate_stages.prepared import PreparedData
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State


def quiet(message: str) -> None:
    pass


def run(project, *, say=quiet) -> State:
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, say)
    return State.open(project.state)


def sources(store) -> set[bytes]:
    return set(store.stored_column("meta.source").tolist())


def test_a_forgotten_row_leaves_every_store_and_no_byte_of_it_stays(sourced):
    first = run(sourced)
    parent = stores_of(first.folder)
    chosen = to_text(parent["memory"].metadata("id"))[:5]
    chosen += to_text(parent["holdouts/1"].metadata("id"))[:3]
    pixels = {
        name: store.gather(np.flatnonzero(np.isin(to_text(store.metadata("id")), chosen)))[0]
        for name, store in parent.items()
    }
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(chosen).write(sourced.forget_list)
    said = []
    forgot = run(sourced, say=said.append)
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
    assert "memory: 95 examples" in said[-1]
    export.run(sourced, quiet)
    report = sourced.report.read_text()
    assert "This update forgets examples" in report and "| memory | 5 |" in report
    assert "may still reflect them" in report


def test_the_next_update_learns_on_from_what_is_left(sourced):
    first = run(sourced)
    chosen = to_text(first.memory().metadata("id"))[:5]
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(chosen).write(sourced.forget_list)
    forgot = run(sourced)
    assert len(forgot.memory()) == 95
    move_on(sourced, update__kind="update")
    third = run(sourced)
    assert len(third.memory()) == 100 and third.provenance.left == {}
    assert sorted(third.split("holdouts")) == [1, 3]
    prepared = files.read_json(sourced.data_metrics)
    assert prepared["forgotten"] == {"rows": 5}  # the same digits came in again, and stay out
    held = [to_text(store.metadata("id")) for store in stores_of(sourced.state).values()]
    assert not {each for ids in held for each in ids} & set(chosen)


@pytest.mark.parametrize("learner", ["NCM", "SLDA", "RanPAC"])
def test_a_closed_form_head_forgets_what_leaves_the_memory(sourced, learner):
    edit_params(sourced, learner=learner, hyperparameters__num_random_features=50)
    edit_params(sourced, retention__never_keep=["us"])  # learned from, so not to be taken out
    first = run(sourced)
    before = load_file(first.folder / "learner.safetensors")["counts"]
    chosen = first.memory()
    ids, labels = to_text(chosen.metadata("id"))[:9], chosen.column("targets")[:9]
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(ids).write(sourced.forget_list)
    forgot = run(sourced)
    after = load_file(forgot.folder / "learner.safetensors")["counts"]
    assert (before - after).tolist() == np.bincount(labels, minlength=10).tolist()
    for name in ("model.safetensors", "learner.safetensors"):
        assert files.sha256(forgot.folder / name) != files.sha256(sourced.parent / name)
    move_on(sourced, update__kind="update", retention__memory_updates=1)
    third = run(sourced)  # the rows of update 1 are too old, and stay in the sums
    counts = load_file(third.folder / "learner.safetensors")["counts"]
    assert counts.sum() == after.sum() + len(PreparedData.open(sourced.prepared).train)
    assert set(third.memory().metadata("update").tolist()) == {3}


def test_a_condition_forgets_a_source(sourced):
    run(sourced)
    move_on(sourced, update__kind="forget")
    ForgetList().with_more(where=["source == 'eu'"]).write(sourced.forget_list)
    forgot = run(sourced)
    for store in stores_of(forgot.folder).values():
        assert sources(store) == {b"us"}


def test_training_with_nothing_left_is_refused(sourced):
    ForgetList().with_more(where=["source in ('eu', 'us')"]).write(sourced.forget_list)
    with pytest.raises(errors.AllForgottenError, match="training rows"):
        prepare.run(sourced, quiet)
    assert not sourced.prepared.exists()


def test_a_source_never_to_keep_is_learnt_from_and_not_kept(sourced):
    edit_params(sourced, retention__never_keep=["eu"])
    first = run(sourced)
    for store in stores_of(first.folder).values():
        assert sources(store) == {b"us"}
    assert sources(PreparedData.open(sourced.prepared).train) == {b"eu", b"us"}


def test_retention_bounds_holdouts_validation_and_age(sourced):
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


def test_without_rules_no_byte_of_the_parents_stores_is_written_again(sourced):
    run(sourced)
    move_on(sourced, retention__holdout_rows=1000, retention__memory_updates=9)
    second = run(sourced)
    assert second.provenance.left == {}
    for path in (sourced.parent / "holdouts" / "1").iterdir():
        assert path.samefile(second.folder / "holdouts" / "1" / path.name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source == 'eu'", [1, 0, 0]),
        ("source != 'eu'", [0, 1, 1]),
        ("not source == 'eu' and age >= 2", [0, 1, 1]),
        ("age < 2 or source in ('uk',)", [1, 0, 1]),
        ("age not in [2]", [1, 0, 1]),
        ("paid == True", [0, 1, 0]),
        ("unknown == 3", [0, 0, 0]),
    ],
)
def test_conditions_choose_rows(text, expected):
    metadata = {
        "source": np.array([b"eu", b"us", b"uk"], "S32"),
        "age": np.array([1, 2, 3]),
        "paid": np.array([False, True, False]),
    }
    found = Predicate.parse(text).matches(metadata, 3)
    assert found.astype(int).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "source",
        "source ==",
        "__import__('os')",
        "a.b == 1",
        "f(x) == 1",
        "1 == 1",
        "a == b",
        "source == 'eu' == 'us'",
        "(lambda: 1) == 1",
        "a in 'eu'",
        "a + 1 == 2",
        "a == [1]",
    ],
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(errors.InvalidPredicateError, match="expected comparisons"):
        Predicate.parse(text)


def test_texts_and_numbers_are_not_compared():
    predicate = Predicate.parse("age == 'old'")
    with pytest.raises(errors.InvalidPredicateError, match="age holds numbers"):
        predicate.matches({"age": np.array([1])}, 1)


def test_a_list_is_the_same_after_it_was_written(tmp_path):
    listed = ForgetList().with_more(["customer-17", "a" * 32], ["source == 'eu'", "age > 3"])
    listed.write(tmp_path / "forget.yaml")
    again = ForgetList.read(tmp_path / "forget.yaml")
    assert again.ids == listed.ids and "a" * 32 in again.ids
    assert {each.text for each in again.where} == {"source == 'eu'", "age > 3"}
    assert "customer-17" not in (tmp_path / "forget.yaml").read_text()
    assert ForgetList.read(tmp_path / "none.yaml") == ForgetList()


@pytest.mark.parametrize(
    "content", ["[1]", "ids: [x]", "ids: 3", "where: [3]", "other: []", "where: ['os.system(1)']"]
)
def test_a_list_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "forget.yaml").write_text(content)
    with pytest.raises((errors.InvalidForgetListError, errors.InvalidPredicateError)):
        ForgetList.read(tmp_path / "forget.yaml")
