"""A change of what inputs are encoded with is refused, before examples are mixed."""

from __future__ import annotations

import pytest
from small_project import edit_config, edit_params, move_on, quiet, run

from renate_stages import errors
from renate_stages.actions.example_data import write_digits
from renate_stages.stages import prepare
from renate_stages.state import State

OWN = """    def fingerprint(self):
        return "a b c"

    def setup(self) -> None:"""


@pytest.fixture
def encoded(project):
    """A project with a vocabulary that `prepare` depends on."""
    (project.root / "vocab.txt").write_text("a b c")
    pipeline = project.root / "dvc.yaml"
    text = pipeline.read_text().replace("- forget.yaml\n", "- forget.yaml\n      - vocab.txt\n", 1)
    pipeline.write_text(text)
    edit_params(project, trainer__max_epochs=1)
    listed(project, "[]", "[vocab.txt]")
    return project


def listed(project, old: str, new: str) -> None:
    """Replace `data.fingerprint`, a list in one line."""
    text = project.params.read_text()
    assert f"fingerprint: {old}" in text
    project.params.write_text(text.replace(f"fingerprint: {old}", f"fingerprint: {new}", 1))


def second_update(project) -> None:
    move_on(project)
    write_digits(project.incoming, 2)


def test_changed_file_is_refused_and_can_be_accepted(encoded):
    run(encoded)
    second_update(encoded)
    (encoded.root / "vocab.txt").write_text("b a c")
    with pytest.raises(errors.FingerprintError, match=r"has changed: vocab\.txt") as raised:
        prepare.run(encoded, quiet)
    digest = str(raised.value).rpartition("accepted_fingerprint: ")[2].split()[0]
    edit_params(encoded, data__accepted_fingerprint=digest)
    state = run(encoded)
    (encoded.root / "vocab.txt").write_text("c a b")  # another change is not accepted
    second_update(encoded)
    assert State.open(encoded.parent).provenance.fingerprint == state.provenance.fingerprint
    with pytest.raises(errors.FingerprintError):
        prepare.run(encoded, quiet)


def test_equal_file_is_used_in_all_updates(encoded):
    first = run(encoded).provenance.fingerprint
    second_update(encoded)
    assert run(encoded).provenance.fingerprint == first and set(first) == {"vocab.txt"}


def test_file_that_is_no_longer_listed_is_refused(encoded):
    run(encoded)
    second_update(encoded)
    listed(encoded, "[vocab.txt]", "[]")
    with pytest.raises(errors.FingerprintError, match=r"vocab\.txt \(no longer listed\)"):
        prepare.run(encoded, quiet)


def test_fingerprint_of_the_data_module_is_compared(project):
    edit_config(project, "    def setup(self) -> None:", OWN)
    edit_params(project, trainer__max_epochs=1)
    run(project)
    second_update(project)
    edit_config(project, '"a b c"', '"a c b"')
    with pytest.raises(errors.FingerprintError, match="has changed: data module"):
        prepare.run(project, quiet)


def test_data_module_must_return_text(project):
    edit_config(project, "    def setup(self) -> None:", OWN.replace('"a b c"', "[1, 2]"))
    with pytest.raises(errors.UserResultError, match=r"fingerprint\(\) of the data module"):
        prepare.run(project, quiet)


def test_file_that_the_stage_does_not_depend_on_is_refused(project):
    (project.root / "vocab.txt").write_text("a b c")
    listed(project, "[]", "[vocab.txt]")
    with pytest.raises(errors.UndeclaredUserFileError, match=r"data\.fingerprint lists vocab\.txt"):
        prepare.run(project, quiet)


@pytest.mark.parametrize(
    ("name", "error"),
    [("other.txt", errors.MissingFileError), ("../vocab.txt", errors.InvalidParamsError)],
)
def test_file_that_cannot_be_read_is_refused(encoded, name, error):
    pipeline = encoded.root / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("- vocab.txt", f"- {name}"))
    listed(encoded, "[vocab.txt]", f"[{name}]")
    with pytest.raises(error):
        prepare.run(encoded, quiet)
