"""Run updates in one process or shared by two, and record the batches and results of each.

python shared_updates.py FOLDER NAME,NAME     in each of two processes: results go to FOLDER
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torchmetrics
from small_updates import VALUES, model_fn, state_of, updater, weights, write_examples
from torch import nn

from renate_stages.data import Batch
from renate_stages.data.ranks import joined, ranks, values_of_all_ranks
from renate_stages.data.steps import share
from renate_stages.learners.base import Learner
from renate_stages.learners.base.components import distance_to_kept
from renate_stages.models import MLP, RenateModule
from renate_stages.state import Provenance, State, state
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updated_model import UpdatedModel
from renate_stages.training.updater import Updater

ROWS = 33  # batches of 7 and 6, which two processes share unequally
Results = dict[str, Any]


class BatchNormModel(RenateModule):
    """Linear model with batch norm."""

    def __init__(self) -> None:
        super().__init__({})
        self.features = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x, task_id=None):
        return self.head(self.features(x))


class ConvBatchNormModel(RenateModule):
    """Convolutional model with batch norm whose running statistics are cumulative averages."""

    def __init__(self) -> None:
        super().__init__({})
        self.features = nn.Sequential(
            nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2, momentum=None), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x, task_id=None):
        return self.head(self.features(x[:, None]))


def per_task() -> MLP:
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=4, heads="per_task")
    model.add_task_params("another")
    return model


class SumMetric(torchmetrics.Metric):
    """Metric that sums over all data, so examples that are counted twice change its value."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, outputs, targets):
        self.total += outputs.sum() + targets.sum()

    def compute(self):
        return self.total


def noisy(inputs):
    return inputs + 0.1 * torch.randn(5)


def _with_model(model) -> dict[str, Callable]:
    return {"model_fn": lambda model_state_url=None: _load_weights(model(), model_state_url)}


def _load_weights(model, url):
    if url is not None:
        model.load_state_dict(torch.load(url, weights_only=True))
    return model


def _wide(model_state_url=None):
    """Build a model whose features are never close to 0, where their direction is ill-defined."""
    return _load_weights(MLP(num_inputs=5, num_outputs=3, hidden_size=32), model_state_url)


def weighted_loss():
    """Return a loss that ignores label 1, so that processes have different numbers of rows."""
    weight = torch.tensor([1.0, 1.0, 5.0])
    return torch.nn.CrossEntropyLoss(weight=weight, ignore_index=1, reduction="none")


