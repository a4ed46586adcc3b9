"""YAML files of users: errors name the file and the problem."""

from __future__ import annotations

import pytest

from renate_stages import errors
from renate_stages.files import yaml_file


def bomb(levels: int) -> str:
    lines = [f"level0: &level0 [{', '.join('x' * 10)}]"]
    for level in range(1, levels):
        lines.append(f"level{level}: &level{level} [{', '.join([f'*level{level - 1}'] * 10)}]")
    return "\n".join(lines)


def test_aliases_are_expanded_up_to_a_reasonable_size():
    text = "rate: &rate 0.1\nblock: &block {a: *rate}\nother: {<<: *block, b: 2}\n"
    assert yaml_file.parse(text, "x.yaml")["other"] == {"a": 0.1, "b": 2}
    assert len(yaml_file.parse(bomb(4), "x.yaml")["level3"]) == 10


@pytest.mark.parametrize("text", [bomb(9), "a: &a [*a]", "a: &a {b: {c: *a}}"])
def test_aliases_that_expand_to_billions_of_values_are_refused(text):
    with pytest.raises(errors.MalformedFileError, match=r"x\.yaml.*with its aliases expanded"):
        yaml_file.parse(text, "x.yaml")


def test_merge_conflict_markers_are_detected():
    text = "a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> theirs\n"
    with pytest.raises(errors.ConflictedFileError, match=r"x\.yaml has merge conflicts"):
        yaml_file.parse(text, "x.yaml")
    assert yaml_file.parse("a: '<<<<<<< HEAD'\n", "x.yaml") == {"a": "<<<<<<< HEAD"}


def test_unreadable_file_error_names_the_file(tmp_path):
    (tmp_path / "utf-16.yaml").write_text("a: 1\n", encoding="utf-16")
    with pytest.raises(errors.MalformedFileError, match=r"utf-16\.yaml.*it is not UTF-8"):
        yaml_file.read(tmp_path / "utf-16.yaml")
    with pytest.raises(errors.MalformedFileError, match="Is a directory"):
        yaml_file.read(tmp_path)


def test_edited_file_keeps_comments_and_nulls(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1  # why\nb: null\n")
    assert yaml_file.edited(path, lambda content: content.update(a=2)) == "a: 2  # why\nb: null\n"
    assert path.read_text() == "a: 1  # why\nb: null\n"
