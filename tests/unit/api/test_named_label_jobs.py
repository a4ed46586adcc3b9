"""Labels with names: numbers, a head that grows, and all outputs that speak of labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits

from renate_stages import TrainingJobResult, errors, load_model, run_training_job
from renate_stages.state import State
from renate_stages.training.updater import Updater

CONFIG = """
import numpy as np
import torch
from renate_stages.data import RenateDataModule
from renate_stages.models import MLP
from torch import nn
from torch.utils.data import Dataset


class Words(Dataset):
    def __init__(self, rows, names):
        self.rows, self.names = torch.from_numpy(rows), names

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index], self.names[index]


class Data(RenateDataModule):
    def setup(self):
        found = np.load(self._data_path / "data.npz")
        self._train_data = Words(found["x"], found["y"])
        self._test_data = Words(found["xt"], found["yt"])


def data_module_fn(data_path: str, seed: int = 0):
    return Data(data_path, seed=seed)


"""
LIBRARY = """
def model_fn(model_state_url: str | None = None):
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(num_inputs=64, num_outputs=2, hidden_size=16, num_hidden_layers=1)
"""
PLAIN = """
def model_fn(model_state_url: str | None = None):
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url, weights_only=True))
    return model
"""
WRAPPED = """
from renate_stages.models import RenateWrapper


def model_fn(model_state_url: str | None = None):
    model = RenateWrapper(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2)))
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url, weights_only=True))
    return model
