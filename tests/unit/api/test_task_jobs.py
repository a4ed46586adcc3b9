"""Updates of every task from Python: figures against NumPy, learners, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from renate_stages import TrainingJobResult, errors, run_training_job

CONFIG = """
import numpy as np
import torch
from renate_stages.data import RenateDataModule
from torch import nn
from torch.utils.data import TensorDataset


class Arrays(RenateDataModule):
    def setup(self):
        found = np.load(self._data_path / "data.npz")
        data = {{name: torch.from_numpy(each) for name, each in found.items()}}
        self._train_data = TensorDataset(data["x"], data["y"])
        self._test_data = TensorDataset(data["xt"], data["yt"])


def data_module_fn(data_path: str, seed: int = 0):
    return Arrays(data_path, seed=seed)


def model_fn(model_state_url: str | None = None):
    model = nn.Linear({inputs}, {outputs})
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model

{more}
"""
VALUES = {"learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "memory_batch_size": 16}
Arrays = dict[str, np.ndarray]


def split(x: np.ndarray, y: np.ndarray, parts: int = 2) -> list[Arrays]:
    """Return the arrays of each update; the last quarter of its rows is for testing."""
    order = np.random.default_rng(0).permutation(len(x))
    found = []
    for rows in np.array_split(order, parts):
        train, test = np.split(rows, [len(rows) * 3 // 4])
        found.append({"x": x[train], "y": y[train], "xt": x[test], "yt": y[test]})
    return found


def tumours() -> list[Arrays]:
    x, y = load_breast_cancer(return_X_y=True)
    return split(((x - x.mean(0)) / x.std(0)).astype(np.float32), y.astype(np.int64))


def digits(change=lambda labels: labels) -> list[Arrays]:
    x, y = load_digits(return_X_y=True)
    return split((x / 16).astype(np.float32)[:400], change(y.astype(np.int64)[:400]))


def diabetes(parts: int = 2) -> list[Arrays]:
    x, y = load_diabetes(return_X_y=True)
    y = ((y - y.mean()) / y.std()).astype(np.float32)
    return split((x / x.std(0)).astype(np.float32), y, parts)


@pytest.fixture
def jobs(tmp_path):
    """Return a function that runs one update for each of some arrays, and returns all results."""

    def run(datas: list[Arrays], outputs: int, more: str = "", **job) -> list[TrainingJobResult]:
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        (folder / "code").mkdir(parents=True)
        config = folder / "code" / "renate_config.py"
        shape = datas[0]["x"].shape[1]
        config.write_text(CONFIG.format(inputs=shape, outputs=outputs, more=more))
        results = []
        for number, arrays in enumerate(datas, 1):
            (folder / f"data-{number}").mkdir()
            np.savez(folder / f"data-{number}" / "data.npz", **arrays)
            settings = {"metric": "accuracy", "max_epochs": 2, "updater": "ER", **job}
            more_values = {"memory_size": 50} if settings["updater"] in REPLAY else {}
            more_values |= {"ewc_weight": 0.1} if settings["updater"] == "EWC" else {}
            settings["config_space"] = {**VALUES, **more_values, **settings.pop("values", {})}
            results.append(
                run_training_job(
                    **settings,
                    config_file=config,
                    data_path=folder / f"data-{number}",
                    input_state_url=folder / f"state-{number - 1}" if number > 1 else None,
                    output_state_url=folder / f"state-{number}",
                    working_directory=folder / "work",
                )
            )
        return results

    return run


REPLAY = ("ER", "DER++", "ER-ACE", "CLS-ER")


def folder_of(result: TrainingJobResult) -> Path:
    assert result.state is not None
    return result.state.folder


def outputs_of(result: TrainingJobResult, x: np.ndarray) -> np.ndarray:
    """Compute a linear model's outputs from the weights on disk."""
    weights = load_file(folder_of(result) / "model.safetensors")
    return x @ weights["weight"].T + weights["bias"]


def difference(one: TrainingJobResult, other: TrainingJobResult) -> float:
    weights = [load_file(folder_of(each) / "model.safetensors") for each in (one, other)]
    return max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in weights[0])


