"""Latent replay (Pellegrini et al., "Latent Replay for Real-Time Continual Learning", IROS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import InvalidHyperparameterError, ModelMismatchError
from renate_stages.learners.base.arguments import one_of
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.cut import NEW, REPLAYED, Cut
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.working_memory import ChosenMemory, Fields
from renate_stages.learners.er import ExperienceReplay

LATENTS = "latents"  # the memory field
PROBED = 8  # examples whose stored latents are compared with those of the model
SAME = 1e-2  # relative difference up to which stored latents count as those of the model


class LatentReplay(ExperienceReplay):
    """Latent replay: ER that stores the outputs of a layer, and replays them in place of the inputs.

        L = mean of l(f(x), y) over the new batch and l(g(z'), y') over the draw together

    z' is the stored output of the layer for a remembered example, a latent, and g is the part of the
    model f above the layer. So a step runs only new examples through the part below. What is below is
    frozen from the second update on, in evaluation mode, so that latents stay valid: the limit case of
    the paper, which otherwise lowers the learning rate there. The first update trains the whole model as
    ER does. At the end of an update, latents are computed with the test transforms; `buffer_transform`
    has no effect on them. They are computed again if they are not those of the parent's model, for
    example after an update of another learner.

    Inputs are stored too, because forgetting, other learners, and computing latents anew need them. So
    latent replay makes steps faster but the memory larger, by 4 bytes for each output of the layer and
    example; a `memory_size` in bytes does not count them. The exported model is the whole one.

    Args:
        context: The model, functions and settings of the update.
        latent_layer: Name of the layer, such as `features.4`. Its output must be a float tensor
            `(B, ...)` of one shape for all examples, and all that the layers above need.
        pretrained_below: Whether the layers below are trained already, for example because `model_fn`
            loads a pretrained backbone: then the first update freezes them too.
        base: Hyperparameters of `ExperienceReplay`; `memory_update` is always `end`, `replay_forward`
            always `joint`, and `reinitialize` is `none` or `head`.

    Raises:
        ModelMismatchError: If the model cannot be cut at the layer.
    """

    def __init__(
        self,
        context: UpdateContext,
        latent_layer: str = "features",
        pretrained_below: bool = False,
        **base: Any,
    ) -> None:
        super().__init__(context, **{**base, "memory_update": "end", "replay_forward": "joint"})
        if not isinstance(latent_layer, str) or not latent_layer:
            raise InvalidHyperparameterError("latent_layer", latent_layer, "the name of a layer")
        one_of("pretrained_below", pretrained_below, (False, True))
        if self.warm_start.reinitialize == "all":
            allowed = "none or head for LatentReplay, which keeps the layers below latent_layer"
            raise InvalidHyperparameterError("reinitialize", "all", allowed)
        self.latent_layer, self.pretrained_below = latent_layer, bool(pretrained_below)
        self.cut: Cut | None = None
        self.frozen = False
        self._digest = ""  # of what is below, at the start of the update
        self._latents_of: str | None = None  # the digest of what computed the stored latents

    # -- the course of an update ------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        examples = new if len(new) else memory
        self.cut = self._checked_cut(examples) if len(examples) else None
        self.frozen = False
        if self.cut is not None:
            self._digest = self.cut.digest()
            self.frozen = self.context.start.has_parent or self.pretrained_below
        if self.cut is not None and self.frozen:
            self.cut.freeze()
            self._require_trained()
        super().start_update(new, memory, keepable)
        if self.cut is not None:
            self.cut.start()

    def end_training(self, measure: Measure | None) -> None:
        super().end_training(measure)
        if self.cut is not None:
            self.cut.end()

    def pass_on(self, batch: Batch, left_out: Any = ()) -> ForwardResult:
        if self.cut is not None and self.frozen:
            self.cut.keep_evaluating()
        return super().pass_on(batch, left_out)

    def pass_together(self, batches: list[Batch], left_out: list[int]) -> ForwardResult:
        if self.cut is None or not self.frozen:
            return super().pass_together(batches, left_out)
        new, *drawn = batches
        with self.cut.replaying(torch.cat([each.inputs for each in drawn])):
            return self.pass_on(Batch(new.inputs, None, new.rows), left_out)

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return which rows of the memory stay and which new rows enter, with latents of all."""
        if self.cut is None:
            return super().choose_memory(at_once=at_once)
        digest = self.cut.digest()
        unchanged = self.frozen and digest == self._digest
        self.frozen = True  # the trained model's latents are stored from here on
        chosen = super().choose_memory(at_once=at_once)
        self._latents_of = digest
        kept, added = chosen.selection
        if unchanged or not len(kept):
            return chosen
        parts = [self.fields_of(self.memory, kept), self.fields_of(self.new, added)]
        whole = np.concatenate([part[LATENTS] for part in parts if part])
        return chosen._replace(fields={**chosen.fields, LATENTS: whole})

    @property
    def datasets(self) -> list[StoredDataset]:
        return [self.new] if self.frozen else super().datasets

    # -- latents ----------------------------------------------------------------------------------

    @property
    def memory_fields(self) -> list[str]:
        return [*super().memory_fields, *([LATENTS] if self.frozen else [])]

    @property
    def replayed_field(self) -> str | None:
        return LATENTS if self.frozen else None

    def outdated_fields(self) -> list[str]:
        """Return `latents` if the stored ones are not those of the parent's model.

        The weights below may be equal while `model_fn` or the test transforms have changed, so the
        latents of a few examples are compared too.
        """
        known = self.memory.store.known(LATENTS)
        if not self.frozen or self._latents_of != self._digest or not known.all():
            return [LATENTS]
        rows = np.unique(np.linspace(0, len(known) - 1, PROBED).astype(np.int64))
        now, kept = self._fields_of(self.memory, rows)[LATENTS], self.working.stored(LATENTS, rows)
        if now.shape != kept.shape:
            return [LATENTS]
        now, kept = now.flatten(1), kept.float().flatten(1)
        off = torch.linalg.vector_norm(now - kept, dim=1) > SAME * torch.linalg.vector_norm(
            kept, dim=1
        )
        return [LATENTS] if bool(off.any()) else []

    def remember(self, passed: ForwardResult) -> Fields:
        fields = super().remember(passed)
        return {**fields, LATENTS: self._recorded[-1].detach().float()} if self.frozen else fields

    def _fields_of(self, examples: StoredDataset, rows: np.ndarray) -> Fields:
        assert self.cut is not None
        with self.cut.recording() as self._recorded:
            return super()._fields_of(examples, rows)

    def _checked_cut(self, examples: StoredDataset) -> Cut:
        """Return the model cut at the layer.

        Raises:
            ModelMismatchError: If it cannot be cut there.
        """
        rows = np.arange(NEW + REPLAYED) % len(examples)
        plain = StoredDataset(
            examples.store, examples.rows, *self.context.functions.test_transforms
        )
        inputs, targets = plain.__getitems__(rows)
        batch = self.moved(Batch(inputs, targets, rows))
        cut = Cut(self.model, self.latent_layer, batch.inputs, self)
        if len(cut.shape) > 1 and _differ_in_length(examples):
            raise ModelMismatchError(
                f"outputs of layer `{self.latent_layer}` have shape (B, {', '.join(map(str, cut.shape))}"
                "), which may follow the length of the inputs, and LatentReplay stores one shape",
                "name a layer after pooling in hyperparameters.latent_layer, or choose another learner",
            )
        return cut

    def _require_trained(self) -> None:
        trained = {id(each) for each in self.trained_parameters()}
        if self.cut is not None and not any(id(each) in trained for each in self.cut.above):
            raise ModelMismatchError(
                f"no parameter above layer `{self.latent_layer}` is trained, and those below are frozen",
                "name an earlier layer in hyperparameters.latent_layer, or let model_fn train the last",
            )

    # -- state ------------------------------------------------------------------------------------

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        return tensors, {**values, LATENTS: self._latents_of}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        self._latents_of = values.get(LATENTS)


def _differ_in_length(examples: StoredDataset) -> bool:
    """Return whether inputs may have different lengths, as texts do; images are decoded to one size."""
    spec = examples.store.spec
    fields = spec.fields.items() if spec is not None else ()
    return any(
        each.ragged and not each.decoder for path, each in fields if path.startswith("inputs")
    )