"""
SHORT = """
def model_fn():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
"""
MODELS = {"library": LIBRARY, "plain": PLAIN, "wrapped": WRAPPED, "short": SHORT}
VALUES = {"learning_rate": 0.1, "momentum": 0.9, "batch_size": 32}
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
Arrays = dict[str, np.ndarray]


def words(*digits: int, part: int = 0) -> Arrays:
    """Return images of some digits with their names; a quarter is for testing. Parts are disjoint."""
    x, y = load_digits(return_X_y=True)
    is_part = np.arange(len(y)) % 3 == part
    rows = np.flatnonzero(np.isin(y, digits) & is_part)[: 40 * len(digits)]
    train, test = np.split(rows, [len(rows) * 3 // 4])
    x = (x / 16).astype(np.float32)
    return {"x": x[train], "y": NAMES[y[train]], "xt": x[test], "yt": NAMES[y[test]]}


UPDATES = [words(1, 0), words(1, 3, 2, part=1), words(4, 0, 5, part=2)]  # the head grows twice


@pytest.fixture
def jobs(tmp_path):
    """Return a function that runs an update for each of some arrays, and returns all results."""

    def run(
        datas: list[Arrays], model: str = LIBRARY, learner: str = "ER", **job
    ) -> list[TrainingJobResult]:
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        (folder / "code").mkdir(parents=True)
        config = folder / "code" / "renate_config.py"
        config.write_text(CONFIG + model)
        results: list[TrainingJobResult] = []
        for number, arrays in enumerate(datas, 1):
            (folder / f"data-{number}").mkdir()
            np.savez(folder / f"data-{number}" / "data.npz", **arrays)
            given = {"metric": "accuracy", "max_epochs": 3, "updater": learner, **job}
            space = {**VALUES, **given.pop("values", {})}
            if number > 1:
                given["input_state_url"] = folder / f"state-{number - 1}"
            results.append(
                run_training_job(
                    **given,
                    config_space=space,
                    config_file=config,
                    data_path=folder / f"data-{number}",
                    output_state_url=folder / f"state-{number}",
                    working_directory=folder / "work",
                )
            )
        return results

    return run


def state_of(result: TrainingJobResult) -> State:
    assert result.state is not None
    return result.state


def head_of(result: TrainingJobResult) -> np.ndarray:
    weights = load_file(state_of(result).folder / "model.safetensors")
    return next(value for name, value in weights.items() if name in ("head.weight", "2.weight"))


@pytest.mark.parametrize("kind", MODELS)
def test_head_grows_twice_and_old_rows_keep_their_bits(jobs, monkeypatch, kind):
    grown: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
    make_room = Updater.make_room
    inputs = torch.from_numpy(UPDATES[0]["x"])

    def recorded(self, model, examples, parent=None):
        def values() -> list[torch.Tensor]:
            with torch.no_grad():
                return [each.clone() for each in (model.eval()(inputs), *model.parameters())]

        before = values()
        make_room(self, model, examples, parent)
        if parent is not None and parent.has_model:
            grown.append((before, values()))

    monkeypatch.setattr(Updater, "make_room", recorded)
    results = jobs(UPDATES, MODELS[kind], values={"memory_size": 60})
    names = [state_of(each).provenance.labels for each in results]
    assert [set(each) for each in names] == [
        {"zero", "one"},
        {"zero", "one", "two", "three"},
        {"zero", "one", "two", "three", "four", "five"},
    ]
    assert names[1][:2] == names[0] and names[2][:4] == names[1]  # numbers never change
    assert [len(head_of(each)) for each in results] == [2, 4, 6]
    sizes = {(before[0].shape[1], after[0].shape[1]) for before, after in grown}
    assert sizes >= {(2, 4), (4, 6)}
    for (logits, *weights), (logits_after, *weights_after) in grown:
        for old, now in zip(weights, weights_after, strict=True):
            assert torch.equal(now[: len(old)], old)
        # Equal up to rounding: a wider product may be computed by another kernel.
        torch.testing.assert_close(logits_after[:, : logits.shape[1]], logits, rtol=1e-5, atol=1e-6)


def test_figures_by_name_equal_those_of_scikit_learn(jobs):
    result = jobs(UPDATES, values={"memory_size": 60})[-1]
    names = state_of(result).provenance.labels
    x, y = (np.concatenate([each[part] for each in UPDATES]) for part in ("xt", "yt"))
    with torch.no_grad():
        predicted = np.array(names)[result.model(torch.from_numpy(x)).argmax(1).numpy()]
    assert result.metrics["accuracy"]["overall"] == pytest.approx(
        sklearn_metrics.accuracy_score(y, predicted)
    )
    recall = sklearn_metrics.recall_score(y, predicted, average=None, labels=sorted({*y}))
    expected = dict(zip(sorted({*y.tolist()}), recall, strict=True))
    assert result.metrics["classes"] == pytest.approx(expected)
    counts = result.data["train"]["classes"], result.data["val"]["classes"]
    trained = {name: sum(each.get(name, 0) for each in counts) for name in {*counts[0], *counts[1]}}
    found = np.unique(UPDATES[-1]["y"], return_counts=True)
    assert trained == dict(zip(*(each.tolist() for each in found), strict=True))


def test_parents_model_is_measured_as_it_was(jobs):
    """The model before growth knows no new label: its accuracy on old holdouts is the parent's."""
    first, second = jobs(UPDATES[:2], values={"memory_size": 60})
    after = state_of(first).evaluations().matrix("accuracy")[1][1]
    known = state_of(second).evaluations()
    before = known.examined(2, "before")
    assert before[1].metrics["accuracy"] == after
    assert before[1].metrics["loss"] == pytest.approx(
        state_of(first).evaluations().matrix("loss")[1][1], rel=1e-6
    )
    names = state_of(first).provenance.labels
    with torch.no_grad():
        guessed = first.model(torch.from_numpy(UPDATES[1]["xt"])).argmax(1).numpy()
    share = float((np.array(names)[guessed] == UPDATES[1]["yt"]).mean())
    assert before[2].metrics["accuracy"] == pytest.approx(share)


BAD = {
    "empty": ("", "the label ''"),
    "space at the end": ("one ", "without spaces at its ends"),
    "two lines": ("a\nb", "1 to 200 printable characters"),
    "long": ("x" * 201, "1 to 200 printable characters"),
}