def test_binary_figures_are_those_of_the_logits_sign(jobs):
    datas = tumours()
    result = jobs(datas, 1)[-1]
    rows = [(outputs_of(result, data["xt"])[:, 0] > 0, data["yt"]) for data in datas]
    for number, (predicted, labels) in enumerate(rows, 1):
        expected = sklearn_metrics.accuracy_score(labels, predicted)
        assert result.metrics["accuracy"]["holdout"][str(number)] == pytest.approx(expected)
        assert expected > 0.9
    predicted, labels = (np.concatenate(each) for each in zip(*rows, strict=True))
    expected = sklearn_metrics.accuracy_score(labels, predicted)
    assert result.metrics["accuracy"]["overall"] == pytest.approx(expected)
    for label in (0, 1):
        recall = sklearn_metrics.recall_score(labels, predicted, pos_label=label)
        assert result.metrics["classes"][str(label)] == pytest.approx(recall)
    manifest = json.loads((folder_of(result) / "state.json").read_text())
    assert manifest["task"] == "binary" and manifest["classes"] == [0, 1]


@pytest.mark.parametrize("learner", ["LwF", "EWC", "CLS-ER", "DER++"])
def test_learners_hold_a_model_with_one_logit(jobs, learner):
    datas = tumours()
    held, free = (jobs(datas, 1, updater=each)[-1] for each in (learner, "FineTuning"))
    assert difference(held, free) > 1e-4
    assert held.metrics["accuracy"]["overall"] > 0.9


@pytest.mark.parametrize("learner", ["ER-ACE", "CLS-ER"])
def test_learners_of_class_labels_refuse_several_labels_per_row(jobs, learner):
    datas = digits(lambda y: np.stack([y % 2 == 0, y > 2, y > 6], 1).astype(np.int64))
    with pytest.raises(errors.ClassLabelsNeededError, match="task multilabel"):
        jobs(datas, 3, updater=learner)


def test_multilabel_figures_are_those_of_scikit_learn(jobs):
    datas = digits(lambda y: np.stack([y % 2 == 0, y > 2, y > 6], 1).astype(np.int64))
    held, free = (jobs(datas, 3, updater=each)[-1] for each in ("LwF", "FineTuning"))
    assert difference(held, free) > 1e-4
    for result in (held, free):
        predicted = np.concatenate([outputs_of(result, each["xt"]) > 0 for each in datas])
        labels = np.concatenate([each["yt"] for each in datas])
        overall = {name: result.metrics[name]["overall"] for name in ("accuracy", "exact_match")}
        exact = sklearn_metrics.accuracy_score(labels, predicted)
        single = 1 - sklearn_metrics.hamming_loss(labels, predicted)
        assert overall == pytest.approx({"accuracy": single, "exact_match": exact})
        assert "flips" not in result.metrics and "calibration" not in result.metrics


@pytest.mark.parametrize("updater", ["ER", "LwF", "EWC"])
def test_regression_learns_whether_targets_have_one_or_two_dimensions(jobs, updater):
    settings = {"metric": "mse", "mode": "min", "updater": updater}
    flat = jobs(diabetes(), 1, **settings)[-1]
    square = [{**each, "y": each["y"][:, None], "yt": each["yt"][:, None]} for each in diabetes()]
    assert difference(flat, jobs(square, 1, **settings)[-1]) == 0
    predicted = np.concatenate([outputs_of(flat, each["xt"])[:, 0] for each in diabetes()])
    targets = np.concatenate([each["yt"] for each in diabetes()])
    expected = sklearn_metrics.mean_squared_error(targets, predicted)
    assert flat.metrics["mse"]["overall"] == pytest.approx(expected, rel=1e-5)
    assert flat.metrics["loss"]["overall"] == pytest.approx(expected, rel=1e-5)
    assert expected < 0.8 * targets.var(), "it learnt more than the mean"


def test_r2_on_all_rows_and_the_intervals_equal_scikit_learns(jobs):
    own = "def metrics_fn():\n    import torchmetrics\n    return {'r2': torchmetrics.R2Score()}\n"
    result = jobs(split_by_target(), 1, own, metric="r2")[-1]
    pairs = [(each["yt"], outputs_of(result, each["xt"])[:, 0]) for each in split_by_target()]
    targets, predicted = (np.concatenate(each) for each in zip(*pairs, strict=True))
    r2 = result.metrics["r2"]
    assert r2["overall"] == pytest.approx(sklearn_metrics.r2_score(targets, predicted), abs=1e-5)
    single = [sklearn_metrics.r2_score(*pair) for pair in pairs]
    assert r2["average"] == pytest.approx(np.mean(single), abs=1e-5)
    assert abs(r2["overall"] - np.average(single, weights=[len(y) for y, _ in pairs])) > 0.1
    random, values = np.random.default_rng(0), []
    for _ in range(2000):
        rows = [random.choice(len(each), len(each)) for each, _ in pairs]
        drawn = [(y[each], p[each]) for (y, p), each in zip(pairs, rows, strict=True)]
        values.append(
            sklearn_metrics.r2_score(*(np.concatenate(each) for each in zip(*drawn, strict=True)))
        )
    found, expected = r2["interval"]["overall"], np.quantile(values, [0.025, 0.975])
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=np.ptp(expected) / 4)

    result = jobs(split_by_target(), 1, metric="mse", mode="min")[-1]
    pairs = [(each["yt"], outputs_of(result, each["xt"])[:, 0]) for each in split_by_target()]
    errors = [np.square(y - p) for y, p in pairs]
    random = np.random.default_rng(0)
    means = [
        np.concatenate([random.choice(each, len(each)) for each in errors]).mean()
        for _ in range(2000)
    ]
    found = result.metrics["mse"]["interval"]["overall"]
    expected = np.quantile(means, [0.025, 0.975])
    assert [found["low"], found["high"]] == pytest.approx(expected, rel=0.05)


