"""Adversarial Shapley value experience replay (Shim et al., "Online Class-Incremental Continual
Learning with Adversarial Shapley Value", AAAI 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import Batch, StoredDataset
from renate_stages.data.ranks import gathered, ranks
from renate_stages.data.steps import read_share
from renate_stages.learners.base.arguments import one_of, positive
from renate_stages.learners.base.balanced_draw import BalancedDraw
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.knn_shapley import knn_shapley
from renate_stages.learners.candidate_er import CandidateReplay
from renate_stages.models.features import backbone_of, batch_features

FORMS = ("mean", "extreme")
Labelled = tuple[Tensor, Tensor]  # features (n, d) and labels (n,)


class ASER(CandidateReplay):
    """ASER: ER that replays examples which represent old classes and lie close to new ones.

        ASV_mu(i) = mean over j in S of s_j(i) - mean over k in B of s_k(i)         (form `mean`)
        ASV(i)    = max over j in S of s_j(i)  - min over k in B of s_k(i)          (form `extreme`)

    s_j(i) is the Shapley value of candidate i for the classification of example j by its K nearest
    candidates (see `knn_shapley`), in the space of the model's current features. S are class-balanced
    examples from memory which are not candidates, B is the new batch. So the first term is large
    near other examples of the candidate's class, the second is negative near new examples of other
    classes. A step draws candidates from memory at random, and then trains on the new batch and the
    `memory_batch_size` candidates with the largest value, as ER does.

    As in MIR, features are computed in evaluation mode and full precision, those of S with the test
    transforms. Differences from the authors' code:

    - It replays random examples until the memory is full, and its candidates are class-balanced. Here
      they are not, and values decide as soon as there are more candidates than replayed examples.
    - If all members of a class are candidates, S has some of them.
    - New examples enter the memory by `memory_policy`. The code has an update too, which replaces
      the candidates with the smallest Shapley values. In our trials on Split-MNIST it kept far
      fewer examples of old classes than the reservoir, and lost 15 points of accuracy.

    Args:
        context: The model, functions and settings of the update.
        candidate_factor: Candidates per replayed example, >= 1. With 1, or as long as the memory holds
            at most `memory_batch_size` examples, it is ER.
        num_neighbors: K, >= 1; 3 in the paper.
        aser_examples: Number of examples in S, >= 1.
        shapley_form: `mean` (ASER_mu) or `extreme` (ASER), as above.
        base: Hyperparameters of `ExperienceReplay`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
        ModelMismatchError: If the model has no submodule `features`.
    """

    def __init__(
        self,
        context: UpdateContext,
        candidate_factor: int = 5,
        num_neighbors: int = 3,
        aser_examples: int = 32,
        shapley_form: Literal["mean", "extreme"] = "mean",
        **base: Any,
    ) -> None:
        super().__init__(context, candidate_factor, **base)
        context.require_labels("ASER")
        backbone_of(context.start.model)
        self.num_neighbors = positive("num_neighbors", num_neighbors)
        self.aser_examples = positive("aser_examples", aser_examples)
        self.shapley_form = one_of("shapley_form", shapley_form, FORMS)

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        self._balanced = BalancedDraw(self.working, self.context.generators.torch("evaluation"))

    @torch.no_grad()
    def values_of(self, new: Batch, draws: Sequence[Batch]) -> list[Tensor]:
        current = self._labelled(new)
        values = []
        for drawn in draws:
            candidates = self._labelled(drawn)
            places = self._balanced.places(self.aser_examples, drawn.all_rows)
            total = torch.zeros(len(drawn.all_rows), dtype=torch.float64)
            if len(places):
                old = self._labelled(read_share(self.plain_members, places, ranks()))
                of_old = self._shapley(old, candidates)
                total += of_old.mean(0) if self.shapley_form == "mean" else of_old.amax(0)
            of_new = self._shapley(current, candidates)
            if len(of_new):
                total -= of_new.mean(0) if self.shapley_form == "mean" else of_new.amin(0)
            values.append(total)
        return values

    def _labelled(self, batch: Batch) -> Labelled:
        """Return features and labels of the examples of all processes."""
        features = batch_features(self.model, batch.inputs, self.context.task_id)
        return gathered((features, batch.targets.long()), len(batch.all_rows))

    def _shapley(self, evaluated: Labelled, candidates: Labelled) -> Tensor:
        """Return the Shapley values of N candidates, float64 `(E, N)`, without ignored examples."""
        (features, labels), (others, their_labels) = evaluated, candidates
        features, labels = features[labels >= 0], labels[labels >= 0]
        distances = torch.cdist(features, others, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels[:, None] == their_labels
        return knn_shapley(distances.cpu(), same.cpu(), self.num_neighbors)

    # -- state ------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        return {**super().position(), "evaluation": self._balanced.generator.get_state()}

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        self._balanced.generator.set_state(position["evaluation"])
