"""Each scenario returns the rows that its definition names, for tensors, arrays and plain items."""

import re
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from renate_stages import scenarios
from renate_stages.data import RenateDataModule
from renate_stages.errors import (
    InvalidScenarioError,
    NotAPairError,
    UnknownScenarioError,
)
from renate_stages.params.scenario import ScenarioParams
from renate_stages.scenarios import SCENARIOS, build_scenario


class Module(RenateDataModule):
    def __init__(self, train, val=None, test=None):
        super().__init__(".")
        self.given = train, val, test

    def setup(self):
        self._train_data, self._val_data, self._test_data = self.given


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def labelled(labels):
    """Return rows whose inputs are their own numbers."""
    rows = torch.arange(len(labels), dtype=torch.float32)[:, None]
    return TensorDataset(rows, torch.as_tensor(labels))


def as_items(dataset):
    return Items([(inputs, int(target)) for inputs, target in dataset])


def with_field(values, field):
    return Items([(np.float32([row]), 0, {field: each}) for row, each in enumerate(values)])


def rows_of(dataset):
    return [int(item[0][0]) for item in dataset]


def parts(scenario, train, updates, *args, val=None, test=None, **kwargs):
    """Return the rows of every update, as (train, val, test)."""
    found = []
    for chunk_id in range(updates):
        module = Module(train, val, test)
        part = scenario(module, *args, chunk_id=chunk_id, **kwargs)
        part.setup()
        data = part.train_data(), part.val_data(), part.test_data()
        found.append([None if each is None else rows_of(each) for each in data])
    return found


def train_parts(*args, **kwargs):
    return [part[0] for part in parts(*args, **kwargs)]


LABELS = [7, 3, 5, 3, 7, 5, 9, 9, 3]  # labels need not begin at 0


@pytest.mark.parametrize("form", [lambda data: data, as_items], ids=["tensors", "items"])
def test_class_incremental_gives_each_update_its_classes(form):
    data = form(labelled(LABELS))
    found = parts(
        scenarios.ClassIncrementalScenario, data, 2, groupings=[[7, 9], [3]], val=data, test=data
    )
    assert found == [[[0, 4, 6, 7]] * 3, [[1, 3, 8]] * 3]


def test_class_incremental_takes_names_of_labels():
    data = Items([(np.float32([row]), each) for row, each in enumerate(["ham", "spam", "ham"])])
    found = train_parts(scenarios.ClassIncrementalScenario, data, 2, groupings=[["spam"], ["ham"]])
    assert found == [[1], [0, 2]]


def test_number_of_updates_divides_the_classes_in_ascending_or_random_order():
    data = labelled(LABELS)
    found = train_parts(scenarios.ClassIncrementalScenario, data, 3, num_tasks=3)
    assert found == [[1, 2, 3, 5, 8], [0, 4], [6, 7]]
    orders = {
        str(
            train_parts(
                scenarios.ClassIncrementalScenario, data, 3, num_tasks=3, shuffle=True, seed=seed
            )
        )
        for seed in range(8)
    }
    assert len(orders) > 2
    assert all(sorted(chain(*eval(order))) == list(range(9)) for order in orders)


def test_rows_without_a_label_are_no_class():
    data = labelled([2, -100, 1, -100])
    found = train_parts(scenarios.ClassIncrementalScenario, data, 2, num_tasks=2)
    assert found == [[2], [0]]


def test_rows_of_a_class_in_several_groups_are_divided_and_test_rows_are_not():
    data = labelled([1] * 10 + [2] * 4)
    found = parts(scenarios.ClassIncrementalScenario, data, 3, groupings=[[1], [2], [1]], test=data)
    first, second, third = found
    assert sorted(first[0] + third[0]) == list(range(10))
    assert len(first[0]) == len(third[0]) == 5
    assert first[2] == third[2] == list(range(10))
    assert second == [[10, 11, 12, 13], None, [10, 11, 12, 13]]


def test_iid_divides_training_rows_at_random_and_keeps_all_test_rows():
    data, test = labelled([0] * 11), labelled([0] * 4)
    found = parts(scenarios.IIDScenario, data, 3, num_tasks=3, seed=1, val=data, test=test)
    train = [part[0] for part in found]
    assert [len(rows) for rows in train] == [4, 4, 3]
    assert sorted(chain(*train)) == list(range(11))
    assert train != train_parts(scenarios.IIDScenario, data, 3, num_tasks=3, seed=2)
    assert [part[1] for part in found] != train  # validation rows are drawn for themselves
    assert all(part[2] == [0, 1, 2, 3] for part in found)


