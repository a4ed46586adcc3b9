"""Folders of images go through two updates with no code of the user's."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_project import edit_params, move_on, quiet, run, snapshot

from renate_stages.errors import (
    ChangedPreprocessingError,
    NoPredictionsError,
    ReusedNamesError,
    TooManyRejectedError,
)
from renate_stages.export import load
from renate_stages.preprocessing import read_preprocessing
from renate_stages.stages import export, prepare

CONFIG = """\
import torch


def loss_fn():
    return torch.nn.CrossEntropyLoss(reduction="none")
"""
SETTINGS = {
    "data__module": {"name": "images", "channels": 1, "size": 8},
    "data__max_rejected": 0.1,
    "model": "SmallCNN",
    "hyperparameters": {
        "optimizer": "AdamW",
        "learning_rate": 0.01,
        "batch_size": 16,
        "memory_batch_size": 16,
        "memory_size": 20,
        "width": 4,
    },
    "shift__permutations": 20,
}


def write(folder: Path, classes: str, rows: int = 20, brighter: int = 0) -> None:
    """Write images of several sizes, whose brightness tells the class."""
    shutil.rmtree(folder)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for row in range(rows):
            pixels = np.full((8 + row % 3, 9, 3), 60 * place + row + brighter, np.uint8)
            stream = BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            (folder / name / f"{classes}-{row}.png").write_bytes(stream.getvalue())


def reference(path: Path, fitted: dict) -> np.ndarray:
    """Return what the model gets for an image that is at least 8 pixels high and 9 wide."""
    with Image.open(path) as image:
        grey = image.convert("L")
    scale = max(8 / grey.height, 8 / grey.width)
    size = round(grey.width * scale), round(grey.height * scale)
    pixels = np.array(grey.resize(size, Image.Resampling.BILINEAR))
    top, left = (pixels.shape[0] - 8) // 2, (pixels.shape[1] - 8) // 2
    pixels = pixels[top : top + 8, left : left + 8]
    return ((pixels / 255 - fitted["mean"]) / fitted["std"])[None]


def test_all_images_are_listed_if_none_can_be_read(project):
    edit_params(project, **SETTINGS)
    project.user_config.write_text(CONFIG)
    shutil.rmtree(project.incoming)
    for number in range(12):
        path = project.incoming / "a" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TooManyRejectedError, match=r"12 of 12 rows.*(?s:.)*\.renate/rejected\.csv"):
        prepare.run(project, quiet)
    assert (project.scratch / "rejected.csv").read_text().count(".png") == 12


def test_two_updates_of_folders_of_images(project):
    edit_params(project, **SETTINGS)
    project.user_config.write_text(CONFIG)
    write(project.incoming, "ab")
    (project.incoming / "a" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    edit_params(project, data__max_rejected=0)
    with pytest.raises(TooManyRejectedError, match=r"\.renate/rejected\.csv"):
        prepare.run(project, quiet)
    assert (project.scratch / "rejected.csv").read_text().count("a/cut.png") == 1
    edit_params(project, data__max_rejected=0.1)
    state = run(project)
    assert (project.prepared / "rejected.csv").read_text().count("a/cut.png") == 1
    assert list(state.provenance.labels) == ["a", "b"]
    first = read_preprocessing(project.state)
    assert first is not None and first.content()["mean"] is not None

    move_on(project)
    write(project.incoming, "ab", brighter=100)  # a camera that numbers from 0 again
    before = snapshot(project)
    with pytest.raises(
        ReusedNamesError, match=r"with the name of a row .*: [ab]/ab-\d+\.png, .* more"
    ):
        prepare.run(project, quiet)
    assert snapshot(project) == before

    write(project.incoming, "abc")
    state = run(project)
    assert list(state.provenance.labels) == ["a", "b", "c"]
    export.run(project, quiet)
    files = sorted(project.incoming.rglob("*.png"))
    deployed = load(project.export)
    inputs = np.stack([reference(path, first.content()) for path in files])
    with torch.inference_mode():
        expected = deployed.model(torch.from_numpy(inputs).float())
    torch.testing.assert_close(deployed.outputs(files), expected, atol=1e-4, rtol=1e-4)
    predicted = [("a", "b", "c")[column] for column in expected.argmax(dim=1).tolist()]
    assert (
        deployed.predict([path.read_bytes() for path in files])["prediction"].tolist() == predicted
    )
    table = pd.DataFrame({"image": files}, index=range(5, 5 + len(files)))
    assert deployed.predict(table)["prediction"].to_dict() == dict(enumerate(predicted, 5))
    for rows, problem in (
        (table.rename(columns={"image": "x"}), "no column 'image'"),
        (files[0], "found one PosixPath"),
    ):
        with pytest.raises(NoPredictionsError, match=problem):
            deployed.predict(rows)
    assert (
        "| `image` | bytes of a JPEG or PNG file | no |"
        in (project.export / "MODEL_CARD.md").read_text()
    )
    assert read_preprocessing(project.state).content() == first.content()

    move_on(project)
    edit_params(project, data__module={"name": "images", "channels": 1, "size": 9})
    with pytest.raises(ChangedPreprocessingError, match=r"size is \(9, 9\), not \(8, 8\)"):
        prepare.run(project, quiet)
