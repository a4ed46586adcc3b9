"""Random changes of training images equal plain references, and reach training examples alone."""

from __future__ import annotations

import colorsys
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional

from renate_stages.errors import InvalidAugmentationError
from renate_stages.preprocessing.augmentation import CHANGES, Augmentation
from renate_stages.preprocessing.images import ImagePreprocessing

SIZE = (6, 9)


@pytest.fixture
def images():
    return torch.rand(64, 3, *SIZE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def changed(images, name, **arguments):
    before = images.clone()
    found = Augmentation([{"name": name, **arguments}], SIZE)(images)
    assert found.shape == images.shape and found.dtype == images.dtype
    assert torch.equal(images, before), "the batch itself must not change"
    assert found.min() >= 0 and found.max() <= 1
    return found


def positions(found, candidates):
    """Return for each image the number of the candidate that it equals; exactly one must."""
    equal = torch.stack([(found == each).flatten(1).all(1) for each in candidates], dim=1)
    assert (equal.sum(1) == 1).all()
    return equal.int().argmax(1)


@pytest.mark.parametrize(
    ("name", "axis"), [("RandomHorizontalFlip", -1), ("RandomVerticalFlip", -2)]
)
def test_flip_mirrors_the_chosen_share_of_images(name, axis):
    images = torch.rand(4000, 1, 2, 2)
    which = positions(changed(images, name, p=0.3), [images, images.flip(axis)])
    assert abs(which.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    assert torch.equal(changed(images, name, p=1), images.flip(axis))
    assert torch.equal(changed(images, name, p=0), images)


@pytest.mark.parametrize(
    ("padding_mode", "numpys", "fill"),
    [
        ("constant", {"mode": "constant", "constant_values": 0.25}, 0.25),
        ("edge", {"mode": "edge"}, 0),
        ("reflect", {"mode": "reflect"}, 0),
        ("symmetric", {"mode": "symmetric"}, 0),
    ],
)
@pytest.mark.parametrize("padding", [[8], [1, 2], [0, 3, 2, 1]])
def test_crop_equals_a_slice_of_the_padded_image(images, padding, padding_mode, numpys, fill):
    left, top, right, bottom = padding * (4 // len(padding))
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = torch.from_numpy(np.pad(images.numpy(), around, **numpys))
    height, width = SIZE
    slices = [
        padded[:, :, y : y + height, x : x + width]
        for y in range(top + bottom + 1)
        for x in range(left + right + 1)
    ]
    found = changed(images, "RandomCrop", padding=padding, padding_mode=padding_mode, fill=fill)
    equal = torch.stack([(found == each).flatten(1).all(1) for each in slices], dim=1)
    assert equal.any(1).all()
    assert len(equal.int().argmax(1).unique()) > 3


def test_places_of_crops_are_equally_likely():
    images = torch.arange(1, 5.0).reshape(1, 1, 2, 2).div(4).repeat(9000, 1, 1, 1)
    found = changed(images, "RandomCrop", padding=1)
    counts = torch.unique(found, dim=0, return_counts=True)[1]
    assert len(counts) == 9  # three places along each side
    assert ((counts - 1000).abs() < 4 * math.sqrt(9000 / 9 * 8 / 9)).all()


@pytest.mark.parametrize("angle", [0, 180, -180, 360])
def test_rotation_by_a_straight_angle_turns_the_image(images, angle):
    expected = images if angle in (0, 360) else images.flip(-1, -2)
    for interpolation in ("nearest", "bilinear"):
        found = changed(
            images, "RandomRotation", degrees=[angle, angle], interpolation=interpolation
        )
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_rotation_by_a_right_angle_is_counter_clockwise():
    images = torch.rand(2, 3, 6, 6)
    found = changed(images, "RandomRotation", degrees=[90, 90])
    torch.testing.assert_close(found, images.rot90(1, (-2, -1)), atol=2e-6, rtol=0)


def test_rotation_keeps_shapes_on_images_that_are_not_square():
    """In an image of 6 x 9 pixels turned by 90 degrees, the middle 6 columns are those rows turned."""
    images = torch.rand(2, 1, 6, 10)
    found = changed(images, "RandomRotation", degrees=[90, 90], fill=0.5)
    torch.testing.assert_close(
        found[..., 2:8], images[..., 2:8].rot90(1, (-2, -1)), atol=2e-6, rtol=0
    )
    assert (found[..., :2] - 0.5).abs().max() < 1e-6  # outside the image


def test_angles_are_uniform_in_both_directions():
    """A pixel right of the centre goes up if the angle is above 0, and down otherwise."""
    images = torch.zeros(2000, 1, 9, 9)
    images[:, :, 4, 8] = 1
    found = changed(images, "RandomRotation", degrees=40)
    up, down = found[:, 0, :4].sum((1, 2)) > 0, found[:, 0, 5:].sum((1, 2)) > 0
    assert not (up & down).any()
    assert abs(up.float().mean() - down.float().mean()) < 4 / math.sqrt(2000)
    assert up.float().mean() > 0.4


def test_resized_crop_equals_interpolation_of_a_slice():
    height, width = 4, 5
    images = torch.rand(30, 2, height, width)
    found = Augmentation([{"name": "RandomResizedCrop", "scale": [0.2, 0.9]}])(images)
    seen = set()
    for image, result in zip(images, found, strict=True):
        sizes = [(h, w) for h in range(1, height + 1) for w in range(1, width + 1)]
        places = [
            (y, x, h, w)
            for h, w in sizes
            for y in range(height - h + 1)
            for x in range(width - w + 1)
        ]
        matching = [
            (y, x, h, w)
            for y, x, h, w in places
            if torch.equal(
                functional.interpolate(
                    image[None, :, y : y + h, x : x + w],
                    (height, width),
                    mode="bilinear",
                    antialias=True,
                )[0],
                result,
            )
        ]
        assert len(matching) == 1
        _, _, h, w = matching[0]
        assert 0.1 <= h * w / (height * width) <= 1 and 0.5 <= w / h <= 2
        seen.add(matching[0])
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [([8, 9], (slice(2, 3), slice(0, 9))), ([0.1, 0.1], (slice(0, 6), slice(4, 5)))],
)
def test_resized_crop_without_a_fitting_draw_is_the_centre(images, ratio, expected):
    found = changed(
        images[:2], "RandomResizedCrop", scale=[1, 1], ratio=ratio, interpolation="nearest"
    )
    crop = images[:2, :, expected[0], expected[1]]
    assert torch.equal(found, functional.interpolate(crop, SIZE, mode="nearest"))


def grey(image):
    return (image * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0)


REFERENCES = {
    "brightness": lambda image, factor: factor * image,
    "contrast": lambda image, factor: grey(image).mean() * (1 - factor) + factor * image,
    "saturation": lambda image, factor: grey(image) * (1 - factor) + factor * image,
}


@pytest.mark.parametrize("argument", REFERENCES)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.7])
def test_colours_change_by_a_factor(images, argument, factor):
    found = changed(images, "ColorJitter", **{argument: [factor, factor]})
    expected = torch.stack([REFERENCES[argument](each, factor).clamp(0, 1) for each in images])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.07, 0.3, 0.5])
