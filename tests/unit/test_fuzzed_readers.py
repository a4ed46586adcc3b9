"""Fuzz tests of file readers: each returns the content or raises a `RenateStagesError`.

The inputs are the same in every run; Hypothesis reports the smallest input that breaks a reader.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_results import results_of

from renate_stages import files
from renate_stages.errors import RenateStagesError
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.files import yaml_file
from renate_stages.memory import ExampleStore, Ragged, StoreWriter, evolve, make_policy
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.predicate import Predicate
from renate_stages.models.stored import read_state_dict, read_tensors, write_tensors
from renate_stages.state import State, write_empty

fuzz = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example refills the folder
)
NUMBERS = st.integers(-3, 70) | st.integers() | st.floats() | st.booleans()
NAMES = st.sampled_from(["", "..", "../x", "/etc/passwd", "inputs", "targets", "a.b", "00001-00"])
VALUES = st.recursive(
    st.none() | NUMBERS | NAMES | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed(draw, content):
    """Return JSON with one to three values, at any depth, replaced, duplicated or removed."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        node, parent, key = content, None, None
        while isinstance(node, dict | list) and node and draw(st.integers(0, 3)):
            parent = node
            keys = sorted(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(list(keys)))
            node = parent[key]
        if parent is None:
            continue
        match draw(st.sampled_from(["replace", "remove", "double"])):
            case "replace":
                parent[key] = draw(VALUES)
            case "remove":
                del parent[key]
            case "double" if isinstance(parent, list):
                parent.append(node)
            case "double":
                parent[draw(NAMES)] = node
    return content


@st.composite
def damaged(draw, content: bytes):
    """Return bytes with some of them changed, cut off, inserted or removed."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["change", "cut", "insert", "remove"])):
            case "change" if place < len(content):
                content[place] = draw(st.integers(0, 255))
            case "cut":
                del content[place:]
            case "insert":
                content[place:place] = draw(st.binary(max_size=12))
            case _:
                del content[place : place + draw(st.integers(1, 16))]
    return bytes(content)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A store with dead rows, a ragged field and metadata."""
    folder = tmp_path_factory.mktemp("fuzz")
    with StoreWriter(folder / "all", 1, shard_bytes=100) as writer:
        words = Ragged.of([np.arange(n) for n in (2, 0, 3, 5, 1, 4)])
        images = np.arange(12.0, dtype=np.float32).reshape(6, 2)
        beside = {"source": np.array([b"eu"] * 6), "weight": np.ones(6)}
        writer.append(({"words": words, "image": images}, np.arange(6)), beside)
    whole = ExampleStore.open(folder / "all")
    evolve(folder / "store", whole, np.array([0, 1, 3, 4, 5]), None, np.empty(0, int), 2)
    return folder / "store"


def read_store(folder: Path) -> None:
    """Read all rows of a store with every method, and check the number of rows."""
    try:
        store = ExampleStore.open(folder)
        fields = store.spec.all_fields if store.spec else {}
        columns = store.columns(np.arange(len(store)), fields)
        for path, column in columns.items():
            assert len(column) == len(store), path
            assert len(store.stored_column(path)) == store.offsets[-1]
        assert store.nbytes >= 0
        assert all(file.parent == folder for file in store.files())
    except RenateStagesError as error:
        assert str(error)


@fuzz
@given(st.data())
def test_store_with_a_fuzzed_index_is_read_or_refused(written, tmp_path, data):
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    shutil.copytree(written, tmp_path / "store")
    index = json.loads((written / "index.json").read_text())
    (tmp_path / "store" / "index.json").write_text(json.dumps(data.draw(changed(index))))
    read_store(tmp_path / "store")


@fuzz
@given(st.data())
def test_store_with_a_fuzzed_file_is_read_or_refused(written, tmp_path, data):
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    shutil.copytree(written, tmp_path / "store")
    name = data.draw(st.sampled_from(sorted(path.name for path in written.iterdir())))
    (tmp_path / "store" / name).write_bytes(data.draw(damaged((written / name).read_bytes())))
    read_store(tmp_path / "store")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("empty")
    write_empty(folder)
    return json.loads((folder / "state.json").read_text())


