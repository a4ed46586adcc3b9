"""Plugins of avalanche-lib 0.6.0 with fixes, which can also continue in another process.

Where Avalanche's plugin is correct, the patched one gives bit-identical results. Each class says
what it fixes.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils import concat_datasets
from avalanche.benchmarks.utils.data_loader import GroupBalancedInfiniteDataLoader
from avalanche.models import NCMClassifier, TrainEvalModel
from avalanche.training.losses import ICaRLLossPlugin
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GDumbPlugin,
    MIRPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.supervised.icarl import _ICaRLPlugin
from avalanche.training.utils import ParamData, cycle
from torch import Tensor, nn
from torch.utils.data import DataLoader

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.avalanche.examples import Examples, rows_of
from renate_stages.learners.avalanche.tables import Table

FISHERS = ("batch", "example")


class Elastic(EWCPlugin):
    """EWC that can compute importances from gradients of single examples.

    Avalanche squares the mean gradient of each batch, so that the importances shrink as batches
    grow. The Fisher information's diagonal is the mean of squared gradients of single examples.

    Args:
        fisher: `batch` as in Avalanche, or `example`.
        arguments: Arguments of `EWCPlugin`.
    """

    def __init__(self, fisher: str = "batch", **arguments: Any) -> None:
        if fisher not in FISHERS:
            raise InvalidHyperparameterError("fisher", fisher, f"one of {', '.join(FISHERS)}")
        super().__init__(**arguments)
        self.fisher = fisher

    def compute_importances(
        self, model, criterion, optimizer, dataset, device, batch_size, num_workers=0
    ) -> dict[str, ParamData]:
        size = batch_size if self.fisher == "batch" else 1
        return super().compute_importances(
            model, criterion, optimizer, dataset, device, size, num_workers
        )


class Intelligence(SynapticIntelligencePlugin):
    """SI that stores copies of the weights.

    On a CPU, Avalanche stores views, which change with the weights. So every difference is 0, and so
    is every importance.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, **kwargs)
        _own(self.ewc_data[0])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_iteration(strategy, **kwargs)
        _own(self.syn_data["old_theta"])  # type: ignore[arg-type]

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_iteration(strategy, **kwargs)
        _own(self.syn_data["new_theta"])  # type: ignore[arg-type]
        _own(self.syn_data["grad"])  # type: ignore[arg-type]

    @property
    def trajectories(self) -> dict[str, dict[str, ParamData]]:
        """The sums over steps; each step sets the rest of `syn_data` again."""
        return {name: self.syn_data[name] for name in ("trajectory", "cum_trajectory")}  # type: ignore

    @trajectories.setter
    def trajectories(self, value: Mapping[str, dict[str, ParamData]]) -> None:
        self.syn_data.update(value)  # type: ignore[arg-type]
        for name in ("old_theta", "new_theta", "grad"):
            self.syn_data[name] = {
                key: ParamData(f"{name}_{key}", each.shape)
                for key, each in value["trajectory"].items()
            }


class Dumb(GDumbPlugin):
    """GDumb that copies the first model's weights into the model instead of replacing it."""

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        if self.init_model is None:
            self.init_model = copy.deepcopy(strategy.model)
        else:
            strategy.model.load_state_dict(self.init_model.state_dict())
            strategy.optimizer.state.clear()
        strategy.model_adaptation(self.init_model)


class MaximallyInterfered(MIRPlugin):
    """MIR that can rebuild its loader, and replays if classes return.

    Avalanche does not replay the classes of the last batch, so it replays nothing if that batch
    contains every class. In that case this class draws from the whole memory.
    """

    last_classes: list[int] | None = None  # classes that the next update does not replay

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.last_classes = torch.unique(strategy.mb_y).tolist()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.storage_policy.post_adapt(strategy, strategy.experience)
        self.reopen()

    def reopen(self) -> None:
        """Build the loader that draws from the memory."""
        if self.last_classes is None:
            return
        groups = self.storage_policy.buffer_groups
        left = [g.buffer for label, g in groups.items() if int(label) not in self.last_classes]
        buffer = concat_datasets(left or [group.buffer for group in groups.values()])
        self.replay_loader = None
        if len(buffer) > self.batch_size_mem:
            loader = DataLoader(buffer, batch_size=self.subsample, shuffle=True)
            self.replay_loader = cycle(loader)


class AveragedGEM(AGEMPlugin):
    """A-GEM that can rebuild its loader."""

    def reopen(self) -> None:
        """Build the loader that draws from the memory."""
        if not self.buffers:
            return
        self.buffer_dataloader = GroupBalancedInfiniteDataLoader(
            self.buffers,
            batch_size=self.sample_size // len(self.buffers),
            num_workers=0,
            pin_memory=False,
            persistent_workers=False,
        )
        self.buffer_dliter = iter(self.buffer_dataloader)


