"""Renate 0.5.2's learner classes, imported without its dependencies, and a plain loop around them.

The package is installed from the index without its dependencies. Imports that this environment lacks
(deepspeed, torchvision, transformers, older parts of Syne Tune) are empty modules: the learners'
arithmetic needs none of it. Hooks that Lightning 2 no longer has are added as Lightning 1 had them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import nn
from torch.utils.data import TensorDataset

EMPTY = ("boto3", "botocore", "deepspeed", "sagemaker", "tabulate", "torchvision", "transformers")
CLASSES = {
    "ER": "experimental.er:ExperienceReplayLearner",
    "DER": "experimental.er:DarkExperienceReplayLearner",
    "CLS-ER": "experimental.er:CLSExperienceReplayLearner",
    "Offline-ER": "experimental.offline_er:OfflineExperienceReplayLearner",
    "GDumb": "experimental.gdumb:GDumbLearner",
    "Joint": "experimental.joint:JointLearner",
    "FineTuning": "learner:Learner",
}


def load(folder: Path) -> None:
    """Make `renate` importable.

    Args:
        folder: Where `uv pip install --no-deps --target <folder> renate==0.5.2` put it.
    """
    if not (folder / "renate" / "updaters").is_dir():
        command = f"uv pip install --no-deps --target {folder} renate==0.5.2"
        sys.exit(f"error: {folder} has no package renate; run `{command}`")
    sys.meta_path.append(_EmptyModules())
    package = types.ModuleType("renate")  # its own __init__ imports the command line
    package.__path__ = [str(folder / "renate")]
    sys.modules["renate"] = package
    from syne_tune.optimizer import schedulers

    for name in ("FIFOScheduler", "HyperbandScheduler"):
        if not hasattr(schedulers, name):
            setattr(schedulers, name, MagicMock())
    from renate import defaults  # pyright: ignore

    defaults.LOGGER = MagicMock()  # of TensorBoard, which is not installed
    import pytorch_lightning

    ours = pytorch_lightning.LightningModule
    pytorch_lightning.LightningModule = _with_old_hooks(ours)
    try:
        for place in CLASSES.values():
            importlib.import_module(f"renate.updaters.{place.partition(':')[0]}")
    finally:
        pytorch_lightning.LightningModule = ours


def _with_old_hooks(kind: type) -> type:
    """Return a subclass with the hooks that Lightning 1 had; Lightning 2 refuses them in a Trainer."""
    names = ("training_step_end", "training_epoch_end", "validation_epoch_end")
    return type(kind.__name__, (kind,), {name: lambda self, outputs: outputs for name in names})


class RenateSide:
    """One of Renate's learners over several updates.

    Args:
        name: A key of `CLASSES`.
        network: The model, which is trained in place.
        rate: Learning rate of Adam.
        epochs: Passes over the new data of each update.
        settings: Further arguments of the learner's class.
    """

    def __init__(
        self, name: str, network: nn.Module, rate: float, epochs: int, settings: dict[str, Any]
    ) -> None:
        from renate.models import RenateModule  # pyright: ignore[reportMissingImports]

        class Model(RenateModule):
            def __init__(self) -> None:
                super().__init__(constructor_arguments={})
                self.network = network

            def forward(self, x: Any, task_id: str | None = None) -> torch.Tensor:
                return self.network(x)

        module, _, attribute = CLASSES[name].partition(":")
        kind = getattr(importlib.import_module(f"renate.updaters.{module}"), attribute)
        self.epochs = epochs
        self.learner = kind(
            model=Model(),
            loss_fn=nn.CrossEntropyLoss(reduction="none"),
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate),
            **settings,
        )
        self.learner.log = self.learner.log_dict = lambda *_, **__: None
        sizes = ("_batch_size", "_memory_batch_size")
        self.sizes = {
            name: vars(self.learner)[name] for name in sizes if name in vars(self.learner)
        }

    def update(self, data: TensorDataset) -> None:
        """Train on the data of one update, as Renate's updater and Lightning's Trainer do."""
        learner = self.learner
        vars(learner).update(self.sizes)  # a learner may change them; each update loads it anew
        if hasattr(learner, "_memory_loader"):
            learner._memory_loader = None
        learner.on_model_update_start(train_dataset=data, val_dataset=None, task_id="default_task")
        learner.train()
        optimizer = learner.configure_optimizers()
        learner.on_train_start()
        steps = -(-len(data) // learner._batch_size)  # Renate's limit_train_batches
        for _ in range(self.epochs):
            for number, batch in enumerate(islice(learner.train_dataloader(), steps)):
                output = learner.training_step(batch, number)
                output = learner.training_step_end(output)
                optimizer.zero_grad()
                output["loss"].backward()
                optimizer.step()
                learner.on_train_batch_end(output, batch, number)
        learner.on_model_update_end()


class _EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an empty module for what is not installed and not needed."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in EMPTY:
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = MagicMock(name=spec.name)
        module.__path__ = []
        module.__spec__ = spec
        module.BatchEncoding = type("BatchEncoding", (), {})  # of transformers; asked by isinstance
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave the module empty."""