@fuzz
@given(st.data())
def test_fuzzed_state_manifest_is_read_or_refused(manifest, tmp_path, data):
    (tmp_path / "state.json").write_text(json.dumps(data.draw(changed(manifest))))
    try:
        found = State.open(tmp_path)
    except RenateStagesError as error:
        assert str(error)
    else:
        assert found.label and isinstance(found.provenance.update, int)


@fuzz
@given(content=damaged(b"[" * 50 + b'{"updates": [1, 2]}' + b"]" * 50))
@example(content=b"[" * 200_000)
@example(content=b"9" * 5000)
def test_fuzzed_json_is_read_or_refused(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    try:
        files.read_json(tmp_path / "index.json")
    except RenateStagesError as error:
        assert "index.json" in str(error)


HISTORY = EvaluationHistory().with_update(
    1, "after", results_of({1: {"accuracy": 0.5, "loss": 1e9}}, {1: 7})
)


@fuzz
@given(st.data())
def test_fuzzed_evaluation_history_is_read_or_refused(tmp_path, data):
    HISTORY.write(tmp_path / "whole.csv")
    content = data.draw(damaged((tmp_path / "whole.csv").read_bytes()))
    (tmp_path / "evaluations.csv").write_bytes(content)
    try:
        found = EvaluationHistory.read(tmp_path / "evaluations.csv")
    except RenateStagesError as error:
        assert "evaluations.csv" in str(error)
    else:
        found.write(tmp_path / "again.csv")
        assert EvaluationHistory.read(tmp_path / "again.csv").metrics == found.metrics


@fuzz
@given(st.data())
def test_fuzzed_tensor_file_is_read_or_refused(tmp_path, data):
    import torch

    write_tensors(tmp_path / "whole", {"weight": torch.arange(6.0).reshape(2, 3)})
    content = data.draw(damaged((tmp_path / "whole").read_bytes()))
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "model.json").write_text('{"class": "MLP"}')
    for read in (read_tensors, read_state_dict):
        try:
            read(tmp_path if read is read_state_dict else tmp_path / "model.safetensors")
        except RenateStagesError as error:
            assert "model.safetensors" in str(error)


YAML = b"ids: [0123456789abcdef0123456789abcdef]\nwhere:\n- source == 'eu' and update < 3\n"


@fuzz
@given(content=damaged(YAML))
@example(content=b"where: !!python/object/apply:os.system [true]")
@example(content=b"a: 2026-99-99")
@example(content=b"a: &a [*a, *a]")
@example(content=b"[" * 1000)
@example(content=b"1: !!int x")
def test_fuzzed_yaml_and_forget_list_are_read_or_refused(tmp_path, content):
    (tmp_path / "forget.yaml").write_bytes(content)
    for read in (yaml_file.read, ForgetList.read):
        try:
            read(tmp_path / "forget.yaml")
        except RenateStagesError as error:
            assert str(error)


WORDS = "source update label == != < >= in not and or ( ) [ ] , . := 'eu' 3 -1 1e9 None f'{1}' x:"
TOKENS = st.sampled_from([*WORDS.split(), "__import__('os')"])


@fuzz
@given(st.lists(TOKENS, max_size=9).map(" ".join) | st.text(max_size=30))
@example("not " * 5000 + "source == 'eu'")
@example("(" * 500 + "update < 3" + ")" * 500)
def test_fuzzed_condition_is_parsed_or_refused(text):
    try:
        predicate = Predicate.parse(text)
    except RenateStagesError as error:
        assert "condition" in str(error)
        return
    columns = {"source": np.array([b"eu", b"us"]), "update": np.array([1, 4])}
    if predicate.names <= columns.keys():
        assert predicate.matches(columns, 2).shape == (2,)


@fuzz
@given(st.data())
def test_fuzzed_memory_policy_state_is_restored_or_refused(data):
    name = data.draw(st.sampled_from(["reservoir", "class_balanced", "greedy", "herding"]))
    labels = np.array([0, 1, 1, 2, 0])
    features = np.eye(5)
    policy = make_policy(name, 3, np.random.default_rng(0))
    policy.select(None, labels, 0, 5, features)
    given = json.loads(json.dumps(policy.state()))
    policy = make_policy(name, 3, np.random.default_rng(0))
    try:
        policy.restore(data.draw(changed(given)))
    except RenateStagesError as error:
        assert "learner.json" in str(error)
        return
    chosen = policy.select(labels[:3], labels, 3, 5, features)
    assert len(chosen.kept) <= 3 and len(chosen.added) <= 5