ADAPTIVE = {"ema_decay": 0.9}
ONLINE = {"memory_update": "online"}
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ER": ("ER", {}, {}),
    "ER separate": ("ER", {"replay_forward": "separate", "memory_batch_size": 1}, {}),
    "one example per step": ("ER", {"batch_size": 1, "memory_batch_size": 1}, {"max_epochs": 1}),
    "memory size 1": ("DER", {"memory_size": 1, **ONLINE}, {}),
    "DER++ online": ("DER++", ONLINE, {}),
    "DER++ joint": ("DER++", {"replay_forward": "joint"}, {}),
    "ER-ACE": ("ER-ACE", {"memory_batch_size": 5}, {}),
    "CLS-ER": ("CLS-ER", {"consistency_weight": 1.0, "stable_probability": 0.5}, {}),
    "POD-ER": ("POD-ER", {"memory_batch_size": 5, "alpha": 0.02}, {}),
    "Super-ER": ("Super-ER", {"stable_probability": 0.5, "pod_alpha": 0.2}, {}),
    "WA": ("WA", {"memory_batch_size": 5}, {}),
    "BiC": ("BiC", {"memory_batch_size": 5}, {"classes": (0, 1)}),
    "LUCIR": (
        "LUCIR",
        {"memory_batch_size": 5},
        {"classes": (0, 1), "functions": {"model_fn": _wide}},
    ),
    "PODNet": (
        "PODNet",
        {"memory_batch_size": 5},
        {"classes": (0, 1), "functions": {"model_fn": _wide}},
    ),
    "LatentReplay": (
        "LatentReplay",
        {"memory_batch_size": 5, "latent_layer": "features.0"},
        {"functions": _with_model(BatchNormModel)},
    ),
    "SCR": ("SCR", {"memory_batch_size": 5, "contrast_temperature": 0.5}, {}),
    "SCR one example per step": (
        "SCR",
        {"batch_size": 1, "memory_batch_size": 1, "contrast_temperature": 0.5, **ONLINE},
        {"max_epochs": 1},
    ),
    "A-GEM": ("A-GEM", {"memory_batch_size": 5}, {"accumulate_grad_batches": 2}),
    "A-GEM batch norm": (
        "A-GEM",
        {"batch_size": 11},
        {"functions": _with_model(BatchNormModel)},
    ),
    "MIR": ("MIR", {"memory_batch_size": 3, "candidate_factor": 3}, {}),
    "MIR online": (
        "MIR",
        {"memory_batch_size": 1, **ONLINE},
        {"functions": _with_model(BatchNormModel)},
    ),
    "ASER": ("ASER", {"memory_batch_size": 3, "candidate_factor": 3, "aser_examples": 5}, {}),
    "ASER online": (
        "ASER",
        {"memory_batch_size": 1, "shapley_form": "extreme", **ONLINE},
        {"functions": _with_model(BatchNormModel)},
    ),
    "GSS": ("GSS", {"gss_examples": 2}, {}),
    "GSS one example per step": (
        "GSS",
        {"batch_size": 1, "memory_size": 5},
        {"max_epochs": 1, "functions": _with_model(BatchNormModel)},
    ),
    "Offline-ER": ("Offline-ER", {"memory_batch_size": 5}, {}),
    "iCaRL": ("iCaRL", {"memory_batch_size": 5}, {}),
    "Budgeted": ("Budgeted", {"sampling": "class_balanced"}, {}),
    "GDumb": ("GDumb", {"memory_size": 13}, {}),
    "Joint": ("Joint", {}, {}),
    "RD": ("RD", {"memory_size": 13}, {"max_epochs": 4}),
    "WiSE-FT": ("WiSE-FT", {}, {}),
    "shrunk": ("ER", {"shrink": 0.5, "perturb": 0.3, "reinitialize": "head", **ADAPTIVE}, {}),
    "LwF": ("LwF", {"temperature": 1.0}, {}),
    "EWC": ("EWC", {"ewc_weight": 50.0}, {}),
    "MAS": ("MAS", {"mas_weight": 5.0}, {}),
    "SI": ("SI", {"si_weight": 0.02}, {}),
    "L2-SP": ("L2-SP", {}, {}),
    "L2-Init": ("L2-Init", {"init_weight": 0.1}, {}),
    "NCM": ("NCM", {"memory_size": 10}, {}),
    "SLDA": ("SLDA", {}, {}),
    "RanPAC": ("RanPAC", {}, {}),
    "model averaging": ("FineTuning", ADAPTIVE, {}),
    "accumulated": ("ER", ADAPTIVE, {"accumulate_grad_batches": 2}),
    "clipped": ("ER", {}, {"gradient_clip_val": 0.05}),
    "clipped by value": ("ER", {}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "best epoch": ("ER", {}, {"keep": "best", "max_epochs": 4}),
    "max steps": ("ER", {}, {"max_steps": 7}),
    "ignored rows and class weights": ("ER", {}, {"functions": {"loss_fn": weighted_loss}}),
    "ignored rows in a replay term": (
        "DER++",
        {"memory_batch_size": 5},
        {"functions": {"loss_fn": weighted_loss}},
    ),
    "row weights": ("ER", {"memory_batch_size": 5}, {"weighted": True}),
    "row weights with one example per step": (
        "ER",
        {"batch_size": 1, "memory_batch_size": 1, **ONLINE},
        {"max_epochs": 1, "weighted": True},
    ),
    "row weights in a replay term": ("DER++", {"memory_batch_size": 5}, {"weighted": True}),
    "row weights in sums": ("SLDA", {}, {"weighted": True}),
    "batch norm": ("ER", {}, {"functions": _with_model(BatchNormModel)}),
    "batch norm separate": ("DER", {"batch_size": 11}, {"functions": _with_model(BatchNormModel)}),
    "convolutional batch norm": ("DER", {}, {"functions": _with_model(ConvBatchNormModel)}),
    "per-task heads": ("FineTuning", {}, {"functions": _with_model(per_task)}),
    "custom metrics": ("ER", {}, {"functions": {"metrics_fn": lambda: {"accuracy": SumMetric()}}}),
}


# Run these for two updates: the second depends on learner state or memory of the first.
TWICE = (
    *("DER++ online", "ER-ACE", "iCaRL", "GDumb", "RD", "WiSE-FT", "LwF", "NCM", "RanPAC"),
    *("EWC", "MAS", "SI", "L2-SP", "L2-Init", "POD-ER", "Super-ER", "WA"),
    *("BiC", "LUCIR", "PODNet", "LatentReplay", "SCR", "A-GEM", "MIR", "ASER", "GSS", "shrunk"),
    "row weights in a replay term",
)


