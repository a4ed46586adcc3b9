"""Write the program files in `export/`: the program, its description, labels, and ONNX.

model.pt2       a `torch.export` program with dynamic batch size; missing if PyTorch cannot trace the
                model, with the reason in `program.json` and the model card
program.json    dtypes and shapes of its inputs and outputs, its task, the transforms to apply: first
                `preprocessing`, if the folder of that name exists, then `test_transform`
labels.json     the number of outputs, and the classes seen so far: class c is column c; with one output
                it is the log-odds of class 1. `names`, if labels have names, has that of each class;
                `task`, if it is known, is the name of the task
model.onnx      the program in ONNX format if `export.onnx` is set; missing if PyTorch cannot convert
                the program, with the reason in `program.json` and the model card
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
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # packages of the extra `onnx`


class _Tensor(Content):
    dtype: str
    name: str | None
    shape: list[Count | None]


class Labels(Content):
    """The content of `labels.json`."""

    names: list[str] = Field(default=[])
    task: str | None = None


class Described(Content):
    """The content of `program.json`; without a program, `program` is None and `reason` says why."""

    program: Literal["model.pt2"] | None
    reason: str = ""
    inputs: list[_Tensor] = Field(default=[])
    outputs: list[_Tensor] = Field(default=[])


def read_description(folder: Path) -> Described:
    """Read `program.json` in an `export/` folder.

    Raises:
        MalformedFileError: If it does not have the form that `write_program` writes.
    """
    path = folder / DESCRIPTION
    return typed.read_json(Described, path, "an exported program", typed.RUN_AGAIN)


def read_labels(folder: Path) -> Labels:
    """Read `labels.json` in an `export/` folder.

    Raises:
        MalformedFileError: If it does not have the form that `write_program` writes.
    """
    return typed.read_json(Labels, folder / LABELS, "the labels of a model", typed.RUN_AGAIN)


def check_onnx(params: Params) -> None:
    """Check before any work that the packages for `export.onnx` are installed.

    Raises:
        MissingExtraError: If a package is missing.
    """
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if params.export.onnx and missing:
        raise MissingExtraError("export.onnx", " and ".join(missing), "onnx")


def write_program(folder: Path, state: State, params: Params, built: BuiltModel) -> dict[str, str]:
    """Write the program files; return a one-line reason for each missing file, by file name.

    Args:
        folder: Folder in which `export/` is being written.
        state: The update's state.
        params: Parameters without search spaces, as `Params.fixed` returns them.
        built: The model with example inputs.
    """
    from renate_stages.export.program import UnexportableModelError, name_of, trace

    task_id = params.update.task_id
    first = built.preprocessing
    described: dict[str, Any] = {
        "task_id": task_id,
        "transforms": {
            **({} if first is None else {"preprocessing": first.kind}),
            "test_transform": name_of(built.own_transform),
            "test_target_transform": name_of(built.transforms[1]),
        },
    }
    columns = None
    lacking: dict[str, str] = {}
    try:
        if built.inputs is None:
            reason = "the state has no example from which to get the inputs' structure"
            raise UnexportableModelError(reason)
        program = trace(built.model, built.inputs, task_id, ragged=built.ragged)
        program.write(folder / PROGRAM)
        described |= {"inputs": program.inputs, "outputs": program.outputs, "program": PROGRAM}
        columns = program.columns(3 if state.provenance.task == "tokens" else 2)
        if params.export.onnx:
            reason = _write_onnx(program, built.inputs, folder / ONNX)
            described |= {"onnx": None, "onnx_reason": reason} if reason else {"onnx": ONNX}
            if reason:
                lacking[ONNX] = f"PyTorch could not convert the program: {reason}"
    except UnexportableModelError as error:
        lacking[PROGRAM] = f"PyTorch could not trace the model: {error}"
        described |= {"program": None, "reason": str(error)}
    files.write_json(folder / DESCRIPTION, described)
    labels: dict[str, Any] = {"classes": list(state.provenance.classes), "columns": columns}
    labels |= {"names": list(state.provenance.labels)} if state.provenance.labels else {}
    labels |= {"task": state.provenance.task} if state.provenance.task else {}
    files.write_json(folder / LABELS, labels)
    return lacking


def _write_onnx(program: Program, batch: Any, path: Path) -> str | None:
    """Write the file; return None, or the reason in one line if that fails."""
    from renate_stages.export.onnx_program import write_onnx
    from renate_stages.export.program import UnexportableModelError

    try:
        write_onnx(program, batch, path)
    except UnexportableModelError as error:
        return str(error)
    return None


def card_section(folder: Path) -> str:
    """Return the model card's section on the program, as Markdown.

    Args:
        folder: An `export/` folder with the program files.
    """
    described, labels = (files.read_json(folder / name) for name in (DESCRIPTION, LABELS))
    if described["program"] is None:
        return (
            "## Program\n\nThere is no `model.pt2`: PyTorch could not trace the model "
            f"(`{described['reason']}`). This does not affect the update.\n"
        )
    lines = [
        "## Program",
        "",
        "`model.pt2` needs neither the model's code nor renate-stages, and accepts any batch size:",
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
    first = []
    if "preprocessing" in described["transforms"]:
        first.append("the preprocessing in `preprocessing/`")
    if transform := described["transforms"]["test_transform"]:
        first.append(f"the `test_transform` of `renate_config.py` (`{transform}`)")
    if first:
        lines.append(f"- apply first: {', then '.join(first)}")
    names = labels.get("names", [])
    if (labels["classes"] or names) and labels["columns"]:
        met = ", ".join(
            f"{c} ({names[c]})" if c < len(names) else str(c)
            for c in labels["classes"] or range(len(names))
        )
        meaning = "column c of the output is class c"
        if labels["columns"] == 1:
            meaning = "the output is the log-odds of class 1 against class 0"
        lines.append(f"- {meaning}; classes seen so far: {met}")
    return "\n".join([*lines, *_onnx_lines(described), ""])


def _onnx_lines(described: dict[str, Any]) -> list[str]:
    """Return how to run the ONNX file, or why it is missing; empty if it was not requested."""
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
        f"`{ONNX}` is the same program without PyTorch, for ONNX Runtime and others; outputs: {named}.",
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
