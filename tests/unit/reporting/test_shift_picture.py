"""The picture of the most shifted features, and the map of shifted pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from renate_stages.reporting.shift_picture import _places, draw_shift
from renate_stages.shift.data_metrics import ShiftFigures
from renate_stages.shift.features import FeatureShift, write_features

NAMES = {
    "image": [f"[{y}, {x}]" for y in range(8) for x in range(8)],
    "few": ["age", "income"],
    "many": [f"a rather long name of the feature with number {n}" for n in range(200)],
}


def write_shift(folder: Path, names: list[str], shifted: int = 0) -> tuple[Path, ShiftFigures]:
    """Write the given features with decreasing shift, and figures for them."""
    distances = np.linspace(0.9, 0, len(names))
    path = folder / "shift.csv"
    pairs = zip(names, distances.tolist(), strict=True)
    write_features(path, [FeatureShift(name, d, 1 - d, d) for name, d in pairs])
    summary = {"compared": len(names), "most_shifted": names[0], "shifted": shifted}
    return path, ShiftFigures.model_validate({"features": summary})


@pytest.mark.parametrize("name", NAMES)
def test_shift_picture_is_drawn_with_identical_bytes(tmp_path, name):
    path, figures = write_shift(tmp_path, NAMES[name], shifted=1)
    found = [
        draw_shift(tmp_path / folder, path, figures, (8, 8) if name == "image" else ())
        for folder in "ab"
    ]
    assert [[path.name for path in each] for each in found] == [["shift_features.png"]] * 2
    (one,), (other,) = found
    assert one.read_bytes() == other.read_bytes()


def test_image_features_add_a_pixel_map_to_the_bar_plot(tmp_path):
    path, figures = write_shift(tmp_path, NAMES["image"])
    (bars,) = draw_shift(tmp_path / "a", path, figures)
    (both,) = draw_shift(tmp_path / "b", path, figures, (8, 8))
    with Image.open(bars) as one, Image.open(both) as other:
        assert other.width > 1.5 * one.width


def test_no_shift_picture_is_drawn_without_features(tmp_path):
    assert draw_shift(tmp_path, tmp_path / "shift.csv", None) == []
    write_features(tmp_path / "shift.csv", [])
    assert draw_shift(tmp_path, tmp_path / "shift.csv", None) == []
    path, _ = write_shift(tmp_path, NAMES["few"])
    assert draw_shift(tmp_path, path, None) == [], "an older release wrote no feature figures"


def test_shift_of_a_pixel_is_the_largest_shift_of_its_colour_channels():
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
def test_features_that_are_not_pixels_have_no_map(feature, shape):
    assert _places([{"feature": feature, "distance": 0.5}], shape) is None


def test_bars_say_what_changed_for_each_kind_of_feature(tmp_path, monkeypatch):
    texts: list[str] = []
    monkeypatch.setattr(Axes, "annotate", lambda self, text, *_, **__: texts.append(text))
    path, figures = write_shift(tmp_path, NAMES["few"])
    write_features(
        path,
        [
            FeatureShift("age", 0.3, 0.001, 0.5, missing_change=0.124, missing_p_value=1e-9),
            FeatureShift("city", 0.2, 0.01, None, kind="categorical"),
        ],
    )
    assert len(draw_shift(tmp_path, path, figures)) == 1
    assert texts == ["p 0.001, mean +0.50 sd, missing +12%", "p 0.01"]
    old = [",".join(line.split(",")[:5]) for line in path.read_text().splitlines()]
    path.write_text("\n".join(old) + "\n")  # as an old release wrote it
    assert len(draw_shift(tmp_path, path, figures)) == 1
    assert texts[2:] == ["p 0.001, mean +0.50 sd", "p 0.01"]