class Exemplars(_ICaRLPlugin):
    """iCaRL's memory as row numbers, with one group for each class.

    Avalanche stores tensors of inputs. If a class returns, Avalanche gives it a second group, so
    that its mean is that of the last group and the share of every group shrinks. Here, exemplars of
    such a class are chosen from its new examples and its old exemplars together. Only classes with
    exemplars have a mean: Avalanche gives future classes a mean of zeros, which is nearer to many
    inputs than the right mean.

    Args:
        memory_size: Number of all exemplars, or of exemplars per class unless `fixed_memory`.
        fixed_memory: Whether `memory_size` is the number of all exemplars.
    """

    examples: Examples  # set before an update starts

    def __init__(self, memory_size: int, fixed_memory: bool = True) -> None:
        super().__init__(memory_size, None, fixed_memory)
        self.rows: list[Tensor] = []  # row numbers of each group, int64 (n,)

    # -- between updates --------------------------------------------------------------------------

    @property
    def groups(self) -> list[Table]:
        """Rows, ranks and label of the exemplars of each class, in the order of arrival."""
        each = zip(self.rows, self.order, self.y_memory, strict=True)
        return [
            Table({"rows": rows, "order": order, "labels": torch.tensor(labels)})
            for rows, order, labels in each
        ]

    @groups.setter
    def groups(self, tables: Iterable[Table]) -> None:
        whole = [table.columns for table in tables if len(table.columns["rows"])]
        self.rows = [columns["rows"] for columns in whole]
        self.order = [columns["order"] for columns in whole]
        self.y_memory = [columns["labels"].tolist() for columns in whole]
        self.observed_classes = [labels[0] for labels in self.y_memory]
        measured = [self.examples.of(rows.numpy()).eval() for rows in self.rows]
        self.x_memory = [torch.stack([each[0] for each in dataset]) for dataset in measured]

    # -- in an update -----------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Do nothing, because classes are registered together with their first exemplars."""

    def construct_exemplar_set(self, strategy: Any) -> None:
        for label in strategy.experience.classes_in_this_experience:
            if label not in self.observed_classes:
                self.observed_classes.append(label)
        share = self._share()
        dataset = strategy.experience.dataset
        numbers, labels = rows_of(dataset), torch.tensor(list(dataset.targets))
        for label in strategy.experience.classes_in_this_experience:
            rows = torch.from_numpy(numbers[torch.where(labels == label)[0].numpy()])
            place = self.observed_classes.index(label)
            known = place < len(self.rows)
            if known:
                rows = torch.cat([self.rows[place], rows])
            inputs, chosen, ranks = self._herded(strategy, rows, share)
            values = inputs[chosen], [label] * len(chosen), ranks, rows[chosen]
            for group, value in zip(self._lists(), values, strict=True):
                if known:
                    group[place] = value
                else:
                    group.append(value)

    def reduce_exemplar_set(self, strategy: Any) -> None:
        share = self._share()
        for place, order in enumerate(self.order):
            stay = torch.where(order <= share)[0]
            self.x_memory[place] = self.x_memory[place][stay]
            self.y_memory[place] = self.y_memory[place][: len(stay)]
            self.order[place], self.rows[place] = order[stay], self.rows[place][stay]

    def compute_class_means(self, strategy: Any) -> None:
        place = next(strategy.model.parameters()).device
        self.class_means = {  # only for classes with exemplars
            labels[0]: torch.zeros(self.embedding_size, device=place)
            for labels in self.y_memory
            if labels
        }
        super().compute_class_means(strategy)

    def _lists(self) -> tuple[list, list, list, list]:
        return self.x_memory, self.y_memory, self.order, self.rows

    def _share(self) -> int:
        """Return the maximum number of exemplars per class."""
        if not self.fixed_memory:
            return self.memory_size
        return -(-self.memory_size // len(self.observed_classes))

    @torch.no_grad()
    def _herded(self, strategy: Any, rows: Tensor, share: int) -> tuple[Tensor, Tensor, Tensor]:
        """Choose exemplars of a class by herding, Rebuffi et al. 2017, Algorithm 4.

        Returns:
            Inputs of all rows, indices of the chosen ones in ascending order, and their ranks >= 1.
        """
        measured = self.examples.of(rows.numpy()).eval()
        loader = DataLoader(measured, batch_size=strategy.eval_mb_size)
        inputs = torch.cat([batch[0] for batch in loader]).to(strategy.device)
        blocks = inputs.split(strategy.eval_mb_size)
        features = torch.cat([strategy.model.feature_extractor(each) for each in blocks]).T
        features = features / torch.norm(features, dim=0)
        mean = features.mean(1)
        ranks = torch.zeros(len(rows))
        wanted, rank = mean, 0
        for _ in range(1000):  # the same limit as in Avalanche
            if rank == min(share, len(rows)):
                break
            best = torch.argmax(torch.mm(wanted.unsqueeze(0), features))
            if not ranks[best]:
                rank += 1
                ranks[best] = rank
            wanted = wanted + mean - features[:, best]
        chosen = torch.where(ranks > 0)[0]
        return inputs.cpu(), chosen, ranks[chosen]


class Distilled(ICaRLLossPlugin):
    """iCaRL's loss for updates in which classes may return.

    Avalanche replaces the targets of all old classes by the old model's outputs, which overwrites
    the true label of a new example of an old class. Here that target stays 1.
    """

    again: Sequence[int] = ()  # old classes that have new examples in this update

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        now = strategy.experience.classes_in_this_experience
        self.again = sorted({*now} & {*self.old_classes})

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.old_logits is not None and self.again:
            again = torch.tensor(self.again, device=targets.device)
            places = torch.where(torch.isin(targets, again))[0]
            self.old_logits = self.old_logits.clone()
            self.old_logits[places, targets[places].long()] = torch.inf  # sigmoid(inf) is 1
        return super().__call__(logits, targets)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, **kwargs)
        self.old_classes = list(dict.fromkeys(self.old_classes))


class Means(NCMClassifier):
    """Nearest-mean classifier whose means are not in the state, because their number changes."""

    def __init__(self) -> None:
        super().__init__(normalize=True)
        del self.class_means
        self.register_buffer("class_means", None, persistent=False)


def served_by_means(features: nn.Module, head: nn.Module) -> TrainEvalModel:
    """Return iCaRL's model: the head in training mode, the nearest mean in evaluation mode."""
    return TrainEvalModel(features, train_classifier=head, eval_classifier=Means())


def _own(weights: Mapping[str, ParamData]) -> None:
    for each in weights.values():
        each.data = each.data.clone()
