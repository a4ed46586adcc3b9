"""The check of a user's configuration: `make test` of a project."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from small_project import edit_config

from renate_stages import errors
from renate_stages.actions import check
from renate_stages.actions.check import check_user_config, padding_change
from renate_stages.data import StoredDataset, ingest
from renate_stages.data.modules.table import Table
from renate_stages.data.stored import preprocessed
from renate_stages.models import RenateWrapper, TabularMLP

TEXTS = """
import torch
from renate_stages.data import RenateDataModule


class Texts(RenateDataModule):
    ragged_fields = ("inputs.tokens",)

    def setup(self):
        numbers = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, 9, (40,), generator=numbers).tolist()
        items = [({"tokens": [1 + n % 7] * n}, n % 2) for n in lengths]
        self._train_data, self._test_data = items[:30], items[30:]


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(9, 2, mode="sum", padding_idx=0)

    def forward(self, tokens):
        return self.words(tokens)


def model_fn(model_state_url: str | None = None, hidden_size: int = 0):
    model = Words()
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model


def data_module_fn(data_path, seed: int = 0):
    return Texts(data_path, seed=seed)
"""


def test_config_check_accepts_fields_of_varying_length(project):
    project.user_config.write_text(TEXTS)
    checked = check_user_config(project.root, examples=16)
    assert checked.loss_after < checked.loss_before and checked.restored_equals_saved
    assert checked.lacking == {}
    assert checked.padding_change == 0


def test_config_check_finds_a_model_whose_outputs_depend_on_padding(project):
    project.user_config.write_text(TEXTS.replace(", padding_idx=0", ""))
    assert check_user_config(project.root, examples=16).padding_change > 0.01


def test_config_check_reports_a_state_that_cannot_be_written(project):
    edit_config(project, "MLP(", "_locked(")
    with project.user_config.open("a") as config:
        config.write("\n\ndef _locked(**arguments):\n    model = MLP(**arguments)\n")
        config.write("    model.lock = Lock()\n    return model\n")
        config.write("\n\nclass Lock(torch.nn.Module):\n    def get_extra_state(self):\n")
        config.write(
            "        return object()\n    def set_extra_state(self, state):\n        pass\n"
        )
    with pytest.raises(errors.StoredArgumentError, match="the extra state lock"):
        check_user_config(project.root, examples=16)


def test_config_check_says_why_a_program_cannot_be_exported(project):
    edit_config(project, "MLP.from_state_dict", "Branching.from_state_dict")
    edit_config(project, "MLP(", "Branching(")
    with project.user_config.open("a") as config:
        config.write("\n\nclass Branching(MLP):\n    def forward(self, x, task_id=None):\n")
        config.write("        return super().forward(x if x.sum() > 0 else 2 * x, task_id)\n")
    (name,) = check_user_config(project.root, examples=16).lacking
    assert name == "model.pt2"


class Unmasked(torch.nn.Module):
    """Reads padding of a table's text column as if it were words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(9, 2)

    def forward(self, text: tuple, **numbers: torch.Tensor) -> torch.Tensor:
        return self.words(text[0]["input_ids"]).mean(dim=1)


def test_padding_of_a_tables_text_column_is_checked(tmp_path):
    torch.manual_seed(0)
    frame = pd.DataFrame(
        {"note": ["late", "", "the parcel is late"], "age": [1, 2, 3], "y": [0, 1, 2]}
    )
    module = Table(tmp_path, "y", frame=frame, text=["note"], task="regression", min_count=1)
    module.setup()
    store = ingest(module.train_data(), tmp_path / "store", 1, "train")
    module.preprocessing.fit(store)
    dataset = StoredDataset(store, None, preprocessed(module.preprocessing))
    model = TabularMLP(**module.preprocessing.sizes(), num_outputs=2).eval()
    assert padding_change(model, dataset, "0") < 1e-6
    assert padding_change(RenateWrapper(Unmasked()).eval(), dataset, "0") > 0.01


@pytest.mark.parametrize("size", [1, 7, 8, 100])
def test_examples_come_from_all_parts_of_a_dataset_that_is_sorted_by_label(size):
    chosen = check._some([row * 4 // size for row in range(size)], 8)
    assert len(chosen) == min(size, 8)
    assert len({chosen[place] for place in range(len(chosen))}) == min(size, 4)
