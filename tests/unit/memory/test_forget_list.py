"""`forget.yaml`: writing, reading (older formats included) and matching of examples."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np
import pytest
import torch

from renate_stages import errors
from renate_stages.data import ingest
from renate_stages.files import yaml_file
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import IdSet, printed


def read(tmp_path, content: str) -> ForgetList:
    (tmp_path / "forget.yaml").write_text(content, encoding="utf-8")
    return ForgetList.read(tmp_path / "forget.yaml")


def test_forget_list_round_trips_through_its_file(tmp_path):
    listed = ForgetList().with_more(["customer-17", "a" * 32], ["source == 'eu'", "age > 3"])
    listed.write(tmp_path / "forget.yaml")
    again = ForgetList.read(tmp_path / "forget.yaml")
    assert again.ids == listed.ids and len(again.ids) == 2
    assert {each.text for each in again.where} == {"source == 'eu'", "age > 3"}
    text = (tmp_path / "forget.yaml").read_text()
    assert "customer-17" not in text and "a" * 32 not in text
    content = yaml_file.parse(text, "forget.yaml")
    assert content["ids"] == printed(listed.ids.array) and len(content["where"]) == 2
    again.write(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == text
    ForgetList().write(tmp_path / "none.yaml")
    assert ForgetList.read(tmp_path / "none.yaml") == ForgetList()
    assert ForgetList.read(tmp_path / "absent.yaml") == ForgetList()


@pytest.mark.parametrize(
    "text",
    [uuid.UUID(int=7).hex, hashlib.md5(b"17").hexdigest(), "0" * 32, "renate:" + "A" * 32, "7"],
)
def test_user_id_is_hashed_even_if_it_looks_like_a_hash(tmp_path, text):
    data = [(torch.zeros(2), 0, {"id": text}), (torch.ones(2), 1, {"id": "another"})]
    store = ingest(data, tmp_path / "s", 1, "train")
    assert ForgetList().with_more([text]).stored_rows(store).tolist() == [True, False]
    (hashed, _) = printed(store.metadata("id"))
    assert ForgetList().with_more([hashed]).stored_rows(store).tolist() == [True, False]
    bare = hashed.removeprefix("renate:")  # without its prefix it may be a user's id
    assert not ForgetList().with_more([bare]).stored_rows(store).any()


@pytest.mark.parametrize("separator", ["\n", "\r\n"])
def test_forget_lists_of_older_releases_are_read(tmp_path, separator):
    """Older lists contain bare hex digits, quoted where YAML would parse them as a number."""
    digits = [printed(IdSet.of([each]).array)[0].removeprefix("renate:") for each in "abc"]
    numbers = ["1" * 32, "12345678901234567890123456789e21"]
    lines = [f"- {each}" for each in digits] + [f"- '{each}'" for each in numbers]
    text = separator.join(["# Examples", "ids:", *lines, "where:", "- age > 3", ""])
    (tmp_path / "old").write_bytes(text.encode())
    found = ForgetList.read(tmp_path / "old")
    expected = IdSet.of("abc") | IdSet.of(f"renate:{each}" for each in numbers)
    assert found.ids == expected and [each.text for each in found.where] == ["age > 3"]
    found.write(tmp_path / "new")
    assert ForgetList.read(tmp_path / "new") == found
    only = read(tmp_path, "ids:\n" + "\n".join(f"- {each}" for each in digits))
    assert only.ids == IdSet.of("abc")  # no newline at the end of the file


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "ids: [x]",
        "ids: 3",
        "ids: [renate:" + "A" * 32 + "]",
        "ids:\n- renate:" + "a" * 31,
        "ids:\n- renate:" + "a" * 32 + "\n- customer-17",
        "where: [3]",
        "other: []",
        "where: ['os.system(1)']",
    ],
)
def test_malformed_forget_list_is_refused(tmp_path, content):
    with pytest.raises((errors.InvalidForgetListError, errors.InvalidPredicateError)):
        read(tmp_path, content)


def test_forget_list_that_is_not_utf8_text_is_refused(tmp_path):
    with pytest.raises(errors.MalformedFileError, match="half of a character"):
        read(tmp_path, "where: [\"a == '\\uD800'\"]")
    (tmp_path / "forget.yaml").write_bytes("ids: []\n".encode("utf-16"))
    with pytest.raises(errors.MalformedFileError, match="not UTF-8"):
        ForgetList.read(tmp_path / "forget.yaml")


def test_example_forgotten_by_content_is_excluded_under_any_id(tmp_path):
    """An example that was forgotten by its own id is matched only by this id."""
    first = ingest([(torch.ones(2), 1)], tmp_path / "first", 1, "train")
    by_content = ForgetList().with_more(printed(first.metadata("id")))
    again = [
        (torch.ones(2), 1, {"id": "now it has one"}),
        (torch.ones(2), 0, {"id": "another label"}),
        (torch.zeros(2), 1, {"id": "another"}),
    ]
    for split in ("train", "val", "test"):
        store = ingest(again, tmp_path / split, 2, split, unwanted=[by_content])
        assert store.gather(np.arange(len(store)))[0].tolist() == [[1, 1], [0, 0]]
    by_id = ForgetList().with_more(["now it has one"])
    others = [(*each[:2], {"id": each[2]["id"] + "!"}) for each in again]
    assert len(ingest(others, tmp_path / "others", 3, "train", unwanted=[by_id])) == 3
    assert len(ingest(again, tmp_path / "same", 3, "train", unwanted=[by_id])) == 2