def run(name: str, folder: Path) -> list[Results]:
    """Run an update, and a second one if the name is in `TWICE`; return the results of each."""
    learner, values, trainer = RUNS[name]
    trainer = dict(trainer)
    metadata = {"weight": np.arange(ROWS) % 4 / 2} if trainer.pop("weighted", False) else {}
    functions = trainer.pop("functions", {})
    classes = trainer.pop("classes", (0, 1, 2))  # those that the second update takes for old
    parent, found = _empty(folder), []
    for number in (1, 2) if name in TWICE else (1,):
        made = updater(
            learner,
            {**VALUES, **values},
            number=number,
            functions={"model_fn": model_fn, **functions},
            devices=ranks().count,
            **trainer,
        )
        new = write_examples(folder / f"new-{number}", ROWS, first=100 * number, **metadata)
        updated, steps = update_and_record_steps(made, parent, new)
        found.append(_summary(updated, steps))
        parent = state_of(folder / f"state-{number}", updated, number, classes, parent, new)
    return found


def update_and_record_steps(
    made: Updater, parent: State, new, **more
) -> tuple[UpdatedModel, list[Results]]:
    """Run an update; return it together with the rows and the loss of each step."""
    steps: list[Results] = []
    original = Learner.training_step

    def training_step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        parts = {"new": batch.new, **{f"draw {n}": each for n, each in enumerate(batch.memory)}}
        rows = {name: (each.rows.tolist(), each.all_rows.tolist()) for name, each in parts.items()}
        steps.append({"rows": rows, "loss": float(loss.detach())})
        return loss

    Learner.training_step = training_step
    try:
        return made.update(UpdateData(parent, new, {1: new}), **more), steps
    finally:
        Learner.training_step = original


def _summary(updated: UpdatedModel, steps: list[Results]) -> Results:
    selection = updated.selection
    tensors, values = updated.learner.learner_state()
    return {
        "steps": steps,
        "curves": updated.curves,
        "step_count": updated.steps,
        "examples": updated.examples,
        "model": {n: t for n, t in updated.model.state_dict().items() if torch.is_tensor(t)},
        "kept": selection.kept.tolist(),
        "added": selection.added.tolist(),
        "fields": {
            name: torch.as_tensor(each)
            for fields in (updated.chosen.fields, updated.chosen.added_fields)
            for name, each in fields.items()
        },
        "learner": tensors,
        "policy": repr(values.get("policy")),
    }


@patch.dict(os.environ, {SECONDS_VARIABLE: "0"})
def resumed(folder: Path) -> Results:
    """Train four epochs without and with an interruption, with augmentation in each process."""
    parent, new = _empty(folder), write_examples(folder / "new", ROWS)
    functions = {"train_transform": lambda: noisy}

    def made(epochs: int) -> Updater:
        values = {**VALUES, **ONLINE, "dropout": 0.3}
        count = ranks().count
        return updater("DER++", values, functions=functions, max_epochs=epochs, devices=count)

    straight = made(4).update(UpdateData(parent, new, {1: new}))
    shared = Path(values_of_all_ranks(str(folder))[0]) / "resume"
    messages: list[str] = []
    made(2).update(UpdateData(parent, new, {1: new}), resume=Resume(shared, messages.append))
    torch.randn(3)
    again, _ = update_and_record_steps(made(4), parent, new, resume=Resume(shared, messages.append))
    return {
        "equal": torch.equal(weights(again), weights(straight)),
        "curves": again.curves == straight.curves,
        "memory": again.selection.added.tolist() == straight.selection.added.tolist(),
        "messages": messages,
        "files": sorted(path.name for path in shared.iterdir()),
        "weights": weights(again),
        "next": float(torch.rand(())),
    }


def distances() -> Results:
    """Return a distillation loss in which one process has more unknown logits than the other."""
    generator = torch.Generator().manual_seed(0)
    outputs, kept = torch.randn(2, 7, 4, generator=generator)
    kept[:3, 1:] = torch.nan
    here = ranks()
    rows = torch.arange(7).numpy()
    own = here.own(rows) if here.count > 1 else rows
    batch = Batch(None, None, own, {"logits": kept[own]}, rows if here.count > 1 else None)
    term = share(batch) * distance_to_kept(outputs[own], batch.fields["logits"], batch)
    return {"mean": sum(values_of_all_ranks(float(term))) / here.count}


def _empty(folder: Path) -> State:
    folder.mkdir(parents=True)
    state.write_empty(folder / "parent")
    (folder / "parent" / "memory" / "index.json").unlink()
    write_examples(folder / "parent" / "memory", 10, first=1000)
    state.write_manifest(folder / "parent", Provenance("init", 0))
    return State.open(folder / "parent")


def everything(folder: Path, names: Sequence[str] = tuple(RUNS)) -> Results:
    """Return the results of the updates in `names`, of a resumed training and of distillation."""
    found: Results = {name: run(name, folder / name.replace(" ", "-")) for name in names}
    return {**found, "resumed": resumed(folder / "resumed"), "distances": distances()}


def main(folder: Path, names: Sequence[str]) -> None:
    with joined("cpu") as here:
        found = everything(folder / str(here.rank), names)
        torch.save(found, folder / f"{here.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
