"""The names of `renate_stages.compat.renate`: defaults, spaces, models, datasets, detectors."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from renate_stages import errors, models
from renate_stages.compat.renate import defaults
from renate_stages.compat.renate.benchmark.datasets.base import DataIncrementalDataModule
from renate_stages.compat.renate.benchmark.datasets.nlp_datasets import HuggingFaceTextDataModule
from renate_stages.compat.renate.benchmark.datasets.vision_datasets import TorchVisionDataModule
from renate_stages.compat.renate.benchmark.models import (
    MultiLayerPerceptron,
    RenateMLP,
    ResNet18CIFAR,
)
from renate_stages.compat.renate.benchmark.models.base import RenateBenchmarkingModule
from renate_stages.compat.renate.data import CSVDataModule, ImageDataset
from renate_stages.compat.renate.data.data_module import RenateDataModule
from renate_stages.compat.renate.data.datasets import IndexedSubsetDataset, NestedTensorDataset
from renate_stages.compat.renate.models import RenateModule
from renate_stages.compat.renate.models.renate_module import RenateWrapper
from renate_stages.compat.renate.shift import (
    KolmogorovSmirnovCovariateShiftDetector,
    MMDCovariateShiftDetector,
)
from renate_stages.compat.renate.utils.config_spaces import config_space
from renate_stages.compat.renate.utils.optimizer import create_partial_optimizer
from renate_stages.files import yaml_file
from renate_stages.models import unwrap
from renate_stages.params import Params, renate


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, renate_stages.compat.renate.defaults, renate_stages.compat.renate; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- search spaces --------------------------------------------------------------------------------


@pytest.mark.parametrize("updater", ["ER", "DER", "CLS-ER", "POD-ER", "Super-ER", "Offline-ER",
                                     "GDumb", "RD", "Joint", "FineTuning", "super-er", "OfflineER"])  # fmt: skip
def test_search_space_of_renate_is_a_valid_space_of_its_learner(updater):
    space = config_space(updater)
    found = renate.translated(
        space["updater"], space, {"updater": space["updater"], "max_epochs": 50}
    )
    assert not [note for note in found.notes if "config_space" in note]
    params = Params.parse({"learner": found.learner, "hyperparameters": found.hyperparameters})
    assert params.search_space.read_by({"optimizer", "learning_rate", "momentum", "weight_decay"})
    space["learning_rate"]["loguniform"][0] = 0
    assert config_space(updater)["learning_rate"] == {"loguniform": [0.001, 0.5]}


def test_search_space_of_another_learner_is_ours():
    assert "distillation_weight" in config_space("LwF")
    with pytest.raises(errors.UnknownLearnerError):
        config_space("nothing")


def test_partial_optimizer_has_renates_defaults():
    weights = [nn.Parameter(torch.zeros(1))]
    assert create_partial_optimizer()(weights).defaults["lr"] == defaults.LEARNING_RATE
    assert create_partial_optimizer("SGD", momentum=0.9)(weights).defaults["momentum"] == 0.9
    with pytest.raises(errors.InvalidHyperparameterError):
        create_partial_optimizer("Adagrad")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("updater", ["ER", "CLS-ER", "FineTuning"])
def test_printed_blocks_are_a_valid_params_file_with_renates_defaults(updater):
    command = [sys.executable, "-m", "renate_stages.compat.renate", updater]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    params = Params.parse(yaml_file.parse(done.stdout, "printed"))
    expected = renate.translated(updater, {}).hyperparameters | renate.OPTIMIZER
    assert params.hyperparameters == expected and params.learner == updater
    for block, values in renate.BLOCKS.items():
        assert values.items() <= getattr(params, block).model_dump().items()
    wrong = subprocess.run([*command[:-1], "ERR"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "expected one of ER" in wrong.stderr


# -- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_normalization", [False, True])
def test_mlp_has_renates_layers_and_a_head_for_each_task(batch_normalization):
    torch.manual_seed(0)
    model = MultiLayerPerceptron(6, 3, 1, 4, "Tanh", batch_normalization)
    kinds = [type(each) for each in model.features]
    norm = [nn.BatchNorm1d] if batch_normalization else []
    assert kinds == [nn.Flatten, nn.Linear, nn.Tanh, *norm, nn.Linear, nn.Tanh, *norm]
    assert RenateMLP is MultiLayerPerceptron and isinstance(model, RenateModule)
    model.add_task_params("second")
    inputs = torch.rand(5, 2, 3)
    model.eval()
    assert torch.equal(model(inputs), model(inputs, task_id=defaults.TASK_ID))
    assert not torch.equal(model(inputs), model(inputs, task_id="second"))
    again = MultiLayerPerceptron.from_state_dict(model.state_dict()).eval()
    assert torch.equal(again(inputs, task_id="second"), model(inputs, task_id="second"))
    assert model.get_predictor("second")(model.get_backbone()(inputs)).shape == (5, 3)


class Own(RenateBenchmarkingModule):
    """A model of a user of Renate, who knows no other arguments."""

    def __init__(
        self,
        width: int,
        num_outputs: int = 10,
        prediction_strategy=None,
        add_icarl_class_means=True,
    ) -> None:
        super().__init__(
            embedding_size=width,
            num_outputs=num_outputs,
            constructor_arguments={"width": width},
            prediction_strategy=prediction_strategy,
            add_icarl_class_means=add_icarl_class_means,
        )
        self._backbone = nn.Sequential(nn.Flatten(), nn.Linear(6, width))


def test_subclass_of_renates_benchmark_module_can_be_stored():
    model = Own(4, 3)
    inputs = torch.rand(5, 6)
    again = Own.from_state_dict(model.state_dict())
    assert torch.equal(again(inputs), model(inputs))
    assert model._backbone is model.features is model.get_backbone()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"features", "head"}
    assert MultiLayerPerceptron(6, 3, 0, 4, heads="shared").get_predictor().out_features == 3


def test_resnet_takes_renates_arguments():
    model = ResNet18CIFAR(num_outputs=5, gray_scale=True, add_icarl_class_means=False).eval()
    inputs = torch.rand(2, 1, 16, 16)
    again = ResNet18CIFAR.from_state_dict(model.state_dict()).eval()
    assert torch.equal(again(inputs), model(inputs)) and again(inputs).shape == (2, 5)
    assert len(model.layers_to_distil()) == 4
    assert sum(each.numel() for each in ResNet18CIFAR().parameters()) == 11_173_962


@pytest.mark.parametrize(
    "build",
    [
        lambda: MultiLayerPerceptron(2, 2, 1, [3]),
        lambda: MultiLayerPerceptron(2, 2, 1, 3, "Softmax2"),
        lambda: MultiLayerPerceptron(2, 2, 1, 3, prediction_strategy=object()),
        lambda: ResNet18CIFAR(groups=2),
    ],
)
def test_argument_that_a_model_cannot_honour_is_refused(build):
    with pytest.raises(errors.ModelArgumentError):
        build()


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("benchmark.models", "ResNet34", "RenateWrapper"),
        ("benchmark.models", "LearningToPromptTransformer", "RanPAC"),
        ("benchmark.datasets.vision_datasets", "CLEARDataModule", "ImageDataset"),
        ("benchmark.datasets.nlp_datasets", "MultiTextDataModule", "HuggingFaceTextDataModule"),
        ("benchmark.models.resnet", "ResNet34CIFAR", "RenateWrapper"),
        ("benchmark.models.vision_transformer", "VisionTransformerB16", "transformers"),
        (
            "benchmark.models.transformer",
            "HuggingFaceSequenceClassificationTransformer",
            "RenateModule of your own",
        ),
        ("benchmark.models.l2p", "LearningToPromptTransformer", "RanPAC"),
        ("benchmark.models.spromptmodel", "SPromptTransformer", "RanPAC"),
        ("benchmark.datasets.wild_time_data", "WildTimeDataModule", "RenateDataModule"),
        ("defaults", "current_state_folder", "output_state_url"),
        ("defaults", "hpo_file", "tuning_history.csv"),
    ],
)
def test_name_without_a_counterpart_says_what_to_use(module, name, instead):
    found = import_module(f"renate_stages.compat.renate.{module}")
    with pytest.raises(ImportError, match=rf"{name} does not exist here.\n[\s\S]*{instead}"):
        getattr(found, name)
    assert not hasattr(found, "something")


# -- data -----------------------------------------------------------------------------------------


class Module(RenateDataModule):
    def setup(self) -> None: ...


def test_data_module_has_renates_constructor_and_split():
    module = Module("folder", "bucket", "name", 0.25, 3)
    assert (module._data_path, module._src_bucket, module._seed) == ("folder", "bucket", 3)
    assert module.train_collate_fn() is None
    data = TensorDataset(torch.arange(8))
    train, val = module._split_train_val_data(data)
    assert val is not None and (len(train), len(val)) == (6, 2)  # pyright: ignore[reportArgumentType]
    assert Module("folder")._split_train_val_data(data)[1] is None
    assert DataIncrementalDataModule.__abstractmethods__ == {"setup"}


def test_csv_module_reads_targets_and_names(tmp_path):
    (tmp_path / "train.csv").write_text("a,y,b\n1,0,2\n3,1,4\n")
    (tmp_path / "test.csv").write_text("a,y,b\n5,1,6\n")
    module = CSVDataModule(tmp_path)
    module.prepare_data()
    module.setup()
    inputs, targets = module.train_data()[:]
    assert inputs.tolist() == [[1, 2], [3, 4]] and inputs.dtype == torch.float32
    assert targets.tolist() == [0, 1] and module.feature_names == ("a", "b")
    with pytest.raises(errors.DataModuleError, match="no column 'z'"):
        CSVDataModule(tmp_path, target_name="z").setup()
    with pytest.raises(errors.MissingFileError, match=r"other\.csv"):
        CSVDataModule(tmp_path, "other.csv").setup()
    with pytest.raises(errors.DataModuleError, match="data_path='s3://bucket/digits'"):
        CSVDataModule(tmp_path, src_bucket="bucket", src_object_name="digits").prepare_data()


def test_image_dataset_gives_file_bytes_or_transformed_images(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    paths = [tmp_path / "colour.png", str(tmp_path / "grey.png")]
    plain = ImageDataset(paths, [3, 4], target_transform=lambda label: label + 1)
    assert plain[0][0] == (tmp_path / "colour.png").read_bytes() and plain[0][1] == 4
    assert (
        plain[1][0].startswith(b"\x89PNG") and plain[1][0] != (tmp_path / "grey.png").read_bytes()
    )
    arrays = ImageDataset(paths, [3, 4], transform=np.asarray)
    assert arrays[0][0].tolist() == pixels.tolist() and arrays[1][0].shape == (4, 4, 3)
    with pytest.raises(errors.DataModuleError, match="2 images and 1 labels"):
        ImageDataset(paths, [3])


def test_nested_and_indexed_datasets():
    tree = {"a": torch.arange(3), "b": (torch.ones(3, 2),)}
    data = NestedTensorDataset((tree, torch.arange(3)))
    assert len(data) == 3 and data[1][0]["a"] == 1 and data[1][0]["b"][0].tolist() == [1, 1]
    assert IndexedSubsetDataset(data, 1)[2] == 2
    assert len(IndexedSubsetDataset(data, [0, 1])[2]) == 2
    with pytest.raises(errors.DataModuleError, match="rows"):
        NestedTensorDataset((torch.ones(2), torch.ones(3)))
    with pytest.raises(errors.DataModuleError, match="a list"):
        NestedTensorDataset([torch.ones(2)])


@pytest.mark.parametrize(
    ("module", "package"),
    [
        (TorchVisionDataModule("nowhere"), "torchvision"),
        (HuggingFaceTextDataModule("nowhere", lambda text: text), "datasets"),
    ],
)
def test_missing_package_is_named(module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.MissingPackageError, match=f"pip install {package}"):
        module.setup()


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in for torchvision, whose MNIST exists only in a folder named `there`."""

    def mnist(root, train, transform, target_transform, download):
        assert not download
        if not root.endswith("there"):
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        rows = 10 if train else 4
        return [(transform(n), target_transform(n % 2)) for n in range(rows)]

    found, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    found.datasets = SimpleNamespace(MNIST=mnist)  # pyright: ignore[reportAttributeAccessIssue]
    transforms.ToTensor = lambda: lambda n: torch.full((1, 2, 2), n / 10)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchvision", found)
    monkeypatch.setitem(sys.modules, "torchvision.transforms", transforms)


