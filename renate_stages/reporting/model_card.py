"""Write the model card of an exported model in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from renate_stages.reporting.markdown import table
from renate_stages.reporting.state_rows import FIGURES, figure_rows, lineage_rows

if TYPE_CHECKING:
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State


def model_card(state: State, evaluation: EvaluationParams, by_name: bool = False) -> str:
    """Return the model card of an exported model.

    Args:
        state: The update's state.
        evaluation: Parameters with the headline metric.
        by_name: Whether `load_model` is needed: `params.yaml` names the model, or it has more outputs
            or rows than `model_fn` builds.
    """
    code = [
        "from renate_config import model_fn",
        "",
        'model = model_fn(model_state_url="model.ckpt").eval()',
    ]
    if by_name:
        code = ["from renate_stages import load_model", "", 'model = load_model(".")']
    return "\n".join(
        [
            f"# Model of update {state.provenance.update}",
            "",
            "The weights are in `model.safetensors` (constructor arguments in `model.json`), and in",
            "torch's format in `model.ckpt`. Load them with the functions in this folder:",
            "",
            "```python",
            *code,
            "```",
            "",
            *table(("what", "value"), lineage_rows(state)),
            "",
            *table(FIGURES, figure_rows(state, evaluation)),
            "",
        ]
    )
