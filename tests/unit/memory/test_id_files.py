"""Id files, as written by editors, spreadsheets and databases."""

from __future__ import annotations

import codecs

import pytest

from renate_stages.errors import InvalidIdFileError, MissingFileError
from renate_stages.memory.id_file import IdFile


def lines(tmp_path, content: bytes) -> list[str]:
    (tmp_path / "ids.txt").write_bytes(content)
    found = IdFile(tmp_path / "ids.txt")
    assert list(found) == list(found)
    return list(found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (codecs.BOM_UTF8 + b"a\nb\n", ["a", "b"]),
        (codecs.BOM_UTF8 + b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\r", ["a", "b"]),
        (b"\n a \n\n\t\nb\n \n", [" a ", "b"]),
        (b"a,1\n", ["a,1"]),
        ("größe\n日本\nx\u2028y\nx\x85y\n".encode(), ["größe", "日本", "x\u2028y", "x\x85y"]),
        ("a\n\ufeffb\n".encode(), ["a", "\ufeffb"]),
        (b"x" * 3_000_000, ["x" * 3_000_000]),
    ],
)
def test_each_non_empty_line_of_an_id_file_is_an_id(tmp_path, content, expected):
    assert lines(tmp_path, content) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\nb\n".encode("utf-16"), "it is UTF-16"),
        (codecs.BOM_UTF16_BE + "a\n".encode("utf-16-be"), "it is UTF-16"),
        ("a\nb\n".encode("utf-32"), "it is UTF-32"),
        ("a\nb\n".encode("utf-16-le"), "zero bytes"),
        ("a\ngröße\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"ok\n" * 100_000 + b"\xff\n", "line 100001 is not UTF-8"),
        (b"\xed\xa0\x80\n", "line 1 is not UTF-8"),
        (b"", "it contains no ids"),
        (codecs.BOM_UTF8 + b"\r\n \n", "it contains no ids"),
    ],
)
def test_id_file_with_another_encoding_or_without_ids_is_refused(tmp_path, content, problem):
    with pytest.raises(InvalidIdFileError, match=problem):
        lines(tmp_path, content)


def test_folder_or_missing_file_is_refused_as_id_file(tmp_path):
    with pytest.raises(InvalidIdFileError, match="a folder"):
        IdFile(tmp_path)
    with pytest.raises(MissingFileError, match="one id per line"):
        IdFile(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("content", "table"),
    [
        (b"a\nb\n", False),
        (b"id,name\n1,x\n", True),
        (b'"1"\n"2"\n', True),
        (b"1\t2\n", True),
        (b"a\nb,c\nd\n", False),
    ],
)
def test_id_file_that_looks_like_a_table_is_recognised(tmp_path, content, table):
    (tmp_path / "ids.txt").write_bytes(content)
    assert IdFile(tmp_path / "ids.txt").looks_like_a_table() is table
