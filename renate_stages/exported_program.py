"""What `export/` holds beside the weights: the model as a program, its labels, what it takes.

model.pt2       a `torch.export` program with dynamic batch size; missing where PyTorch cannot
                trace the model, and `program.json` and the model card say why
program.json    dtypes and shapes of its inputs and outputs, its task, the transforms to apply
labels.json     the number of outputs, and the classes met so far: class c is column c
model.onnx      the same in ONNX format, where `export.onnx` asks for it; missing where PyTorch cannot
                convert the program, and `program.json` and the model card say why
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from renate_stages import files, typed
from renate_stages.errors import MissingExtraError
from renate_stages.params import Params
from renate_stages.state import SPLITS, State
from renate_stages.typed import Content, Count
from renate_stages.user_config import Transforms, UserConfig

if TYPE_CHECKING:
    from renate_stages.models.program import Program

PROGRAM = "model.pt2"
DESCRIPTION = "program.json"
LABELS = "labels.json"
ONNX = "model.onnx"
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # those of the extra
EXAMPLES = 8  # rows that the program is compared with the model on


class _Tensor(Content):
    dtype: str
    name: str | None
    shape: list[Count | None]


class Described(Content):
    """What `program.json` says: which inputs the program takes; None where there is none, and why."""

    program: Literal["model.pt2"] | None
    reason: str = ""
    inputs: list[_Tensor] = Field(default=[])
    outputs: list[_Tensor] = Field(default=[])


def read_description(folder: Path) -> Described:
    """Read `program.json` of an `export/`.

    Raises:
        MalformedFileError: If it is not what `write_program` writes.
    """
    path = folder / DESCRIPTION
    return typed.read_json(Described, path, "an exported program", typed.RUN_AGAIN)


def check_onnx(params: Params) -> None:
    """Refuse a wish for ONNX that cannot be met, before any work.

    Raises:
        MissingExtraError: If its packages are not installed.
    """
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if params.export.onnx and missing:
        raise MissingExtraError("export.onnx", " and ".join(missing), "onnx")


def write_program(folder: Path, state: State, params: Params, user: UserConfig) -> dict[str, str]:
    """Write the files above; return, by name of a file that is not there, in one line why.

    Args:
        folder: Where `export/` is being written.
        state: What the update left; an example of it says what inputs look like.
        params: Without spaces, as `Params.fixed` returns them.
        user: Whose `model_fn` and transforms count.

    Raises:
        RenateStagesError: If the user's functions fail.
    """
    from renate_stages.models.program import UnexportableModelError, name_of, trace
    from renate_stages.models.stored import build_model

    task_id = params.update.task_id
    transforms = user.transforms(params.hyperparameters)
    described: dict[str, Any] = {
        "task_id": task_id,
        "transforms": {
            "test_transform": name_of(transforms.test[0]),
            "test_target_transform": name_of(transforms.test[1]),
        },
    }
    columns = None
    lacking: dict[str, str] = {}
    try:
        batch, ragged = _example_batch(state, transforms)
        model = build_model(user, params.hyperparameters, state.folder, task_id)
        program = trace(model, batch, task_id, ragged=ragged)
        program.write(folder / PROGRAM)
        described |= {"inputs": program.inputs, "outputs": program.outputs, "program": PROGRAM}
        columns = program.columns
        if params.export.onnx:
            reason = _write_onnx(program, batch, folder / ONNX)
            described |= {"onnx": None, "onnx_reason": reason} if reason else {"onnx": ONNX}
            if reason:
                lacking[ONNX] = f"PyTorch could not convert the program: {reason}"
    except UnexportableModelError as error:
        lacking[PROGRAM] = f"PyTorch could not trace the model: {error}"
        described |= {"program": None, "reason": str(error)}
    files.write_json(folder / DESCRIPTION, described)
    classes = list(state.provenance.classes)
    files.write_json(folder / LABELS, {"classes": classes, "columns": columns})
    return lacking


def _write_onnx(program: Program, batch: Any, path: Path) -> str | None:
    """Write the file; return in one line why it could not be, or None."""
    from renate_stages.models.onnx_program import write_onnx
    from renate_stages.models.program import UnexportableModelError

    try:
        write_onnx(program, batch, path)
    except UnexportableModelError as error:
        return str(error)
    return None


def _example_batch(state: State, transforms: Transforms) -> tuple[Any, bool]:
    """Return inputs of some kept examples as the model gets them, and whether lengths vary."""
    from renate_stages.data import StoredDataset
    from renate_stages.models.program import UnexportableModelError

    kept = [store for split in SPLITS for store in reversed(state.split(split).values())]
    store = next((each for each in [*kept, state.memory()] if len(each)), None)
    if store is None or store.spec is None:
        raise UnexportableModelError("the state keeps no example that says what inputs look like")
    rows = [row % len(store) for row in range(max(3, min(EXAMPLES, len(store))))]
    inputs, _ = StoredDataset(store, None, *transforms.test).__getitems__(rows)
    # An encoded image is ragged bytes on disk, and an array of one shape for the model.
    fields = store.spec.fields.items()
    of_inputs = [field for name, field in fields if name.split(".")[0] == "inputs"]
    return inputs, any(field.ragged and not field.decoder for field in of_inputs)


def card_section(folder: Path) -> str:
    """Return what a model card says of the program, as Markdown.

    Args:
        folder: An `export/` whose program is written.
    """
    described, labels = (files.read_json(folder / name) for name in (DESCRIPTION, LABELS))
    if described["program"] is None:
        return (
            "## Program\n\nThere is no `model.pt2`: PyTorch could not trace the model "
            f"(`{described['reason']}`). The update is not touched by that.\n"
        )
    lines = [
        "## Program",
        "",
        "`model.pt2` needs neither the model's code nor renate-stages, and takes batches of any size:",
        "",
        "```python",
        "import torch",
        "",
        'model = torch.export.load("model.pt2").module()',
        "```",
        "",
        *(f"- input: {_shown(each)}" for each in described["inputs"]),
        *(f"- output: {_shown(each)}" for each in described["outputs"]),
        f"- task: `{described['task_id']}`",
    ]
    if transform := described["transforms"]["test_transform"]:
        lines.append(f"- before it: the `test_transform` of `renate_config.py` (`{transform}`)")
    if labels["classes"] and labels["columns"]:
        met = ", ".join(map(str, labels["classes"]))
        lines.append(f"- column c of the output is class c; classes met so far: {met}")
    return "\n".join([*lines, *_onnx_lines(described), ""])


def _onnx_lines(described: dict[str, Any]) -> list[str]:
    """Say how the ONNX file is run, or why there is none; nothing where none was asked for."""
    from renate_stages.models.onnx_program import onnx_name

    if "onnx" not in described:
        return []
    if described["onnx"] is None:
        reason = described["onnx_reason"]
        return ["", f"There is no `{ONNX}`: PyTorch could not convert the program (`{reason}`)."]
    given = ", ".join(f'"{onnx_name("inputs", each)}": ...' for each in described["inputs"])
    named = ", ".join(f"`{onnx_name('outputs', each)}`" for each in described["outputs"])
    return [
        "",
        f"`{ONNX}` is the same program for ONNX Runtime and others, without PyTorch; it gives {named}:",
        "",
        "```python",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{ONNX}")',
        f"outputs = session.run(None, {{{given}}})  # NumPy arrays, as above",
        "```",
    ]


def _shown(tensor: dict[str, Any]) -> str:
    shape = ", ".join("any" if size is None else str(size) for size in tensor["shape"])
    name = f"`{tensor['name']}` " if tensor["name"] else ""
    return f"{name}{tensor['dtype']} ({shape})"
