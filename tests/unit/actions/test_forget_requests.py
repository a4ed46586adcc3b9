"""`renate-stages forget`: matches, output and files, in a repository without DVC data."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from typer.testing import CliRunner

from renate_stages import errors, lineage
from renate_stages.actions.forget import UNMATCHED
from renate_stages.cli import main
from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import given_id, printed, to_array
from renate_stages.state import Provenance, State, state

UUIDS = [uuid.UUID(int=number).hex for number in range(8)]


def write(path, numbers, ids=None, **metadata) -> ExampleStore:
    known = {} if ids is None else {"id": to_array(map(given_id, ids))}
    with StoreWriter(path, 1) as writer:
        known |= {name: np.asarray(values) for name, values in metadata.items()}
        writer.append((np.asarray(numbers, np.float32)[:, None], np.asarray(numbers) % 2), known)
    return ExampleStore.open(path)


@pytest.fixture
def repository(project, tmp_path, monkeypatch):
    """An open update, not yet run, whose parent holds 12 rows in memory and 4 in a holdout.

    The first 4 rows in memory have no id and no age; the other 8 have UUIDs as ids, and one of
    them is dead.
    """
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    old = write(tmp_path / "old", range(4))
    new = write(tmp_path / "new", range(4, 12), UUIDS, age=np.arange(10, 18))
    both = evolve(tmp_path / "both", old, np.arange(4), new, np.arange(8), 1)
    tests = write(tmp_path / "tests", range(20, 24), [*UUIDS[:2], " padded ", "größe"])
    folder = project.parent
    for each in ("memory/index.json", "state.json", "holdouts/index.json"):
        (folder / each).unlink()
    evolve(folder / "memory", both, np.arange(11), None, np.arange(0), 1)
    state.write_split(folder, "holdouts", {1: tests})
    state.write_manifest(folder, Provenance("init", 0))
    (project.root / ".gitignore").write_text("/parent-state\n/.renate\n/data\n")
    lineage.git(project, "init", "-q")
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-q", "-m", "start")
    return project


def forget(*arguments: object) -> str:
    """Run `renate-stages forget`; return its output, or raise its error."""
    done = CliRunner().invoke(main.app, ["forget", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def forget_ids(project, *ids: str) -> str:
    path = project.root.parent / "ids.txt"
    path.write_text("\n".join(ids), encoding="utf-8")
    return forget("--ids", path)


def rows_left(project) -> dict[str, int]:
    listed = ForgetList.read(project.forget_list)
    parent = State.open(project.parent)
    stores = {"memory": parent.memory(), "holdouts/1": parent.split("holdouts")[1]}
    return {name: int((~listed.stored_rows(store)).sum()) for name, store in stores.items()}


def test_ids_that_look_like_hashes_are_matched_and_counted(repository):
    text = forget_ids(repository, *UUIDS[:3], UUIDS[0], UUIDS[7], "nobody")
    assert "5 ids given, 4 found among the stored examples" in text
    assert "1 match no stored example: 'nobody'" in text
    assert "3 rows of memory will be removed, and the bytes of 1 row dropped earlier" in text
    assert "2 rows of holdouts/1 will be removed" in text and "No stored example" not in text
    assert rows_left(repository) == {"memory": 8, "holdouts/1": 2}
    assert not lineage.git(repository, "status", "--porcelain")
    assert not any(each in repository.forget_list.read_text() for each in (*UUIDS, "nobody"))


def test_id_file_with_byte_order_mark_and_crlf_matches_its_first_id(repository):
    path = repository.root.parent / "ids.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([UUIDS[0], "größe", ""]).encode())
    text = forget("--ids", path)
    assert "2 ids given, 2 found among the stored examples" in text
    assert rows_left(repository) == {"memory": 11, "holdouts/1": 2}


def test_ids_match_with_and_without_surrounding_white_space(repository):
    text = forget_ids(repository, f"  {UUIDS[0]}\t", " padded ")
    assert "2 ids given, 2 found among the stored examples" in text
    assert rows_left(repository) == {"memory": 11, "holdouts/1": 2}


def test_many_unmatched_ids_are_written_verbatim_to_a_file(repository):
    unknown = [f" customer {number}" for number in range(12)]
    text = forget_ids(repository, *unknown, UUIDS[1])
    assert "12 match no stored example: ' customer 0', " in text and "customer 10" not in text
    listed = repository.scratch / UNMATCHED
    assert f".renate/{UNMATCHED}" in text
    assert listed.read_text().splitlines() == unknown
    forget_ids(repository, "one more")
    assert not listed.exists()  # the list belongs to the previous request


def test_unmatched_ids_that_look_like_table_rows_are_reported(repository):
    text = forget_ids(repository, "id,name", "17,Ada", "18,Bob")
    assert "3 ids given, 0 found among the stored examples" in text
    assert "No stored example matches. Matching examples will be left out of" in text
    assert "look like rows of a table" in text
    assert rows_left(repository) == {"memory": 12, "holdouts/1": 4}


def test_conditions_report_matched_rows_and_rows_without_the_metadata(repository):
    text = forget("--where", "age < 12", "--where", "label == 7", "--where", "age < 12")
    assert "age < 12: 2 rows of memory\n" in text
    assert "unknown for 4 rows of memory, 4 rows of holdouts/1: they lack the metadata" in text
    assert "label == 7: matches no stored example" in text
    assert rows_left(repository) == {"memory": 10, "holdouts/1": 4}


def test_printed_hash_matches_all_rows_with_the_same_content(repository, tmp_path):
    shown = CliRunner().invoke(main.app, ["memory", "--ids"]).output.split()
    held = State.open(repository.parent).memory()
    assert len(shown) == 11 and len(set(shown)) == 11
    assert shown[4:] == printed(to_array(map(given_id, UUIDS[:7])))
    folder = repository.parent / "holdouts" / "1"
    for path in folder.iterdir():
        path.unlink()
    write(folder, [20, 2, 22, 23], ["a", "copy of row 2", "c", "d"])
    text = forget_ids(repository, shown[2])
    assert "1 id given, 1 found among the stored examples" in text
    assert (
        "1 row of memory will be removed" in text and "1 row of holdouts/1 will be removed" in text
    )
    listed = ForgetList.read(repository.forget_list)
    assert np.flatnonzero(listed.stored_rows(held)).tolist() == [2]
    again = write(tmp_path / "again", [1], ["copy of row 2"])
    assert listed.stored_rows(again).tolist() == [True]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ([], errors.NothingToForgetError, "there are no examples to forget"),
        (["--where", "aeg < 3"], errors.UnknownFieldError, "did you mean 'age'"),
        (["--where", "id == 3"], errors.InvalidPredicateError, "use --ids instead"),
        (["--where", "age == 'x'"], errors.InvalidPredicateError, "age has numbers"),
        (["--where", "age ="], errors.InvalidPredicateError, "not valid syntax"),
        (["--where", "age == '\udcff'"], errors.InvalidPredicateError, "not valid syntax"),
        (["--ids", "."], errors.InvalidIdFileError, "a folder"),
        (["--ids", "/dev/null"], errors.InvalidIdFileError, "not a plain file"),
    ],
)
def test_invalid_forget_request_changes_nothing(repository, arguments, error, problem):
    before = lineage.git(repository, "rev-parse", "HEAD")
    with pytest.raises(error, match=problem):
        forget(*arguments)
    assert lineage.git(repository, "rev-parse", "HEAD") == before
    assert not lineage.git(repository, "status", "--porcelain")


@pytest.mark.parametrize(
    "arguments", [["--erase", "--where", "age < 3"], ["--erase", "--ids", "x"], ["--yes"]]
)
def test_invalid_option_combinations_with_erase_are_refused(repository, arguments):
    """Otherwise the forget request would be ignored silently."""
    done = CliRunner().invoke(main.app, ["forget", *arguments])
    assert done.exit_code == 2 and "--erase" in done.output


def test_earlier_condition_on_a_field_that_no_longer_exists_is_kept_and_ignored(repository):
    ForgetList().with_more(where=["gone == 'x'"]).write(repository.forget_list)
    lineage.git(repository, "add", "-A")
    lineage.git(repository, "commit", "-q", "-m", "an earlier condition")
    assert "1 found among the stored examples" in forget_ids(repository, UUIDS[0])
    assert len(ForgetList.read(repository.forget_list).where) == 1


def test_missing_parent_state_is_refused(repository):
    """In a clone without pulled data no example would match, which would mislead the user."""
    repository.parent.rename(repository.root.parent / "elsewhere")
    with pytest.raises(errors.MissingFileError, match="dvc pull"):
        forget_ids(repository, UUIDS[0])