def test_torchvision_module_reads_local_files_only(tmp_path, torchvision):
    module = TorchVisionDataModule(tmp_path / "there", dataset_name="MNIST", val_size=0.2)
    module.prepare_data()
    module.setup()
    val, test = module.val_data(), module.test_data()
    assert (len(module.train_data()), len(val), len(test)) == (8, 2, 4)  # pyright: ignore[reportArgumentType]
    assert test is not None and test[3][1].dtype == torch.int64
    with pytest.raises(errors.MissingFileError, match=r"MNIST.*download=True"):
        TorchVisionDataModule(tmp_path / "elsewhere").setup()
    with pytest.raises(errors.DataModuleError, match="choose one of CIFAR10"):
        TorchVisionDataModule(tmp_path, dataset_name="ImageNet")
    with pytest.raises(errors.DataModuleError, match="does not download"):
        TorchVisionDataModule(tmp_path, "bucket", "mnist").prepare_data()


class Rows(list):
    column_names = ("text", "label")


@pytest.fixture
def datasets(monkeypatch):
    """A stand-in for the package datasets, which reads what the tests save as JSON."""

    def load_from_disk(folder):
        saved = json.loads((Path(folder) / "dataset_dict.json").read_text())
        return {name: Rows(rows) for name, rows in saved.items()}

    found = ModuleType("datasets")
    found.load_from_disk = load_from_disk  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", found)


