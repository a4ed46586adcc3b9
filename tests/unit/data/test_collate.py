"""Collate functions of data modules: applied to single items if they pad, otherwise refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from renate_stages import errors, run_training_job
from renate_stages.compat.renate.data.data_module import RenateDataModule
from renate_stages.data.collate import Collated, collated, padded_fields
from renate_stages.scenarios import IIDScenario

LENGTHS = (3, 5, 2, 5, 4)


def items(targets: str = "label") -> list:
    ids = [list(range(1, n + 1)) for n in LENGTHS]
    found = [({"ids": each, "mask": [1] * len(each)}, n % 2) for n, each in enumerate(ids)]
    return [(inputs, inputs["ids"]) for inputs, _ in found] if targets == "tokens" else found


def pads(batch, value: int = 0, ignored: int = -100):
    def padded(rows, filling):
        return pad_sequence([torch.tensor(row) for row in rows], True, filling)

    inputs = {name: padded([each[name] for each, _ in batch], value) for name in ("ids", "mask")}
    targets = [target for _, target in batch]
    whole = torch.tensor(targets) if isinstance(targets[0], int) else padded(targets, ignored)
    return inputs, whole


class Module(RenateDataModule):
    def setup(self) -> None: ...


def with_collate(function) -> Module:
    module = Module("nowhere")
    module._train_collate_fn = function
    return module


def test_padding_collate_is_applied_to_each_item():
    (train, val, test), padded = collated(with_collate(pads), (items(), items(), None), [])
    assert isinstance(train, Collated) and val == items() and test is None
    assert sorted(padded) == ["inputs.ids", "inputs.mask"]
    inputs, target = train[1]
    assert inputs["ids"].tolist() == [1, 2, 3, 4, 5] and target.tolist() == 1
    assert [len(train[n][0]["ids"]) for n in range(len(train))] == list(LENGTHS)


def test_collate_of_a_data_module_in_a_scenario_is_applied():
    module = with_collate(pads)
    module._train_data = module._test_data = items()  # pyright: ignore[reportAttributeAccessIssue]
    scenario = IIDScenario(module, num_tasks=2, chunk_id=0)
    scenario.setup()
    assert scenario.val_collate_fn() is None
    parts = (scenario.train_data(), None, scenario.test_data())
    (train, _, _), padded = collated(scenario, parts, [])
    assert isinstance(train, Collated) and sorted(padded) == ["inputs.ids", "inputs.mask"]


def test_padded_targets_are_padded_with_the_ignored_label():
    fields = padded_fields(items("tokens"), pads, "train_collate_fn")
    assert sorted(fields) == ["inputs.ids", "inputs.mask", "targets"]
    with pytest.raises(errors.DataModuleError, match="looking at targets"):
        padded_fields(items("tokens"), lambda batch: pads(batch, ignored=0), "train_collate_fn")


def test_collate_that_only_stacks_pads_nothing():
    rows = [(torch.full((2, 2), float(n)), n) for n in range(4)]
    assert padded_fields(rows, default_collate, "train_collate_fn") == ()
    assert Collated(rows, default_collate, "train_collate_fn")[2][0].tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("collate", "problem"),
    [
        (lambda batch: pads(batch, value=7), "pads with another value"),
        (lambda batch: (pads(batch)[0], pads(batch)[1].roll(1)), "changes items in another way"),
        (lambda batch: pads(batch)[0], "expected \\(inputs, targets\\)"),
        (lambda batch: (pads(batch)[0], torch.zeros(())), "does not have one row for each item"),
    ],
)
def test_collate_that_does_anything_else_is_refused_by_name(collate, problem):
    with pytest.raises(errors.DataModuleError, match=f"train_collate_fn [\\s\\S]*{problem}"):
        collated(with_collate(collate), (items(), None, None), [])


def test_collate_with_transforms_is_refused():
    with pytest.raises(errors.DataModuleError, match="applied before train_transform"):
        collated(with_collate(pads), (items(), None, None), ["train_transform", "model_fn"])


CONFIG = """
import torch
from torch.nn.utils.rnn import pad_sequence
from renate_stages.compat.renate.data.data_module import RenateDataModule
from torch import nn


class Texts(torch.utils.data.Dataset):
    def __init__(self, first):
        self.first = first

    def __len__(self):
        return 40

    def __getitem__(self, index):
        length = 2 + (index * 7 + self.first) % 5
        return {"ids": [1 + index % 2] * length}, index % 2


def padding(batch):
    ids = pad_sequence([torch.tensor(x["ids"]) for x, _ in batch], batch_first=True)
    return {"ids": ids}, torch.tensor([y for _, y in batch])


class Module(RenateDataModule):
    def setup(self):
        self._train_data, self._test_data = Texts(0), Texts(3)
        self._train_collate_fn = self._test_collate_fn = padding


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 4, padding_idx=0)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.table(ids).sum(1))


def data_module_fn(data_path):
    return Module(data_path)


def model_fn(model_state_url=None):
    from renate_stages.models import RenateWrapper

    model = RenateWrapper(Bag())
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model
"""


def test_update_with_a_padding_collate_stores_unpadded_examples(tmp_path):
    (tmp_path / "renate_config.py").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "any").write_text("1")
    done = run_training_job(
        {"memory_size": 10, "batch_size": 8},
        max_epochs=2,
        config_file=tmp_path / "renate_config.py",
        data_path=tmp_path / "data",
        output_state_url=tmp_path / "state",
        working_directory=tmp_path / "work",
    )
    assert done.state is not None
    lengths = done.state.memory().column("inputs.ids").lengths
    assert len(lengths) == 10 and len(np.unique(lengths)) > 1 and lengths.max() <= 6
