"""Pictures beside the report: this update's, or none."""

from __future__ import annotations

import re
import shutil
from urllib.parse import unquote

import pytest
from small_project import edit_params, move_on

from renate_stages.actions import publish
from renate_stages.actions.digits import write_digits
from renate_stages.evaluation import EvaluationHistory
from renate_stages.params import Params
from renate_stages.reporting import pictures
from renate_stages.reporting.plots import draw
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State

STAGES = (prepare, restore_state, tune, train, export)


def quiet(message: str) -> None:
    assert message


def linked(project) -> list[str]:
    """Return what the report links, relative to it."""
    return re.findall(r"\]\((pictures/[^)]*)\)", project.report.read_text())


def shown(project) -> set[str]:
    return {
        path.relative_to(project.report.parent).as_posix()
        for path in project.pictures.rglob("*.png")
    }


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a project after two updates; tests work on copies."""
    return tmp_path_factory.mktemp("two") / "project"


@pytest.fixture
def two(project, kept):
    if not kept.exists():
        for stage in STAGES:
            stage.run(project, quiet)
        (project.root / "first").mkdir()
        for name in ("reports", "plots", "metrics", "export"):
            shutil.copytree(project.root / name, project.root / "first" / name)
        move_on(project)
        write_digits(project.incoming, 2)
        for stage in STAGES:
            stage.run(project, quiet)
        shutil.copytree(project.root, kept)
    else:
        shutil.rmtree(project.root)
        shutil.copytree(kept, project.root)
    return project


def test_the_report_links_each_picture_of_its_update(two):
    assert {unquote(link) for link in linked(two)} == shown(two)
    names = {link.rpartition("/")[2] for link in linked(two)}
    assert {"matrix_accuracy.png", "confusion.png", "memory.png", "shift_features.png"} <= names
    text = two.report.read_text()
    assert "- [shift of features from the parent's examples](pictures/" in text
    assert "![" not in text, "in a pull request, where there are none, it would look broken"


def test_a_report_of_another_update_never_shows_these(two):
    """Git takes the report back, DVC the results; the pictures are neither's."""
    now = shown(two)
    for name in ("reports/update.md",):
        shutil.copyfile(two.root / "first" / name, two.root / name)
    assert linked(two) and not {unquote(link) for link in linked(two)} & now


def test_pictures_of_another_update_are_removed(two):
    assert len(list(two.pictures.iterdir())) == 1
    before = State.open(two.parent).identity
    assert State.open(two.state).identity != before
    assert not {path.name for path in (two.root / "first/reports/pictures").iterdir()} & {
        path.name for path in two.pictures.iterdir()
    }


def test_what_is_drawn_names_the_folder(two):
    state, params = State.open(two.state), Params.load(two.params)
    (folder,) = two.pictures.iterdir()
    assert pictures.folder_name(two, params, state) == folder.name
    for path in (two.feature_shift, two.plots / "memory.csv", two.data_metrics):
        text = path.read_text()
        path.write_text(text + "\n")
        assert pictures.folder_name(two, params, state) != folder.name, path
        path.write_text(text)
    assert pictures.folder_name(two, params, state) == folder.name
    edit_params(two, tuning__metric="loss")
    assert pictures.folder_name(two, Params.load(two.params), state) != folder.name


def test_publish_draws_what_a_fresh_checkout_lacks(two):
    drawn = {path: (two.report.parent / path).read_bytes() for path in shown(two)}
    shutil.rmtree(two.pictures)
    params = Params.load(two.params)
    publish.publish(two, params, quiet)  # tracking is off
    assert {path: (two.report.parent / path).read_bytes() for path in shown(two)} == drawn
    (some, *_) = sorted(shown(two))
    (two.report.parent / some).write_bytes(b"left as it is")
    publish.publish(two, params, quiet)
    assert (two.report.parent / some).read_bytes() == b"left as it is"


def test_a_picture_that_cannot_be_drawn_is_no_reason_to_lose_the_update(two, monkeypatch, capsys):
    def fails(*given, **named):
        raise ValueError("no such\nfont")

    verdict = two.verdict.read_bytes()
    shutil.rmtree(two.export)
    monkeypatch.setattr("renate_stages.reporting.update_pictures._classes", fails)
    export.run(two, quiet)
    warning = "warning: the pictures could not be drawn: ValueError: no such font\n"
    assert capsys.readouterr().err == warning
    assert linked(two) == [] and "publish` draws them" not in two.report.read_text()
    assert two.verdict.read_bytes() == verdict and (two.export / "model.ckpt").is_file()


def test_a_project_of_an_older_release_has_its_pictures_too(two):
    two.feature_shift.unlink()
    edit_params(two, update__number=2)
    export.run(two, quiet)
    assert {unquote(link) for link in linked(two)} == shown(two)
    assert not any("shift_features" in link for link in linked(two))


def test_every_picture_is_told_in_words(two):
    for path in two.pictures.rglob("*.png"):
        assert pictures.caption(path) != path.stem, path.name


def test_links_of_metrics_with_any_name_lead_to_their_picture(tmp_path):
    history = EvaluationHistory().with_update(1, "after", {1: {"top 1/5 (%)": 1.0}}, {1: 4})
    folder = tmp_path / "reports" / "pictures" / "0"
    drawn = draw(folder, history)
    report = tmp_path / "reports" / "update.md"
    for path, line in zip(drawn, pictures.links(drawn, report), strict=True):
        text, link = re.fullmatch(r"- \[(.*)\]\(([^ ()]*)\)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
        assert "top 1/5 (%)" in text
        assert (report.parent / unquote(link)) == path and path.is_file()