def tokenizer(text: str, max_length: int, **_):
    ids = ([len(word) for word in text.split()] + [0] * max_length)[:max_length]
    return {"input_ids": ids, "attention_mask": [int(each > 0) for each in ids]}


def test_text_module_tokenizes_a_saved_dataset(tmp_path, datasets):
    rows = [{"text": "a bb ccc", "label": n % 2} for n in range(5)]
    saved = tmp_path / "ag_news" / "dataset_dict.json"
    with pytest.raises(errors.MissingFileError, match="save_to_disk"):
        HuggingFaceTextDataModule(tmp_path, tokenizer).setup()
    saved.parent.mkdir()
    saved.write_text(json.dumps({"train": rows, "test": rows[:1]}))
    module = HuggingFaceTextDataModule(tmp_path, tokenizer, val_size=0.2)
    module.setup()
    inputs, target = module.train_data()[0]
    assert inputs["input_ids"][:4].tolist() == [1, 2, 3, 0] and len(inputs["input_ids"]) == 128
    assert inputs["attention_mask"].sum() == 3 and target in (0, 1)
    assert len(module.val_data()) == 1  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.DataModuleError, match="no column 'title'"):
        HuggingFaceTextDataModule(tmp_path, tokenizer, input_column="title").setup()
    saved.write_text(json.dumps({"train": rows, "test": rows, "validation": rows[:2]}))
    module.setup()
    assert len(module.val_data()) == 2  # pyright: ignore[reportArgumentType]
    saved.write_text(json.dumps({"train": rows}))
    with pytest.raises(errors.DataModuleError, match="no split 'test'"):
        module.setup()


# -- shift ----------------------------------------------------------------------------------------


def images(shift: float, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(60, 2, 3, generator=generator) + shift, torch.zeros(60))


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: MMDCovariateShiftDetector(num_permutations=200, **more),
        KolmogorovSmirnovCovariateShiftDetector,
    ],
)
def test_detector_scores_datasets_higher_if_they_are_shifted(make):
    extractor = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(6, 4)).train()
    for detector in (make(), make(feature_extractor=extractor, batch_size=7)):
        with pytest.raises(errors.UnfittedDetectorError):
            detector.score(images(0, 1))
        detector.fit(images(0, 0))
        same, shifted = detector.score(images(0, 1)), detector.score(images(2, 1))
        assert isinstance(same, float) and 0 <= same < 0.95 and 0.99 < shifted <= 1
        assert detector.score(images(0, 1)) == same, "the score is reproducible"
    assert extractor.training


def test_wrapper_is_the_one_of_the_library():
    wrapped = RenateWrapper(torch_model=nn.Linear(2, 2))
    assert isinstance(wrapped, models.RenateWrapper) and isinstance(unwrap(wrapped), nn.Linear)
    assert wrapped(torch.ones(1, 2)).shape == (1, 2)
