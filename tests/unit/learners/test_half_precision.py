"""Mixed precision: every learner stores and evaluates in single precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_updates import VALUES, state_of, updater, weights, write_examples
from torch.nn import functional as F

from renate_stages.learners import registry
from renate_stages.memory.spec import METADATA
from renate_stages.training.update_data import UpdateData

EXACT = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("name", registry.LEARNERS)
def test_mixed_precision_stores_and_evaluates_in_float32(make_state, new, tmp_path, name, online):
    values = {**VALUES, "ema_decay": 0.9}
    if online:
        if not hasattr(registry.learner_class(name), "draws_a_step") or name == "iCaRL":
            pytest.skip("this learner does not update a memory online")
        values["memory_update"] = "online"
    dtypes: dict[bool, set] = {True: set(), False: set()}  # key: whether evaluating

    def loss_fn():
        def loss(outputs, targets):
            dtypes[torch.is_inference_mode_enabled()].add(outputs.dtype)
            return F.cross_entropy(outputs, targets, reduction="none")

        return loss

    functions, half = {"loss_fn": loss_fn}, {"precision": "bf16-mixed"}
    first = updater(name, values, functions=functions, **half).update(
        UpdateData(make_state(), new, {1: new})
    )
    parent = state_of(tmp_path / "parent", first, 1, new=new)
    second = write_examples(tmp_path / "second", 25, first=300)
    made = updater(name, values, number=2, functions=functions, **half)
    updated = made.update(UpdateData(parent, second, {1: new, 2: second}))
    assert dtypes[True] == {torch.float32}
    if dtypes[False]:  # closed-form learners have no loss
        assert torch.bfloat16 in dtypes[False], "the model computed in half precision"
    assert weights(updated).dtype == torch.float32 and weights(updated).isfinite().all()
    assert all(np.isfinite(value) for row in updated.curves for value in row.values())
    tensors, _ = updated.learner.learner_state()
    for key, value in tensors.items():
        assert value.dtype in EXACT and value.double().isfinite().all(), key
    child = state_of(tmp_path / "child", updated, 2, parent=parent, new=second)
    spec = child.memory().spec
    for field in spec.metadata if spec is not None else ():
        kept = child.memory().column(field)
        assert kept.dtype == np.float32 and np.isfinite(kept).all(), field
    if name.startswith("DER"):
        assert METADATA + "logits" in spec.metadata


def test_stored_logits_are_the_single_precision_outputs_of_the_model(make_state, new):
    """Logits stored at the end of an update are not rounded to half precision."""
    made = updater("DER", precision="bf16-mixed")
    updated = made.update(UpdateData(make_state(), new))
    inputs, _ = new.gather(updated.selection.added)
    with torch.no_grad():
        expected = updated.model(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(updated.chosen.added_fields["logits"], expected, rtol=1e-6)
