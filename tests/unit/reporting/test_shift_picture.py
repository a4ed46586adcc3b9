"""The picture of features that shifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renate_stages.reporting.shift_picture import _places, draw_shift
from renate_stages.shift.data_metrics import ShiftFigures
from renate_stages.shift.features import FeatureShift, write_features

NAMES = {
    "image": [f"[{y}, {x}]" for y in range(8) for x in range(8)],
    "few": ["age", "income"],
    "many": [f"a rather long name of the feature with number {n}" for n in range(200)],
}


def written(folder: Path, names: list[str], shifted: int = 0) -> tuple[Path, ShiftFigures]:
    """Write features, each less shifted than the one before."""
    distances = np.linspace(0.9, 0, len(names))
    path = folder / "shift.csv"
    pairs = zip(names, distances.tolist(), strict=True)
    write_features(path, [FeatureShift(name, d, 1 - d, d) for name, d in pairs])
    told = {"compared": len(names), "most_shifted": names[0], "shifted": shifted}
    return path, ShiftFigures.model_validate({"features": told})


@pytest.mark.parametrize("name", NAMES)
def test_it_is_drawn_with_equal_bytes(tmp_path, name):
    path, figures = written(tmp_path, NAMES[name], shifted=1)
    found = [
        draw_shift(tmp_path / folder, path, figures, (8, 8) if name == "image" else ())
        for folder in "ab"
    ]
    assert [[path.name for path in each] for each in found] == [["shift_features.png"]] * 2
    (one,), (other,) = found
    assert one.read_bytes() == other.read_bytes()


def test_an_image_has_a_map_beside_the_bars(tmp_path):
    path, figures = written(tmp_path, NAMES["image"])
    (bars,) = draw_shift(tmp_path / "a", path, figures)
    (both,) = draw_shift(tmp_path / "b", path, figures, (8, 8))
    with Image.open(bars) as one, Image.open(both) as other:
        assert other.width > 1.5 * one.width


def test_without_features_there_is_nothing_to_draw(tmp_path):
    assert draw_shift(tmp_path, tmp_path / "shift.csv", None) == []
    write_features(tmp_path / "shift.csv", [])
    assert draw_shift(tmp_path, tmp_path / "shift.csv", None) == []
    path, _ = written(tmp_path, NAMES["few"])
    assert draw_shift(tmp_path, path, None) == [], "figures of an older release"


def test_a_pixel_is_as_far_shifted_as_the_most_shifted_of_its_colours():
    found = [
        {"feature": "[0, 1, 2]", "distance": 0.5},
        {"feature": "[2, 1, 2]", "distance": 0.7},
        {"feature": "[1, 5, 0]", "distance": 0.2},
    ]
    places = _places(found, (3, 6, 9))
    assert places is not None and places.shape == (6, 9)
    assert (places[1, 2], places[5, 0]) == (0.7, 0.2) and np.isfinite(places).sum() == 2
    last = [{"feature": "[1, 2, 0]", "distance": 0.5}]
    places = _places(last, (6, 9, 3))
    assert places is not None and places.shape == (6, 9) and places[1, 2] == 0.5


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        ("[3]", (9,)),
        ("age", (8, 8)),
        ("[1, 2]", ()),
        ("[1, 2]", (3, 6, 9)),
        ("[1, 2, 3]", (9, 9, 9)),
    ],
)
def test_what_is_no_image_has_no_map(feature, shape):
    assert _places([{"feature": feature, "distance": 0.5}], shape) is None