def test_blurry_moves_a_share_of_each_class_to_the_other_updates():
    data = labelled([0] * 20 + [1] * 20 + [2] * 20)
    found = parts(
        scenarios.BlurryScenario, data, 3, groupings=[[0], [1], [2]], blurriness=0.2, test=data
    )
    counts = [[sum(row // 20 == c for row in part[0]) for c in range(3)] for part in found]
    assert counts == [[16, 2, 2], [2, 16, 2], [2, 2, 16]]
    assert sorted(chain(*(part[0] for part in found))) == list(range(60))
    assert [part[2] for part in found] == [list(range(20 * n, 20 * n + 20)) for n in range(3)]


def test_imbalanced_keeps_fewer_rows_of_later_classes():
    data = labelled([0] * 100 + [1] * 100 + [2] * 100)
    found = parts(
        scenarios.ImbalancedScenario, data, 3, groupings=[[0], [1], [2]], ratio=25, test=data
    )
    assert [len(part[0]) for part in found] == [100, 20, 4]  # 25^0, 25^-1/2, 25^-1
    assert [len(part[2]) for part in found] == [100] * 3


def test_domains_come_by_a_metadata_field_and_again():
    data = with_field(["eu", "us", "eu", "eu", "us", "eu"], "source")
    found = train_parts(scenarios.DomainIncrementalScenario, data, 2, groupings=[["us"], ["eu"]])
    assert found == [[1, 4], [0, 2, 3, 5]]
    again = train_parts(scenarios.RecurringDomainsScenario, data, 4, domains=["us", "eu"], rounds=2)
    assert [len(rows) for rows in again] == [1, 2, 1, 2]
    assert sorted(again[0] + again[2]) == [1, 4]
    assert sorted(again[1] + again[3]) == [0, 2, 3, 5]


def test_time_slices_keep_rows_of_one_time_together():
    data = with_field(["2026-03", "2026-01", "2026-02", "2026-01", "2026-03", "2026-01"], "time")
    scenario = scenarios.TimeSliceScenario
    assert train_parts(scenario, data, 2, edges=["2026-03"]) == [[1, 2, 3, 5], [0, 4]]
    assert train_parts(scenario, data, 2, num_tasks=2) == [[1, 3, 5], [0, 2, 4]]
    numbers = with_field([3.5, 1.0, 2.0, 9.0], "day")
    assert train_parts(scenario, numbers, 3, edges=[2.0, 5], field="day") == [[1], [0, 2], [3]]


def test_feature_sorting_takes_a_feature_of_one_dimension_or_the_mean_of_a_channel():
    scenario = scenarios.FeatureSortingScenario
    flat = torch.tensor([[0, 9.0], [1, 3.0], [2, 6.0], [3, 1.0]])
    data = TensorDataset(flat, torch.zeros(4, dtype=torch.int64))
    for form in (data, as_items(data)):
        assert train_parts(scenario, form, 2, 2, 1, 0.0) == [[1, 3], [0, 2]]
    images = torch.zeros(4, 2, 2, 2)
    images[:, 0, 0, 0] = torch.arange(4)
    images[:, 1, 0, :] = torch.tensor([[5, 5], [0, 1], [9, 0], [2, 2]])  # means 2.5, 0.25, 2.25, 1
    labels = torch.arange(4)
    for form in (TensorDataset(images, labels), as_items(TensorDataset(images, labels))):
        part = scenario(Module(form), 2, 1, 0.0, 0)
        part.setup()
        assert [int(item[1]) for item in part.train_data()] == [1, 3]


def test_randomness_exchanges_pairs_of_rows():
    data = TensorDataset(torch.arange(100.0)[:, None], torch.zeros(100, dtype=torch.int64))
    scenario = scenarios.FeatureSortingScenario
    sorted_exactly = train_parts(scenario, data, 2, 2, 0, 0.0)
    mixed = train_parts(scenario, data, 2, 2, 0, 0.2, seed=3)
    moved = len(set(sorted_exactly[0]) - set(mixed[0]))
    assert 0 < moved <= 10  # 10 exchanges, some of them within a half
    assert sorted(mixed[0] + mixed[1]) == list(range(100))


def test_hue_shift_sorts_images_by_their_most_frequent_hue():
    def image(color):
        return torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(3, 2, 2)

    colors = [(0, 0, 255), (255, 0, 0), (0, 255, 0), (255, 255, 0)]  # hues 2/3, 0, 1/3, 1/6
    images = torch.stack([image(color) for color in colors])
    for inputs in (images, images.float() / 255):
        part = scenarios.HueShiftScenario(
            Module(TensorDataset(inputs, torch.arange(4))), 2, 0.0, chunk_id=0
        )
        part.setup()
        assert [int(item[1]) for item in part.train_data()] == [1, 3]


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
@pytest.mark.parametrize("shape", [(5, 5), (2, 4, 4)])
def test_rotation_by_right_angles_is_exact(degrees, shape):
    image = torch.arange(float(np.prod(shape))).reshape(1, *shape)
    data = TensorDataset(image, torch.zeros(1, dtype=torch.int64))
    part = scenarios.ImageRotationScenario(Module(data, test=data), [degrees], 0, seed=0)
    part.setup()
    expected = torch.rot90(image[0], degrees // 90, dims=(-2, -1))
    assert torch.equal(part.train_data()[0][0], expected)
    assert torch.equal(part.test_data()[0][0], expected)


def test_rotation_by_other_angles_takes_the_nearest_pixel_counter_clockwise():
    image = np.zeros((9, 9), np.uint8)
    image[3:6, 6:] = 200  # on the right
    found = scenarios.transformed.rotated(image, 45)
    rows, columns = np.nonzero(found)
    assert rows.max() < 4 < columns.min()  # up and to the right
    assert set(np.unique(found)) == {0, 200}
    wide = np.arange(12.0).reshape(3, 4)
    assert scenarios.transformed.rotated(wide, 90).shape == (3, 4)
    assert np.array_equal(scenarios.transformed.rotated(wide, 180), wide[::-1, ::-1])


def test_each_update_has_its_own_permutation_of_all_values_and_the_first_none():
    inputs = torch.arange(6.0).reshape(1, 2, 3).expand(8, 2, 3)
    data = TensorDataset(inputs, torch.zeros(8, dtype=torch.int64))
    found = []
    for chunk_id in range(3):
        part = scenarios.PermutationScenario(Module(data, test=data), 3, (2, 3), chunk_id, seed=4)
        part.setup()
        rows = [item[0].flatten().tolist() for item in [*part.train_data(), *part.test_data()]]
        assert all(row == rows[0] for row in rows)
        assert sorted(rows[0]) == [0, 1, 2, 3, 4, 5]
        assert len(part.test_data()) == 8
        found.append(rows[0])
    assert found[0] == [0, 1, 2, 3, 4, 5]
    assert len({tuple(row) for row in found}) == 3


def test_data_incremental_loads_datasets_by_their_ids():
    class Years(scenarios.DataIncrementalDataModule):
        def setup(self):
            self._train_data = labelled([self.data_id] * 2)

    def labels(**kwargs):
        part = scenarios.DataIncrementalScenario(Years("."), 1, **kwargs)
        part.setup()
        return [int(item[1]) for item in part.train_data()]

    assert labels(data_ids=[2019, 2020]) == [2020, 2020]
    assert labels(groupings=[[2019], [2020, 2021]]) == [2020, 2020, 2021, 2021]


def test_scenario_passes_on_what_the_data_module_says_of_its_data():
    module = Module(labelled([0, 1]))
    module.ragged_fields, module.feature_names = ("inputs",), ("age",)
    module.fingerprint = lambda: "vocabulary"
    part = scenarios.IIDScenario(module, 2, 0)
    assert (part.ragged_fields, part.feature_names) == (("inputs",), ("age",))
    assert part.fingerprint() == "vocabulary"
    permuted = scenarios.PermutationScenario(module, 2, 1, 1, seed=0)
    assert permuted.feature_names == ()


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1), 0


IMAGES = TensorDataset(torch.zeros(2, 8, 8, 3), torch.zeros(2, dtype=torch.int64))
FRACTIONS = TensorDataset(torch.zeros(2, 1), torch.zeros(2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: scenarios.IIDScenario(Module(labelled([0])), 0, 0), "num_tasks is 0"),
        (lambda: scenarios.IIDScenario(Module(labelled([0])), 2, 2), "chunk_id is 2, but"),
        (lambda: scenarios.IIDScenario(Module(labelled([0])), 2, True), "chunk_id is True"),
        (lambda: scenarios.IIDScenario(Module(labelled([0])), 2, 1), "part 1 has no rows of train"),
        (lambda: scenarios.IIDScenario(Module(Stream()), 2, 1), "whose rows cannot be chosen"),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(labelled([0, 1])), 0, [[0, 4]]),
            "train_data() has no row with 4 (it has: 0, 1)",
        ),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(labelled([0, 1])), 0, [[0], [7]]),
            "train_data() has no row with 7 (it has: 0, 1)",  # of a later update
        ),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(labelled([0])), 0, [[0, 0]]),
            "group 0 is [0, 0]",
        ),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(labelled([0])), 0),
            "either groupings or num_tasks",
        ),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(labelled([0, 1])), 0, num_tasks=3),
            "3 updates of 2 different values",
        ),
        (
            lambda: scenarios.ClassIncrementalScenario(Module(FRACTIONS), 0, [[0]]),
            "the target of item 0 of train_data() is float32 ()",
        ),
        (
            lambda: scenarios.BlurryScenario(Module(labelled([0])), 0, [[0], [0]]),
            "a label is in two groups",
        ),
        (
            lambda: scenarios.ImbalancedScenario(Module(labelled([0])), 0, [[0]], ratio=0.5),
            "ratio is 0.5",
        ),
        (
            lambda: scenarios.DomainIncrementalScenario(
                Module(with_field(["eu"], "source")), 0, [["eu"]], field="country"
            ),
            "item 0 of train_data() has no metadata 'country' (it has: source)",
        ),
        (
            lambda: scenarios.TimeSliceScenario(
                Module(with_field([1, 2], "time")), 0, edges=["2026"]
            ),
            "give edges of the type of the field",
        ),
        (
            lambda: scenarios.TimeSliceScenario(Module(with_field([1, 1], "time")), 0, num_tasks=2),
            "too few different values for 2 periods",
        ),
        (
            lambda: scenarios.TimeSliceScenario(
                Module(with_field([1.0, float("nan")], "time")), 0, edges=[1.0]
            ),
            "metadata 'time' of item 1 of train_data() is NaN",
        ),
        (
            lambda: scenarios.FeatureSortingScenario(
                Module(TensorDataset(torch.tensor([[1.0], [float("nan")]]), torch.zeros(2))),
                *(1, 0, 0.0, 0),
            ),
            "the score of item 1 of train_data() is NaN",
        ),
        (
            lambda: scenarios.FeatureSortingScenario(Module(labelled([0, 1])), 1, 3, 0.0, 0),
            "feature_idx is 3, but inputs have the shape (1,)",
        ),
        (
            lambda: scenarios.FeatureSortingScenario(Module(labelled([0, 1])), 1, 0, 1.5, 0),
            "randomness is 1.5",
        ),
        (
            lambda: scenarios.HueShiftScenario(Module(IMAGES), 1, 0.0, 0),
            "return images (3, H, W)",
        ),
        (
            lambda: scenarios.DataIncrementalScenario(Module(labelled([0])), 0, [1]),
            "Module has no attribute data_id",
        ),
    ],
)
def test_refuses_by_name_what_cannot_be_cut(build, message):
    with pytest.raises(InvalidScenarioError, match=re.escape(message)):
        build().setup()


