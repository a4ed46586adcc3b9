"""`load_model`: build an exported model, or that of a state, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.export.exported import DESCRIPTION, Exported
from renate_stages.models import RenateModule
from renate_stages.models.registry import MODELS
from renate_stages.models.stored import build_model
from renate_stages.preprocessing import read_preprocessing
from renate_stages.state import State
from renate_stages.user.config import UserConfig
from renate_stages.user.file_watch import CODE
from renate_stages.user.named import Named


def load_model(
    folder: str | Path,
    config_file: str | Path | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> RenateModule:
    """Build a model with all outputs that were added for new labels, in evaluation mode.

        model = load_model("export")
        model = load_model("state", config_file="renate_config.py")

    Args:
        folder: `export/`, a champion, or a state.
        config_file: The file with `model_fn`; None: `renate_config.py` in the folder, which
            `export/` has.
        hyperparameters: Values for `model_fn`; None: those that `export/` records.

    Returns:
        The model; what `model_fn` returned, as a `RenateModule`.

    Raises:
        MissingFileError: If the folder has neither an exported model nor a state, or no code.
        ModelMismatchError: If `model_fn` builds another model.
    """
    folder = Path(folder)
    code = Path(config_file) if config_file is not None else folder / CODE
    if (folder / DESCRIPTION).is_file():
        exported = Exported.read(folder)
        named = exported.named
        values, task_id = exported.hyperparameters, exported.task_id
    else:
        made, name = State.open(folder).provenance, files.read_json(folder / "model.json")["class"]
        named = Named(name if name in MODELS else None, optional=True, reads_data=False)
        values, task_id = {}, made.task_ids[str(made.update)]
    given = values if hyperparameters is None else hyperparameters
    return build_model(user_of(folder, code, named), given, folder, task_id).eval()


def user_of(folder: Path, code: Path, named: Named) -> UserConfig:
    """Return the functions that build a model, with its preprocessing.

    Args:
        folder: `export/`, a champion, or a state.
        code: The file with the functions.
        named: What replaces them.
    """
    user = UserConfig.load(code, named=named)
    user.preprocessing = read_preprocessing(folder)
    return user
