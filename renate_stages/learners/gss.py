"""Gradient-based sample selection (Aljundi et al., "Gradient Based Sample Selection for Online
Continual Learning", NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import Batch, StoredDataset
from renate_stages.data.ranks import gathered
from renate_stages.learners.base.arguments import positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.example_gradients import ExampleGradients
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.masking import mask_classes
from renate_stages.learners.base.policy import policy_of
from renate_stages.learners.base.working_memory import Fields
from renate_stages.learners.er import ExperienceReplay

SCORE = "gss_score"
LEAST = 1e-6  # a score of 0 would make a member impossible to replace


class GSS(ExperienceReplay):
    """GSS: ER with a memory of examples whose loss gradients point in different directions.

        C = 1 + max over n random members i of the memory of  cos(g, g_i)            (Algorithm 2)

    g and g_i are the gradients of l for the new example and for member i. While the memory has room,
    a new example enters. Afterwards it may enter only if C < 1, that is, if its gradient is opposed
    to all that it is compared with: a member j is drawn with a probability proportional to its score
    C_j, and is replaced with probability C_j / (C_j + C). A score is stored with its example, as
    `gss_score`, and does not change.

    New examples are offered one after the other during the first epoch, so `memory_update` is always
    `online`, and `memory_policy` has no effect. Deviations from the paper:

    - The n members are drawn once per batch, as in the authors' code, and not once per example. As
      long as the memory is empty, n examples of the batch take their place.
    - Gradients are computed with the test transforms, in evaluation mode and full precision, so that
      they change neither batch statistics nor random numbers, and do not depend on the batch.
    - Remembered examples without a score, because another learner stored them, get one before the
      first step, from the parent's model. If `memory_size` is reduced, random examples are removed.

    If several processes share a step, they make the same choice.

    Args:
        context: The model, functions and settings of the update.
        gss_examples: n, >= 1; 10 in the paper. A step of the first epoch computes n more gradients,
            each as large as the model, and keeps them in memory at once.
        memory_policy: Has no effect.
        base: Hyperparameters of `ExperienceReplay`.

    Raises:
        UnknownPolicyError: If there is no policy of this name.
    """

    def __init__(
        self,
        context: UpdateContext,
        gss_examples: int = 10,
        memory_policy: str = "reservoir",
        **base: Any,
    ) -> None:
        policy_of(memory_policy, 1, context)  # refuses an unknown name
        own = {"memory_policy": "reservoir", "memory_update": "online"}
        super().__init__(context, **{**base, **own})
        if memory_policy != "reservoir":
            context.say(
                f"GSS chooses the memory itself: memory_policy {memory_policy} has no effect"
            )
        self.gss_examples = positive("gss_examples", gss_examples)
        self._gradients = ExampleGradients(self, self._loss_of_one)

    @property
    def memory_fields(self) -> list[str]:
        return [*super().memory_fields, SCORE]

    # -- scores -----------------------------------------------------------------------------------

    def _fields_of(self, examples: StoredDataset, rows: np.ndarray) -> Fields:
        members = rows if examples is self.memory else None
        scores = self._scores(self.plain(examples, rows), members)
        return {**super()._fields_of(examples, rows), SCORE: scores}

    def remember_online(self, new: ForwardResult) -> Fields:
        rows = new.batch.all_rows
        if len(self.working):
            own = new.batch.rows if len(new.batch) else rows[:1]  # or a placeholder
            scores = gathered(self._scores(self.plain(self.new, own)), len(rows))
        else:  # every process compares the whole batch
            scores = self._scores(self.plain(self.new, rows))
        return {**super().remember_online(new), SCORE: scores}

    def _scores(self, batch: Batch, members: np.ndarray | None = None) -> Tensor:
        """Return the scores of examples, float32 `(n, 1)` on the CPU.

        Args:
            batch: The examples.
            members: Their places in memory, int64 `(n,)`, so that none is compared with itself; None
                if they are not in memory.
        """
        size = len(self.working)
        if not size:
            members = np.arange(len(batch))
        count = size or len(batch)
        drawn = self.policy.generator.choice(count, min(count, self.gss_examples), replace=False)
        rows = torch.from_numpy(drawn)
        others = self.plain_members(drawn) if size else batch.mapped(lambda each: each[rows])
        with self.evaluating():
            compared = torch.cat([*self._directions(others)])
            cosines = torch.cat([each @ compared.T for each in self._directions(batch)])
        if members is not None:
            itself = torch.from_numpy(members[:, None] == drawn)
            cosines = cosines.masked_fill(itself.to(cosines.device), -torch.inf)
        nearest = cosines.amax(1, keepdim=True)
        nearest = torch.where(nearest.isfinite(), nearest, 0.0)  # nothing to compare with
        return (1 + nearest).clamp(LEAST, 2).cpu()

    def _directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield gradients of examples, scaled to length 1, `(b, P)`; 0 if one is not finite.

        The weight of a row does not change the direction of its gradient, unless it is 0.
        """
        first = 0
        for gradients in self._gradients.vectors(batch):
            unit = F.normalize(gradients, dim=1)
            usable = unit.isfinite().all(1, keepdim=True)
            if batch.weights is not None:
                usable &= (batch.weights[first : first + len(unit)] > 0)[:, None]
            first += len(unit)
            yield torch.where(usable, unit, 0.0)

    def _loss_of_one(self, outputs: Any, targets: Any) -> Tensor:
        if self.mask_unused_classes:
            outputs = mask_classes(outputs, self.classes)
        return self.context.functions.loss_fn(outputs, targets).mean()  # its scale does not matter

    # -- memory -----------------------------------------------------------------------------------

    def offer(self, rows: np.ndarray, fields: Fields) -> None:
        policy, members = self.policy, len(self.working)
        taken = enter(
            self.working.values(SCORE).flatten().numpy(),
            fields[SCORE].flatten().numpy(),
            policy.size or 0,
            policy.generator,
        )
        policy.seen = max(policy.seen, members) + len(rows)
        places, chosen = (np.array([*each], dtype=np.int64) for each in (taken, taken.values()))
        index = torch.from_numpy(chosen)
        self.working.put(places, rows[chosen], {n: each.cpu()[index] for n, each in fields.items()})


def enter(
    old: np.ndarray, new: np.ndarray, size: int, generator: np.random.Generator
) -> dict[int, int]:
    """Return the new example that takes each place (Algorithm 2, lines 8 to 18).

    Args:
        old: Scores of the members by place, `(m,)`.
        new: Scores of the new examples in the order of their arrival, `(n,)`.
        size: Most members, >= m.
        generator: Source of the draws.
    """
    scores = np.concatenate([old, new]).astype(np.float64)  # places after `members` are free
    members = len(old)
    taken: dict[int, int] = {}
    for row, score in enumerate(new.tolist()):
        place = members
        if members < size:
            members += 1
        elif score >= 1:
            continue
        else:
            known = scores[:members]
            place = int(generator.choice(members, p=known / known.sum()))
            if generator.random() >= known[place] / (known[place] + score):
                continue
        taken[place] = row
        scores[place] = score
    return taken
