"""The program files in `export/`: the program, its description, labels, and ONNX.

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

from renate_stages import files
from renate_stages.errors import MissingExtraError
from renate_stages.files import typed
from renate_stages.files.typed import Content, Count
from renate_stages.params import Params
from renate_stages.state import State

if TYPE_CHECKING:
    from renate_stages.export.built_model import BuiltModel
    from renate_stages.export.program import Program

PROGRAM = "model.pt2"
DESCRIPTION = "program.json"
LABELS = "labels.json"
ONNX = "model.onnx"
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # those of the extra


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


def write_program(folder: Path, state: State, params: Params, built: BuiltModel) -> dict[str, str]:
    """Write the files above; return, by name of a file that is not there, in one line why.

    Args:
        folder: Where `export/` is being written.
        state: What the update left.
        params: Without spaces, as `Params.fixed` returns them.
        built: The model, and examples that say what its inputs look like.
    """
    from renate_stages.export.program import UnexportableModelError, name_of, trace

    task_id = params.update.task_id
    described: dict[str, Any] = {
        "task_id": task_id,
        "transforms": {
            "test_transform": name_of(built.transforms[0]),
            "test_target_transform": name_of(built.transforms[1]),
        },
    }
    columns = None
    lacking: dict[str, str] = {}
    try:
        if built.inputs is None:
            reason = "the state keeps no example that says what inputs look like"
            raise UnexportableModelError(reason)
        program = trace(built.model, built.inputs, task_id, ragged=built.ragged)
        program.write(folder / PROGRAM)
        described |= {"inputs": program.inputs, "outputs": program.outputs, "program": PROGRAM}
        columns = program.columns
        if params.export.onnx:
            reason = _write_onnx(program, built.inputs, folder / ONNX)
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
    from renate_stages.export.onnx_program import write_onnx
    from renate_stages.export.program import UnexportableModelError

    try:
        write_onnx(program, batch, path)
    except UnexportableModelError as error:
        return str(error)
    return None


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
    from renate_stages.export.onnx_program import onnx_name

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
