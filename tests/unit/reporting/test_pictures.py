"""Pictures of the report, which always belong to the update that the report describes."""

from __future__ import annotations

import re
import shutil
from urllib.parse import unquote

import pytest
from small_project import edit_params, move_on
from small_results import results_of

from renate_stages.actions import publish
from renate_stages.actions.example_data import write_digits
from renate_stages.evaluation import EvaluationHistory
from renate_stages.params import Params
from renate_stages.reporting import pictures
from renate_stages.reporting.plots import draw
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State

STAGES = (prepare, restore_state, tune, train, export)


def quiet(message: str) -> None:
    assert message


def report_links(project) -> list[str]:
    """Return the links to pictures in the report, relative to the report."""
    return re.findall(r"\]\((pictures/[^)]*)\)", project.report.read_text())


def picture_paths(project) -> set[str]:
    return {
        path.relative_to(project.report.parent).as_posix()
        for path in project.pictures.rglob("*.png")
    }


@pytest.fixture(scope="module")
def cached_project(tmp_path_factory):
    """The folder of a project after two updates; tests work on copies."""
    return tmp_path_factory.mktemp("two") / "project"


@pytest.fixture
def two(project, cached_project):
    if not cached_project.exists():
        for stage in STAGES:
            stage.run(project, quiet)
        (project.root / "first").mkdir()
        for name in ("reports", "plots", "metrics", "export"):
            shutil.copytree(project.root / name, project.root / "first" / name)
        move_on(project)
        write_digits(project.incoming, 2)
        for stage in STAGES:
            stage.run(project, quiet)
        shutil.copytree(project.root, cached_project)
    else:
        shutil.rmtree(project.root)
        shutil.copytree(cached_project, project.root)
    return project


def test_report_links_every_picture_of_its_update(two):
    assert {unquote(link) for link in report_links(two)} == picture_paths(two)
    names = {link.rpartition("/")[2] for link in report_links(two)}
    assert {"matrix_accuracy.png", "confusion.png", "memory.png", "shift_features.png"} <= names
    text = two.report.read_text()
    assert "- [shift of features from the parent's examples](pictures/" in text
    assert "![" not in text, "a pull request has no picture files, so an embedded one looks broken"


def test_report_of_an_earlier_update_does_not_link_current_pictures(two):
    """Git restores an earlier report and DVC its results, but neither restores the pictures."""
    now = picture_paths(two)
    for name in ("reports/update.md",):
        shutil.copyfile(two.root / "first" / name, two.root / name)
    assert report_links(two) and not {unquote(link) for link in report_links(two)} & now


def test_pictures_of_the_previous_update_are_removed(two):
    assert len(list(two.pictures.iterdir())) == 1
    before = State.open(two.parent).identity
    assert State.open(two.state).identity != before
    assert not {path.name for path in (two.root / "first/reports/pictures").iterdir()} & {
        path.name for path in two.pictures.iterdir()
    }


def test_name_of_the_picture_folder_depends_on_all_drawn_data(two):
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


def test_publish_draws_pictures_that_a_fresh_checkout_lacks(two):
    drawn = {path: (two.report.parent / path).read_bytes() for path in picture_paths(two)}
    shutil.rmtree(two.pictures)
    params = Params.load(two.params)
    publish.publish(two, params, quiet)  # tracking is off
    assert {path: (two.report.parent / path).read_bytes() for path in picture_paths(two)} == drawn
    (some, *_) = sorted(picture_paths(two))
    (two.report.parent / some).write_bytes(b"left as it is")
    publish.publish(two, params, quiet)
    assert (two.report.parent / some).read_bytes() == b"left as it is"


def test_failed_drawing_gives_a_warning_and_export_completes(two, monkeypatch, capsys):
    def fails(*given, **named):
        raise ValueError("no such\nfont")

    verdict = two.verdict.read_bytes()
    shutil.rmtree(two.export)
    monkeypatch.setattr("renate_stages.reporting.update_pictures._classes", fails)
    export.run(two, quiet)
    warning = "warning: the pictures could not be drawn: ValueError: no such font\n"
    assert capsys.readouterr().err == warning
    assert report_links(two) == [] and "publish` draws them" not in two.report.read_text()
    assert two.verdict.read_bytes() == verdict and (two.export / "model.ckpt").is_file()


def test_export_draws_pictures_without_shift_csv_of_an_older_release(two):
    two.feature_shift.unlink()
    edit_params(two, update__number=2)
    export.run(two, quiet)
    assert {unquote(link) for link in report_links(two)} == picture_paths(two)
    assert not any("shift_features" in link for link in report_links(two))


def test_every_picture_has_a_caption(two):
    for path in two.pictures.rglob("*.png"):
        assert pictures.caption(path) != path.stem, path.name


def test_picture_links_work_for_metric_names_with_special_characters(tmp_path):
    history = EvaluationHistory().with_update(
        1, "after", results_of({1: {"top 1/5 (%)": 1.0}}, {1: 4})
    )
    folder = tmp_path / "reports" / "pictures" / "0"
    drawn = draw(folder, history)
    report = tmp_path / "reports" / "update.md"
    for path, line in zip(drawn, pictures.links(drawn, report), strict=True):
        text, link = re.fullmatch(r"- \[(.*)\]\(([^ ()]*)\)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
        assert "top 1/5 (%)" in text
        assert (report.parent / unquote(link)) == path and path.is_file()