@pytest.mark.parametrize("kind", BAD)
def test_unusable_name_is_refused(jobs, kind):
    name, message = BAD[kind]
    arrays = {**UPDATES[0], "y": UPDATES[0]["y"].astype("U300")}
    arrays["y"][3] = name
    with pytest.raises(errors.LabelNameError, match=message):
        jobs([arrays])


def numbered(arrays: Arrays) -> Arrays:
    number = {name: place for place, name in enumerate(NAMES)}
    change = np.vectorize(number.__getitem__, otypes=[np.int64])
    return {**arrays, "y": change(arrays["y"]), "yt": change(arrays["yt"])}


def test_numbers_after_names_are_refused_unless_the_order_is_declared(jobs):
    datas = [words(0, 1), numbered(words(0, 1))]
    with pytest.raises(errors.NamesNeededError, match="labels have names: 'zero', 'one'"):
        jobs(datas)
    declared = {"labels": {"order": ["zero", "one"]}}
    result = jobs(datas, data=declared)[-1]
    assert state_of(result).provenance.labels == ("zero", "one")
    assert set(result.metrics["classes"]) == {"zero", "one"}


def test_split_with_ignored_labels_alone_needs_no_names(jobs):
    ignored = {**words(0, 1), "yt": np.full(len(words(0, 1)["yt"]), -100)}
    with pytest.raises(errors.EmptyHoldoutError, match="only examples with ignored targets"):
        jobs([words(0, 1), ignored])


def test_names_after_numbers_are_refused_unless_the_order_is_declared(jobs):
    datas = [numbered(words(0, 1)), words(0, 1)]
    with pytest.raises(errors.UnnamedLabelsError, match="numbered labels without names"):
        jobs(datas)
    result = jobs(datas, data={"labels": {"order": ["zero", "one"]}})[-1]
    assert state_of(result).provenance.labels == ("zero", "one")


def test_longer_order_lets_a_model_with_numbered_labels_grow(jobs):
    result = jobs([numbered(words(0, 1, 2, 3))], data={"labels": {"order": NAMES[:4].tolist()}})[-1]
    assert len(head_of(result)) == 4
    assert set(result.metrics["classes"]) == set(NAMES[:4])
    with pytest.raises(errors.TargetsError, match="integers"):
        jobs([numbered(words(0, 1, 2, 3))])  # the model has two outputs


def test_number_among_names_is_refused_with_its_row(jobs):
    code = (
        LIBRARY
        + """

class Mixed(Words):
    def __getitem__(self, index):
        inputs, name = super().__getitem__(index)
        return inputs, {3: IGNORED, 5: NUMBER}.get(index, name)


Words.__new__ = lambda cls, *_: object.__new__(Mixed)
Words = Mixed
"""
    )
    ignored = code.replace("IGNORED", "-100").replace("5: NUMBER", "5: -100")
    whole = {"validation_fraction": 0}
    result = jobs([words(0, 1)], ignored, data=whole)[-1]
    assert result.data["train"]["classes"]["-100"] == 2
    with pytest.raises(errors.ItemMismatchError, match="item 5: its label is a number"):
        mixed = code.replace("IGNORED", "-100").replace("NUMBER", "1")
        jobs([words(0, 1)], mixed, data=whole)


def test_names_can_be_renamed_and_new_ones_merged(jobs):
    labels = {"rename": {"zero": "nought", "two": "one"}}
    results = jobs([words(0, 1), words(0, 1, 2)], data={"labels": labels})
    assert state_of(results[-1]).provenance.labels == ("nought", "one")
    assert len(head_of(results[-1])) == 2  # no new label


