"""MLflow's web pages of three updates, in a real browser.

Screenshots are saved in RENATE_STAGES_SCREENSHOTS, by default in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import Browser, browser, chromium
from mlflow import MlflowClient
from published_updates import EXPERIMENT, Published
from servers import mlflow_server

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def address(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("pages"), published.uri) as served:
        yield served


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    pictures = os.environ.get("RENATE_STAGES_SCREENSHOTS") or folder / "screenshots"
    assert PROGRAM is not None
    with browser(PROGRAM, folder, Path(pictures)) as opened:
        print(f"screenshots: {pictures}")
        yield opened


@pytest.fixture(scope="module")
def client(published: Published, mlflow_in_process: None) -> MlflowClient:
    return MlflowClient(published.uri)


@pytest.fixture(scope="module")
def experiment(client: MlflowClient) -> str:
    """Return the experiment's id."""
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return found.experiment_id


@pytest.fixture(scope="module")
def runs(client: MlflowClient, experiment: str) -> dict[str, str]:
    """Return the ids of the experiment's runs by name."""
    return {run.info.run_name or "": run.info.run_id for run in client.search_runs([experiment])}


def test_experiment_page_lists_updates_newest_first_without_trials(page, address, experiment):
    url = f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    shown = page.see(url, "update-1", "update-2", "update-3", name="experiment")
    assert shown.index("update-3") < shown.index("update-2") < shown.index("update-1")
    assert "trial" not in shown.split("Run Name")[-1]


def test_experiment_page_charts_metrics_over_updates(page, address, experiment):
    url = f"{address}/#/experiments/{experiment}/runs?compareRunsMode=CHART"
    url += "&workflowType=machine_learning"
    texts = (
        "accuracy.average",
        "accuracy.backward_transfer",
        "update-3 (accuracy.average)",
        "Step",
    )
    shown = page.see(url, *texts, name="charts")
    ticks = shown[shown.index("accuracy.average") :].partition("Step")[0].split()
    assert {"1", "2", "3"} <= set(ticks)
    assert "epoch" not in shown


def test_run_page_shows_verdict_and_metrics_table(page, address, experiment, runs, published):
    report = published.project(3).report.read_text().splitlines()
    texts = (
        report[2].replace("**", ""),
        "parent's model",
        "accuracy.overall",
        "update.number",
        EXPERIMENT,
    )
    url = f"{address}/#/experiments/{experiment}/runs/{runs['update-3']}"
    page.see(url, "update-3", *texts, name="run")


@pytest.mark.parametrize("picture", ["matrix_accuracy", "holdouts_accuracy"])
def test_run_page_shows_plot_artifacts(page, address, experiment, runs, picture):
    url = f"{address}/#/experiments/{experiment}/runs/{runs['update-3']}/artifacts/plots/{picture}.png"
    page.see(url, f"plots/{picture}.png", "reports", name=f"picture {picture}")


def test_run_page_shows_the_report_artifact(page, address, experiment, runs):
    url = (
        f"{address}/#/experiments/{experiment}/runs/{runs['update-3']}/artifacts/reports/update.md"
    )
    page.see(url, "Lineage", name="report")


def test_compare_page_shows_the_headline_metric_of_all_updates(page, address, experiment, runs):
    ids = quote(json.dumps([runs[f"update-{number}"] for number in (3, 2, 1)]))
    url = f"{address}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}"
    texts = ("Comparing 3 Runs", "update-1", "update-2", "update-3", "accuracy.overall")
    page.see(url, *texts, name="compare")


def test_registered_model_page_shows_champion_and_challenger(page, address):
    url = f"{address}/#/models/{EXPERIMENT}"
    texts = ("Version 1", "Version 2", "Version 3", "@ champion", "@ challenger")
    shown = page.see(url, *texts, "One version for each update", name="model")
    assert shown.index("@ challenger") < shown.index("Version 2") < shown.index("@ champion")


def test_model_version_page_shows_verdict_and_signature(page, address, published):
    verdict = published.project(3).report.read_text().splitlines()[2].replace("**", "")
    url = f"{address}/#/models/{EXPERIMENT}/versions/3"
    page.see(url, verdict, "update-3", "Inputs (1)", "Outputs (1)", name="version")


def test_trials_experiment_page_lists_the_search(page, address, client):
    found = client.get_experiment_by_name(f"{EXPERIMENT}-trials")
    assert found is not None
    url = f"{address}/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
    page.see(url, "tuning of update-2", name="trials")