def test_transformed_items_are_checked_when_they_are_read():
    rotation = scenarios.ImageRotationScenario(Module(IMAGES), [90], 0, seed=0)
    rotation.setup()
    with pytest.raises(InvalidScenarioError, match="channels first"):
        rotation.train_data()[0]
    permutation = scenarios.PermutationScenario(Module(labelled([0, 1])), 2, 784, 1, seed=0)
    permutation.setup()
    with pytest.raises(InvalidScenarioError, match="input_dim is 784"):
        permutation.train_data()[0]
    with pytest.raises(NotAPairError):
        scenarios.ClassIncrementalScenario(Module(Items([3])), 0, [[0]]).setup()


def test_names_in_params_are_those_of_the_scenarios():
    known = set(ScenarioParams.model_fields["name"].annotation.__args__)
    assert known == set(SCENARIOS)


def test_block_of_params_builds_a_scenario():
    module = Module(labelled([0, 1, 2]))
    block = ScenarioParams.model_validate({"name": "class-incremental", "groupings": [[0], [1, 2]]})
    part = build_scenario(block.name, module, block.chunk(2), 0, block.arguments)
    part.setup()
    assert rows_of(part.train_data()) == [1, 2]
    with pytest.raises(InvalidScenarioError, match="no argument 'grouping', did you mean"):
        build_scenario("class-incremental", module, 0, 0, {"grouping": [[0]]})
    with pytest.raises(InvalidScenarioError, match="needs 'degrees'"):
        build_scenario("rotation", module, 0, 0, {})
    with pytest.raises(UnknownScenarioError, match="did you mean 'class-incremental'"):
        build_scenario("class_incremental", module, 0, 0, {})
    blurry = {"num_tasks": 3, "blurriness": 0.0, "shuffle": False, "seed": 3}
    assert build_scenario("blurry", module, 0, 0, blurry)._seed == 3
    with pytest.raises(InvalidScenarioError, match="use these: groupings, ratio, num_tasks"):
        build_scenario("imbalanced", module, 0, 0, {"blurriness": 0.1})