def test_label_of_an_earlier_update_can_be_renamed(jobs):
    first, second = [words(0, 1)], [words(0, 1), words(0, 1)]
    assert state_of(jobs(first)[-1]).provenance.labels == ("zero", "one")
    results = jobs(second, data={"labels": {"rename": {"one": "unity"}}})
    assert state_of(results[-1]).provenance.labels == ("zero", "unity")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"rename": {"one": "zero"}}, errors.MergedLabelsError, "'zero' and 'one' would both be"),
        ({"order": ["one", "zero"]}, errors.LabelOrderError, "the order of outputs never changes"),
    ],
    ids=["merge", "order"],
)
def test_change_that_stored_examples_contradict_is_refused(jobs, tmp_path, labels, error, message):
    (first,) = jobs([words(0, 1)])
    code = next(tmp_path.glob("job-*/code/renate_config.py"))
    with pytest.raises(error, match=message):
        run_training_job(
            metric="accuracy",
            config_space=VALUES,
            config_file=code,
            data_path=code.parents[1] / "data-1",
            input_state_url=state_of(first).folder,
            working_directory=tmp_path / "work",
            data={"labels": labels},
        )


def test_names_for_a_task_without_labels_are_refused(jobs):
    with pytest.raises(errors.NamedTargetsError, match="task regression are numbers"):
        jobs([words(0, 1)], task="regression", metric="mse", mode="min")
    with pytest.raises(errors.InvalidParamsError, match=r"data\.labels\.order"):
        jobs([numbered(words(0, 1))], task="multilabel", data={"labels": {"order": ["a"]}})


ONE_LOGIT = SHORT.replace("nn.Linear(16, 2)", "nn.Linear(16, 1)")


def test_binary_names_need_a_declared_order(jobs):
    with pytest.raises(errors.PositiveLabelError, match="label 1 last"):
        jobs([words(0, 1)], ONE_LOGIT)
    labels = {"order": ["one", "zero"]}
    (result,) = jobs([words(0, 1)], ONE_LOGIT, data={"labels": labels}, max_epochs=20)
    assert result.model is not None
    with torch.no_grad():
        is_zero = (result.model(torch.from_numpy(UPDATES[0]["xt"]))[:, 0] > 0).numpy()
    accuracy = float((is_zero == (UPDATES[0]["yt"] == "zero")).mean())
    assert result.metrics["accuracy"]["overall"] == pytest.approx(accuracy) and accuracy > 0.9


def test_model_that_cannot_grow_is_refused_before_training(jobs):
    fixed = SHORT.replace("nn.Linear(16, 2))", "nn.Linear(16, 2), nn.Softmax(1))")
    assert jobs([words(0, 1)], fixed)[-1].metrics  # it does not have to
    with pytest.raises(errors.OutputLayerError, match=r"has 2 outputs, but the data has 4 labels"):
        jobs(UPDATES[:2], fixed)


TAGS = """
class Tags(Words):
    def __getitem__(self, index):
        inputs, name = super().__getitem__(index)
        return inputs.reshape(8, 8), [name, "pad", *[-100] * 6]


Words.__new__ = lambda cls, *_: object.__new__(Tags)
Words = Tags


def model_fn():
    return nn.Linear(8, 2)
"""


@pytest.mark.parametrize("learner", ["LwF", "DER++"])
def test_tags_of_positions_grow_the_model(jobs, learner):
    results = jobs([words(0), words(1)], TAGS, learner, task="tokens")
    assert state_of(results[0]).provenance.labels == ("zero", "pad")
    assert state_of(results[1]).provenance.labels == ("zero", "pad", "one")
    weights = load_file(state_of(results[1]).folder / "model.safetensors")
    assert weights["weight"].shape == (3, 8)


LEARNERS = [
    "DER++",
    "EWC",
    "CLS-ER",
    "iCaRL",
    "RanPAC",
    "WiSE-FT",
    "LwF",
    "ER-ACE",
    "GDumb",
    "RD",
    "MAS",
    "SI",
    "L2-SP",
    "L2-Init",
    "POD-ER",
    "Super-ER",
    "WA",
    "BiC",
    "LUCIR",
    "PODNet",
    "LatentReplay",
    "SCR",
    "A-GEM",
    "MIR",
    "ASER",
    "GSS",
]


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_kind_of_learner_follows_the_growing_head(jobs, learner, capsys):
    own = {"EWC": {"ewc_weight": 1.0}, "RanPAC": {"num_random_features": 50}}
    values = own.get(learner, {})
    results = jobs(UPDATES, LIBRARY, learner, max_epochs=2, values=values)
    weights = load_file(state_of(results[-1]).folder / "model.safetensors")
    rows = {len(each) for name, each in weights.items() if name.startswith("head.")}
    assert 6 in rows and 2 not in rows
    assert "anew" not in capsys.readouterr().out  # no state is lost