def test_job_takes_the_blocks_of_params_and_returns_the_model(jobs):
    own = """
def data_module_fn(data_path: str, seed: int = 0, first: int = 0, memory_size: int = 0):
    assert (seed, first, memory_size) == (3, 7, 50)
    return Arrays(data_path, seed=seed)
"""
    first, second = digits()
    results = jobs(
        [first, second],
        10,
        own,
        seed=3,
        data={"validation_fraction": 0.2, "arguments": {"first": 7}},
        evaluation={"batch_size": 7, "reference": {1: 0.5}},
        retention={"holdout_rows": 20},
        shift={"tests": ["ks"]},
    )
    result = results[-1]
    rows = len(second["x"])
    assert result.data["val"]["rows"] == round(0.2 * rows) and "shift" in result.data
    assert "shift" not in results[0].data
    assert result.state.split("holdouts")[1].offsets[-1] == 20
    assert "intransigence" in result.metrics["accuracy"]
    x = first["xt"]
    outputs = result.model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(outputs, outputs_of(result, x), rtol=1e-5, atol=1e-5)
    assert not result.model.training


def split_by_target() -> list[Arrays]:
    """Return two updates of which the first has the smaller targets."""
    (whole,) = diabetes(parts=1)
    x, y = (np.concatenate([whole[a], whole[b]]) for a, b in (("x", "xt"), ("y", "yt")))
    small = y < np.median(y)
    return [split(x[rows], y[rows], parts=1)[0] for rows in (small, ~small)]


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_squared_error_that_broadcasts_is_refused_before_training(jobs, tmp_path):
    own = 'def loss_fn():\n    return nn.MSELoss(reduction="none")\n'
    with pytest.raises(errors.LossReductionError, match=r"outputs \(B, 1\) and targets \(B,\)"):
        jobs(diabetes(), 1, own, metric="loss", mode="min")
    assert not list(tmp_path.glob("job-*/state-1"))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize(
    "own", ["", 'def loss_fn():\n    return nn.CrossEntropyLoss(reduction="none")\n']
)
def test_labels_of_any_integer_type_give_the_same_model(jobs, dtype, own):
    wide, narrow = (
        jobs(digits(lambda y, d=d: y.astype(d))[:1], 10, own) for d in (np.int64, dtype)
    )
    assert difference(wide[-1], narrow[-1]) == 0


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            lambda y: y + 10,
            errors.TargetsError,
            r"the target 1\d in row 0 of holdout 1; targets must be",
        ),
        (lambda y: y - 1, errors.TargetsError, r"the target -1 in row \d+ of holdout 1"),
        (lambda y: y[:, None], errors.AmbiguousTaskError, r"int64 of shape \(\d+, 1\)"),
        (lambda y: y.astype(np.float32), errors.AmbiguousTaskError, "float32"),
    ],
    ids=["from 10 on", "from -1 on", "(B, 1)", "floats"],
)
def test_wrong_labels_are_refused_before_training(jobs, tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        jobs(digits(change), 10)
    assert not list(tmp_path.glob("job-*/state-1"))


def test_ignored_rows_count_neither_as_right_nor_as_wrong(jobs):
    (data,) = digits()[:1]
    for name in ("y", "yt"):
        data[name] = np.where(np.arange(len(data[name])) % 3 == 0, -100, data[name])
    (result,) = jobs([data], 10)
    counted = data["yt"] != -100
    predicted = outputs_of(result, data["xt"]).argmax(1)
    expected = sklearn_metrics.accuracy_score(data["yt"][counted], predicted[counted])
    assert result.metrics["accuracy"]["overall"] == pytest.approx(expected)
    assert result.metrics["classes"].keys() == {
        str(each) for each in np.unique(data["yt"][counted])
    }


def test_task_of_the_parents_state_is_kept_and_another_is_refused(jobs, tmp_path):
    datas = tumours()
    (first,) = jobs(datas[:1], 1)
    with pytest.raises(errors.ChangedTaskError, match="was made for binary"):
        run_training_job(
            VALUES,
            task="regression",
            config_file=next(tmp_path.glob("job-*/code/renate_config.py")),
            data_path=next(tmp_path.glob("job-*/data-1")),
            input_state_url=folder_of(first),
            updater="FineTuning",
            metric="loss",
            mode="min",
        )


def test_task_may_be_named_and_unknown_names_are_refused_before_reading_data(jobs):
    (named,) = jobs(tumours()[:1], 1, task="renate_stages.tasks.binary:Binary")
    (found,) = jobs(tumours()[:1], 1)
    assert difference(named, found) == 0
    with pytest.raises(errors.InvalidParamsError, match="did you mean 'binary'"):
        jobs(tumours(), 1, task="binry")


def test_rows_of_an_earlier_holdout_do_not_train(jobs, capsys):
    first, second = digits()
    leaked = {
        "x": np.concatenate([second["x"], first["xt"]]),
        "y": np.concatenate([second["y"], first["yt"]]),
        "xt": second["xt"],
        "yt": second["yt"],
    }
    (_, found) = jobs([first, leaked], 10, updater="Joint")
    number = len(first["xt"])
    assert f"{number} left out because they are in earlier holdouts" in capsys.readouterr().out
    assert found.state is not None
    kept = found.state.memory().column("inputs")  # Joint keeps every training row
    held = {row.tobytes() for row in first["xt"]}
    assert len(kept) > 200 and not any(row.tobytes() in held for row in kept)


def test_model_with_batch_norm_trains_on_rows_that_leave_one_over(jobs):
    own = """
def model_fn(model_state_url: str | None = None):
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model
"""
    first, _ = digits()
    first = {**first, "x": first["x"][:72], "y": first["y"][:72]}  # 65 after validation: 2 x 32 + 1
    (result,) = jobs([first], 10, own, updater="DER++", max_epochs=1)
    assert result.metrics["training"]["steps"] == 3


@pytest.mark.parametrize("updater", ["FineTuning", "EWC"])
def test_training_that_diverges_is_an_error_with_advice(jobs, tmp_path, updater):
    settings = {"metric": "mse", "mode": "min", "updater": updater}
    values = {"learning_rate": 0.9} if updater == "FineTuning" else {"ewc_weight": 300.0}
    advice = r"rose from [\d.]+ to [\d.e+]+ in training(.|\n)*config_space.learning_rate"
    with pytest.raises(errors.DivergedError, match=advice):
        jobs(diabetes(), 1, values=values, **settings)
    assert not list(tmp_path.glob("job-*/state-2"))


def test_update_of_nothing_but_holdout_rows_is_refused(jobs):
    first, second = digits()
    with pytest.raises(errors.AllHeldOutError, match=f"all {len(first['xt'])} training rows"):
        jobs([first, {**second, "x": first["xt"], "y": first["yt"]}], 10)


@pytest.mark.parametrize("updater", ["ER", "FineTuning"])
def test_data_of_another_shape_than_memory_or_validation_is_refused(jobs, updater):
    first, second = tumours()
    changed = {**second, "y": second["y"][:, None], "yt": second["yt"][:, None]}
    with pytest.raises(errors.ExampleMismatchError, match=r"the new data, targets: found .*\(1,\)"):
        jobs([first, changed], 1, updater=updater)


def test_wrong_target_of_the_new_data_is_located(jobs):
    first, second = tumours()
    second["y"][7] = 5  # a random tenth of these rows becomes validation data
    places = "the training data|the validation data of update 2"
    with pytest.raises(errors.TargetsError, match=rf"the target 5 in row \d+ of ({places})"):
        jobs([first, second], 1)


@pytest.mark.parametrize("task", ["ranking", "ranking_pairwise"])
@pytest.mark.parametrize("learner", ["ER", "LwF", "EWC", "DER++"])
def test_ranking_figures_are_those_of_scikit_learn(jobs, task, learner):
    x, y = load_digits(return_X_y=True)
    relevance = 3 * (y[:300, None] == np.arange(10)) + (y[:300, None] % 3 == np.arange(10) % 3)
    datas = split((x[:300] / 16).astype(np.float32), relevance.astype(np.int64))
    result = jobs(datas, 10, task=task, metric="ndcg", updater=learner)[-1]
    scores = [outputs_of(result, data["xt"]) for data in datas]
    expected = sklearn_metrics.ndcg_score(
        np.concatenate([data["yt"] for data in datas]), np.concatenate(scores)
    )
    assert result.metrics["ndcg"]["overall"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.6
