"""Build an Avalanche strategy with its model, optimizer, loss, plugins and experience."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from renate_stages.errors import AvalancheStateError
from renate_stages.learners.avalanche import catalog, codec, patched
from renate_stages.learners.avalanche.examples import Examples, experience
from renate_stages.learners.avalanche.model import as_avalanche_model
from renate_stages.learners.base.new_rows import extended, is_grown
from renate_stages.models.features import backbone_of
from renate_stages.models.module import unwrap
from renate_stages.tasks.row_loss import RowLoss

if TYPE_CHECKING:
    from renate_stages.learners.avalanche.learner import AvalancheLearner


class Criterion(nn.Module):
    """Adapts the user's loss to Avalanche's calls.

    Args:
        loss_fn: Loss of outputs and targets.
    """

    def __init__(self, loss_fn: RowLoss) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.reduction == "mean":
            return self.loss_fn.mean(outputs, targets)
        return self.loss_fn(outputs, targets)


class Run:
    """A strategy for one update, with its model, optimizer and plugins.

    Args:
        learner: The learner of the update, after `start_update`.
    """

    def __init__(self, learner: AvalancheLearner) -> None:
        context = learner.context
        tasks = learner.model.task_ids
        task = tasks.index(context.task_id) if context.task_id in tasks else 0
        self.learner = learner
        self.task = task if len(tasks) > 1 else None
        self.examples = Examples(
            learner.memory, learner.new, context.functions.test_transforms, task
        )
        self.optimizer: Any = learner.own_optimizer
        self.is_icarl = learner.composed.strategy == "iCaRL"
        self.model: nn.Module = as_avalanche_model(learner.model, context.task_id)
        criterion: Any = (
            nn.CrossEntropyLoss()
            if context.functions.loss_fn.is_cross_entropy
            else Criterion(context.functions.loss_fn)
        )
        plugins = [
            load(catalog.PARTS[name].place)(**self._arguments(name))
            if name in catalog.PARTS
            else load(name)()
            for name in learner.composed.plugins
        ]
        if self.is_icarl:
            self.model, criterion, more = self._icarl()
            plugins += more
        for plugin in plugins:
            codec.check_known(plugin)
        part = catalog.PARTS[learner.composed.strategy]
        own = {} if self.is_icarl else self._arguments(learner.composed.strategy)
        self.strategy = load(part.place)(
            model=self.model,
            optimizer=self.optimizer,
            criterion=criterion,
            train_mb_size=learner.batch_size,
            eval_mb_size=learner.batch_size,
            train_epochs=context.trainer.max_epochs or 1,
            device=learner.device,
            plugins=plugins,
            evaluator=None,
            **own,
        )
        self.strategy.backward = learner.backward_of_step
        self.strategy.optimizer_step = learner.optimizer_step_of_step

    def _arguments(self, name: str) -> dict[str, Any]:
        arguments = catalog.PARTS[name].arguments
        values = self.learner.values
        return {argument.theirs or key: values[key] for key, argument in arguments.items()}

    def _icarl(self) -> tuple[nn.Module, Any, list[Any]]:
        """Return iCaRL's model, loss and plugins, assembled as in Avalanche's class."""
        head: Any = unwrap(self.learner.model).head
        exemplars = patched.Exemplars(**self._arguments("iCaRL"))
        exemplars.examples = self.examples
        model = patched.served_by_means(backbone_of(self.learner.model), head.linear)
        loss = patched.Distilled()
        return model, loss, [exemplars, loss]

    # -- state ------------------------------------------------------------------------------------

    def encode(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the strategy's state as JSON values, and its tensors by name."""
        encoder = codec.Encoder()
        strategy = self.strategy
        stored = {
            "classes_by_update": self.classes_by_update,
            "batch_size": self.learner.batch_size,
            "trained": [each.requires_grad for each in self.model.parameters()],
            "strategy": encoder.fields(strategy, "strategy"),
            "plugins": {
                type(plugin).__name__: encoder.fields(plugin, type(plugin).__name__)
                for plugin in strategy.plugins
            },
            "optimizer": self._encoded_optimizer(encoder),
        }
        return stored, encoder.tensors

    def start_from(self, stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from the parent's state, and make the update's experience.

        Args:
            stored: The state that `encode` returned after the parent's update; empty if the
                parent's learner was not an Avalanche strategy.
            tensors: The tensors that `encode` returned with it.
        """
        self.restore(stored, tensors)
        self._compare_batch_sizes(stored)
        adopted = not stored and self._adopt_memory()
        self._fit_memory()
        before = [list(each) for each in stored.get("classes_by_update", [])]
        old = {
            *self.learner.context.start.old_classes,
            *(label for each in before for label in each),
        }
        dataset = self.examples.new()
        classes = sorted({int(each) for each in dataset.targets} - old)  # type: ignore[attr-defined]
        self.classes_by_update = [*before, classes]
        number = self.strategy.clock.train_exp_counter + adopted
        self.experience = experience(
            dataset, number, sorted(old), self.classes_by_update, self.task
        )

    @property
    def grown(self) -> frozenset[str]:
        """Names of tensors of the strategy's model that may have gained rows for new labels."""
        grown = self.learner.context.start.grown
        return grown | {f"train_classifier.{each}" for each in ("weight", "bias") if grown}

    def restore(self, stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Restore a state from `encode`: the parent's, or that of an interrupted training."""
        learner = self.learner
        outputs = [now for _, now in learner.context.start.model.grown_outputs.values()]
        decoder = codec.Decoder(
            tensors,
            self.examples,
            self.model,
            learner.device,
            self.grown,
            max(outputs, default=None),
        )
        plugins = {type(plugin).__name__: plugin for plugin in self.strategy.plugins}
        left = stored.get("plugins", {})
        for name, plugin in plugins.items():
            if name in left:
                decoder.fields(plugin, left[name])
                if hasattr(plugin, "reopen"):
                    plugin.reopen()
        if lost := sorted(left.keys() - plugins.keys()):
            learner.context.say(
                f"the parent's state of these plugins is not used: {', '.join(lost)}"
            )
        if "strategy" in stored:
            decoder.fields(self.strategy, stored["strategy"])
        for parameter, trained in zip(
            self.model.parameters(), stored.get("trained", ()), strict=False
        ):
            parameter.requires_grad_(trained)
        self._restore_optimizer(stored.get("optimizer"), decoder)

    def finish(self) -> None:
        """Write what the strategy predicts with besides the weights into the user's model."""
        if self.is_icarl:
            head: Any = unwrap(self.learner.model).head
            means: Any = self.model.eval_classifier
            head.take_means(means.class_means_dict)

    def _compare_batch_sizes(self, stored: Mapping[str, Any]) -> None:
        """Warn if importances of different batch sizes are combined."""
        own, before = self.learner.batch_size, stored.get("batch_size")
        parts = [name for name in ("EWC", "MAS", "RWalk") if name in self.learner.composed.parts]
        if not parts or before in (None, own) or self.learner.values.get("fisher") == "example":
            return
        cure = "; fisher: example makes them comparable" if "EWC" in parts else ""
        self.learner.context.say(
            f"{', '.join(parts)}: importances with batch size {before} (the parent's) and {own} "
            f"have different scales{cure}"
        )

    def _adopt_memory(self) -> bool:
        """Offer another learner's memory to the buffers, and return whether one accepted it."""
        count = self.examples.num_old
        if not count:
            return False
        memory = self.examples.of(np.arange(count))
        for policy in self._buffers():
            policy.post_adapt(self.strategy, experience(memory, 0, (), [[]], self.task))
        taken = any(len(policy.buffer) for policy in self._buffers())
        outcome = (
            "were offered to the strategy's buffers" if taken else "are not used by this strategy"
        )
        self.learner.context.say(f"the memory's {count} examples {outcome}")
        return taken

    def say_if_nothing_is_replayed(self) -> None:
        """Warn if the memory is smaller than one batch, because Avalanche then ignores it."""
        for holder in (self.strategy, *self.strategy.plugins):
            policy = getattr(holder, "storage_policy", None)
            if policy is None or getattr(holder, "replay_loader", policy) is not None:
                continue
            kept = len(policy.buffer)
            if self.examples.num_old and kept < holder.batch_size_mem:
                self.learner.context.say(
                    f"nothing is replayed, because the memory has {kept} examples and a batch needs "
                    f"{holder.batch_size_mem}; lower memory_batch_size or raise memory_size"
                )

    def _fit_memory(self) -> None:
        """Resize the buffers to this update's `memory_size`."""
        size = self.learner.values.get("memory_size")
        for policy in self._buffers():
            if size is not None and policy.buffer_groups:
                policy.resize(self.strategy, size)

    def _buffers(self) -> list[Any]:
        holders = (self.strategy, *self.strategy.plugins)
        policies = [getattr(holder, "storage_policy", None) for holder in holders]
        return [policy for policy in policies if policy is not None]

    def _encoded_optimizer(self, encoder: codec.Encoder) -> Any:
        state = self.optimizer.state
        names = {id(each): name for name, each in self.model.named_parameters()}
        return {
            "class": type(self.optimizer).__name__,
            "state": {
                names[id(each)]: encoder.encode(dict(values), f"optimizer/{names[id(each)]}")
                for each, values in state.items()
                if values and id(each) in names
            },
        }

    def _restore_optimizer(self, stored: Mapping[str, Any] | None, decoder: codec.Decoder) -> None:
        """Restore momentum across updates, as Avalanche does, but use this update's rates."""
        if stored is None or stored["class"] != type(self.optimizer).__name__:
            return
        parameters = dict(self.model.named_parameters())
        self.strategy.make_optimizer(reset_optimizer_state=True)
        for name, values in stored["state"].items():
            if name in parameters:
                restored = decoder.decode(values)
                if isinstance(restored.get("step"), Tensor):
                    restored["step"] = restored["step"].cpu()  # torch keeps it on the CPU
                if is_grown(name, self.grown):
                    nothing = torch.zeros_like(parameters[name])
                    restored = {
                        key: extended(each, nothing) if isinstance(each, Tensor) else each
                        for key, each in restored.items()
                    }
                self.optimizer.state[parameters[name]] = restored


def load(place: str) -> Any:
    """Return the object at `module:name`.

    Raises:
        AvalancheStateError: If it cannot be imported.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise AvalancheStateError(
            f"the plugin {place} cannot be imported: {error}", "name it as package.module:Class"
        ) from error