def test_importance_of_old_weights_survives_growth(jobs, monkeypatch):
    from renate_stages.learners.ewc import EWC, QuadraticPenalty

    at_start: list[dict[str, torch.Tensor]] = []
    start_update = EWC.start_update

    def recorded(self, *arguments):
        start_update(self, *arguments)
        (penalty,) = self.parts
        assert isinstance(penalty, QuadraticPenalty)
        at_start.append({name: each.clone() for name, each in penalty.named_buffers()})

    monkeypatch.setattr(EWC, "start_update", recorded)
    results = jobs(UPDATES[:2], LIBRARY, "EWC", values={"ewc_weight": 1.0})
    left = load_file(state_of(results[0]).folder / "learner.safetensors")
    for name in ("fisher/head/weight", "anchor/head/weight"):
        old = left[f"QuadraticPenalty.{name}"]
        now = at_start[-1][name].numpy()
        assert now.shape[0] == 4 and np.array_equal(now[:2], old)
    assert not at_start[-1]["fisher/head/weight"][2:].any()


def test_exported_model_lists_the_names_of_its_columns(tmp_path, jobs, warm_jobs):
    jobs(UPDATES[:1], export_path=str(tmp_path / "export"))
    labels = json.loads((tmp_path / "export" / "labels.json").read_text())
    names, task = labels["names"], "classification"
    assert labels == {"classes": [0, 1], "columns": 2, "names": names, "task": task}
    assert set(labels["names"]) == {"zero", "one"}
    card = (tmp_path / "export" / "MODEL_CARD.md").read_text()
    assert f"0 ({labels['names'][0]}), 1 ({labels['names'][1]})" in card


@pytest.mark.parametrize("kind", MODELS)
def test_exported_and_stored_models_load_with_all_outputs(tmp_path, jobs, kind):
    first, second = jobs(UPDATES[:2], MODELS[kind])
    code = next(tmp_path.glob("job-*/code/renate_config.py"))
    inputs = torch.from_numpy(UPDATES[1]["xt"])
    for result, outputs in ((first, 2), (second, 4)):
        assert result.model is not None
        loaded = load_model(state_of(result).folder, code)
        with torch.no_grad():
            logits = loaded(inputs)
            assert torch.equal(logits, result.model(inputs)) and logits.shape[1] == outputs


@pytest.mark.parametrize("kind", ["library", "wrapped"])
def test_model_fn_loads_the_checkpoint_of_a_state(tmp_path, jobs, kind):
    """As with Renate: `model_fn(path)` of `model.ckpt`, also after the model has grown."""
    result = jobs(UPDATES[:2], MODELS[kind])[-1]
    code = next(tmp_path.glob("job-*/code/renate_config.py"))
    content: dict = {}
    exec(compile(code.read_text(), str(code), "exec"), content)  # noqa: S102 -- our own code
    model = content["model_fn"](str(state_of(result).folder / "model.ckpt")).eval()
    inputs = torch.from_numpy(UPDATES[1]["xt"])
    assert result.model is not None
    with torch.no_grad():
        assert torch.equal(model(inputs), result.model(inputs))


def test_interpolation_with_the_parent_covers_the_rows_of_old_labels(jobs):
    """WiSE-FT with coefficient 0 keeps the parent's rows; new labels have no parent."""
    first, second = jobs(UPDATES[:2], LIBRARY, "WiSE-FT", values={"interpolation": 0.0})
    assert np.array_equal(head_of(second)[:2], head_of(first))
    assert not np.array_equal(head_of(second)[2:], np.zeros((2, 16)))