def test_hue_turns_and_saturation_and_value_stay(images, turn):
    images = images.clone()
    images[0, :, 0, :4] = torch.tensor([[0.0, 1.0, 0.5, 0.7]])  # grey
    images[1, :, 0, 0] = torch.tensor([0.6, 0.6, 0.1])  # two largest values
    found = changed(images, "ColorJitter", hue=[turn, turn])
    for image, after in zip(images, found, strict=True):
        for pixel, other in zip(image.flatten(1).T.tolist(), after.flatten(1).T, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
            torch.testing.assert_close(other, torch.tensor(expected), atol=1e-5, rtol=0)


def test_hue_of_grey_images_stays(images):
    dark = images[:, :1]
    assert torch.equal(changed(dark, "ColorJitter", hue=0.5), dark)


def test_factors_of_colours_are_uniform_around_one(images):
    dark = torch.full((4000, 1, 1, 1), 0.25)
    factors = changed(dark, "ColorJitter", brightness=0.5).flatten() * 4
    assert 0.5 <= factors.min() < 0.51 and 1.49 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 4 * math.sqrt(1 / 12 / 4000)
    assert 0 <= changed(dark, "ColorJitter", brightness=3).min() < 0.01  # factors below 0 become 0
    assert torch.equal(changed(dark, "ColorJitter", saturation=[0, 0]), dark)


def test_colours_change_in_each_order_equally_often():
    images = torch.tensor([0.8, 0.4, 0.1]).reshape(1, 3, 1, 1).repeat(3000, 1, 1, 2)
    images[..., 1] /= 2
    factors = {"brightness": 1.6, "contrast": 0.5, "saturation": 4.0}
    arguments = {name: [factor, factor] for name, factor in factors.items()}
    found = changed(images, "ColorJitter", **arguments)
    orders = []
    for order in permutations(factors):
        image = images[0]
        for name in order:
            image = REFERENCES[name](image, factors[name]).clamp(0, 1)
        orders.append(image)
    distances = torch.stack([(found - each).abs().flatten(1).amax(1) for each in orders], dim=1)
    assert (distances.amin(1) < 1e-6).all()
    counts = (distances < 1e-6).sum(0)
    alike = torch.stack([(each - torch.stack(orders)).abs().flatten(1).amax(1) for each in orders])
    expected = 500 * (alike < 1e-6).sum(0)  # some orders have equal results
    assert len(expected) == 6 and ((counts - expected).abs() < 4 * expected.sqrt()).all()
    assert (expected == 500).sum() >= 4


def test_erasing_overwrites_one_rectangle_of_the_chosen_share():
    images = torch.full((3000, 2, 20, 12), 0.5)
    found = changed(images, "RandomErasing", p=0.4, scale=[0.1, 0.3], ratio=[0.5, 4], value=0.75)
    erased = found != 0.5
    assert (found[erased] == 0.75).all() and torch.equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[:, 0].any(2), erased[:, 0].any(1)
    heights, widths = rows.sum(1), columns.sum(1)
    # All of the rows times all of the columns, each without a gap: a rectangle.
    assert torch.equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
    for sides in (rows, columns):
        edges = sides.int().diff(dim=1).abs().sum(1) + sides[:, 0].int() + sides[:, -1].int()
        assert set(edges.unique().tolist()) <= {0, 2}
    which = heights > 0
    assert abs(which.float().mean() - 0.4) < 4 * math.sqrt(0.24 / 3000)
    areas, ratios = heights[which] * widths[which] / 240, heights[which] / widths[which]
    assert areas.min() > 0.07 and areas.max() < 0.34 and 0.1 < areas.mean() < 0.3
    assert 0.4 < ratios.min() < 0.8 and 2.5 < ratios.max() < 5  # sides are rounded
    assert rows[which][:, 0].any() and rows[which][:, -1].any()


def test_changes_are_applied_in_order_and_drawn_anew_for_each_image(images):
    both = Augmentation(
        [{"name": "RandomErasing", "p": 1, "value": 1.0}, {"name": "RandomHorizontalFlip", "p": 1}]
    )
    torch.manual_seed(5)
    found = both(images)
    torch.manual_seed(5)
    assert torch.equal(found.flip(-1), changed(images, "RandomErasing", p=1, value=1.0))
    same = images[:1].repeat(20, 1, 1, 1)
    assert len(changed(same, "RandomCrop", padding=4).unique(dim=0)) > 10


def test_equal_seeds_give_equal_changes(images):
    everything = Augmentation(
        [
            "RandomHorizontalFlip",
            "RandomVerticalFlip",
            {"name": "RandomCrop", "padding": 2, "size": list(SIZE)},
            "RandomResizedCrop",
            {"name": "RandomRotation", "degrees": 10},
            {"name": "ColorJitter", "brightness": 0.3, "contrast": [0.5, 1.5], "saturation": 1},
            "RandomErasing",
        ],
        SIZE,
    )
    assert {each["name"] for each in everything.settings} == CHANGES.keys()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(everything(images))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("RandomHorizontalFlip", "augment: it is 'RandomHorizontalFlip'; expected a list"),
        (["HorizontalFlip"], "unknown 'HorizontalFlip', did you mean 'RandomHorizontalFlip'"),
        ([{"RandomCrop": {"padding": 4}}], "{name: RandomCrop, padding: 4}"),
        ([3], "an entry is 3"),
        (["RandomCrop"], "padding of RandomCrop is missing; expected a whole number >= 1"),
        ([{"name": "RandomCrop", "padding": 0}], "padding of RandomCrop is 0"),
        ([{"name": "RandomCrop", "padding": [1, 2, 3]}], r"padding of RandomCrop is \[1, 2, 3\]"),
        ([{"name": "RandomCrop", "padding": True}], "padding of RandomCrop is True"),
        ([{"name": "RandomCrop", "padding": 4, "size": 32}], "size of RandomCrop is 32"),
        (
            [{"name": "RandomCrop", "padding": 4, "fill": 128}],
            "fill of RandomCrop is 128; expected .* from 0 to 1",
        ),
        (
            [{"name": "RandomCrop", "padding": 4, "padding_mode": "wrap"}],
            "padding_mode of RandomCrop is 'wrap'",
        ),
        (
            [{"name": "RandomHorizontalFlip", "p": 1.5}],
            "p of RandomHorizontalFlip is 1.5; expected a number from 0 to 1",
        ),
        ([{"name": "RandomHorizontalFlip", "p": math.nan}], "p of RandomHorizontalFlip is nan"),
        (
            [{"name": "RandomHorizontalFlip", "prob": 0.5}],
            "RandomHorizontalFlip has no argument 'prob'",
        ),
        ([{"name": "RandomRotation", "degrees": -3}], "degrees of RandomRotation is -3"),
        ([{"name": "RandomRotation", "degrees": [5, -5]}], "degrees of RandomRotation is"),
        ([{"name": "ColorJitter", "brightness": -0.1}], "brightness of ColorJitter is -0.1"),
        ([{"name": "ColorJitter", "hue": 0.6}], "hue of ColorJitter is 0.6"),
        ([{"name": "ColorJitter", "gamma": 0.1}], "no argument 'gamma' .known: brightness"),
        ([{"name": "RandomErasing", "scale": [0, 0.3]}], "scale of RandomErasing is"),
        ([{"name": "RandomErasing", "scale": [0.1, 1.3]}], "scale of RandomErasing is"),
        ([{"name": "RandomErasing", "ratio": 2}], "ratio of RandomErasing is 2"),
        ([{"name": "RandomErasing", "value": "random"}], "value of RandomErasing is 'random'"),
        (
            [{"name": "RandomResizedCrop", "interpolation": "bicubic"}],
            "interpolation of RandomResizedCrop is 'bicubic'",
        ),
    ],
)
def test_unknown_names_and_values_out_of_range_are_refused_by_name(augment, message):
    with pytest.raises(InvalidAugmentationError, match=message):
        ImagePreprocessing(size=96, augment=augment)
