"""Throughput of an ER update on a GPU: `make bench NAME=gpu DATA=<folder>`.

An update of ResNet-18 on CIFAR-10 in bf16, 256 new and 256 remembered examples a step, goes through
`Updater` as stage `train` does it, in three ways:

    plain            each batch is read, then copied, then computed on
    ahead            a thread reads and copies two steps ahead, the default on a GPU
    data on device   new data and memory lie on the GPU

Beside it, in the same process and in turn, a bare PyTorch loop of the same model, optimizer, precision and
batches, all data on the GPU from the start. What is timed is Lightning's `fit`, which for `data on
device` begins with copying the data there, and the loop's epochs, both up to the last kernel's end. Both lay
images out by channels last and let cuDNN choose its kernels by trying (`trainer.deterministic: false`).

The folder holds `cifar10-train.parquet`, with columns `label` and `image` (an encoded file each): the
first 25,000 images are the memory, the others the new data. Without it the images are random, which
costs the same.

Without a GPU it says so, and runs a tiny network on the CPU, to check itself: no aim is judged then.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from report import Report
from step import TimedFit, write
from torch import Tensor

from renate_stages.memory import ExampleStore
from renate_stages.models import ResNet18
from renate_stages.models.stored import write_model
from renate_stages.params import Params
from renate_stages.state import Provenance, State, state
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

RATE = 0.03
AIM = 0.9  # of the bare loop's throughput
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"prefetch": 0},
    "ahead": {"prefetch": 2},
    "data on device": {"data_on_device": True},
}


class Size(NamedTuple):
    """How much is computed.

    Args:
        rows: New examples, and as many remembered ones.
        batch: New examples a step, and as many remembered ones.
        epochs: Passes over the new examples that are timed at once.
        width: Of the network.
        repeats: After one to warm up.
    """

    rows: int
    batch: int
    epochs: int
    width: int
    repeats: int

    @property
    def examples(self) -> int:
        """Examples that go through the model in a run, remembered ones too."""
        return 2 * self.rows * self.epochs


FULL = Size(rows=25_000, batch=256, epochs=3, width=64, repeats=5)
QUICK = Size(rows=25_000, batch=256, epochs=1, width=64, repeats=2)
TINY = Size(rows=64, batch=16, epochs=1, width=2, repeats=1)  # without a GPU


class CifarNet(ResNet18):
    """ResNet-18 on images as bytes, which are scaled here: a quarter of the bytes to copy."""

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        x = x.to(memory_format=torch.channels_last).float() / 255
        return super().forward(x, task_id)


def main() -> None:
    """Time all ways and the bare loop in turn; print examples a second, and the best way's share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cifar10-train.parquet")
    parser.add_argument(
        "--quick", action="store_true", help="random images, one epoch, two repeats"
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    size = TINY if not on_gpu else QUICK if arguments.quick else FULL
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    data = None if arguments.quick or not on_gpu else arguments.data
    images, labels = random_images(2 * size.rows) if data is None else cifar(data, 2 * size.rows)
    settings = {**size._asdict(), "device": name, "images": "CIFAR-10" if data else "random"}
    report = Report("gpu" if on_gpu else "gpu-without", {**settings, "threads": 1})
    if not on_gpu:
        print("there is no GPU here: a tiny network on the CPU, to check this script; no aim\n")
    print(
        f"{name}, {settings['images']} images, {size.batch} new and {size.batch} remembered a step"
    )
    print(f"{'examples a second':<44}   median       min       max")
    with TemporaryDirectory() as folder:
        peers = {"bare loop": bare(images, labels, size, device)}
        parent, new = stores(Path(folder), images, labels, size)
        for way, trainer in WAYS.items():
            peers[f"ours, {way}"] = ours(parent, new, size, device, trainer)
        rates: dict[str, list[float]] = {peer: [] for peer in peers}
        for repeat in range(size.repeats + 1):
            for peer, run in peers.items():
                seconds = run()
                if repeat:
                    rates[peer].append(size.examples / seconds)
    for peer, values in rates.items():
        report.add(peer, values)
    print(f"\n{'share of the bare loop':<44}   median       min       max")
    shares = {}
    for way in WAYS:
        pairs = zip(rates[f"ours, {way}"], rates["bare loop"], strict=True)
        shares[way] = [one / other for one, other in pairs]
        report.add(f"share, {way}", shares[way])
    if on_gpu:
        best = max(shares, key=lambda way: median(shares[way]))
        report.at_least(f"{best}, share of the bare loop", median(shares[best]), AIM)
    report.finish()


# -- data ------------------------------------------------------------------------------------------


def random_images(rows: int) -> tuple[Tensor, Tensor]:
    """Return images, uint8 `(rows, 3, 32, 32)`, and labels, int64 `(rows,)`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (rows, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.randint(10, (rows,), generator=generator)


def cifar(data: Path, rows: int) -> tuple[Tensor, Tensor]:
    """Return the first images of CIFAR-10's training set, as `random_images` does."""
    import pyarrow.parquet as pq
    from PIL import Image

    source = data / "cifar10-train.parquet"
    if not source.is_file():
        sys.exit(f"error: {source} is missing: give the folder with it by --data, or leave it out")
    table = pq.read_table(source, columns=["label", "image"]).slice(0, rows)
    images = [
        np.asarray(Image.open(io.BytesIO(each.as_py())).convert("RGB")) for each in table["image"]
    ]
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), labels


def stores(folder: Path, images: Tensor, labels: Tensor, size: Size) -> tuple[State, ExampleStore]:
    """Write a state whose memory is the first half of the examples, and a store of the others."""
    parent = folder / "parent"
    state.write_empty(parent)
    (parent / "memory" / "index.json").unlink()
    write(parent / "memory", images[: size.rows], labels[: size.rows])
    torch.manual_seed(0)
    write_model(parent, model_of(size))
    classes = tuple(range(10))
    state.write_manifest(parent, Provenance("update", 1, classes=classes, task_ids={"1": "a"}))
    return State.open(parent), write(folder / "new", images[size.rows :], labels[size.rows :])


def model_of(size: Size) -> CifarNet:
    """Return a new network, its weights laid out by channels last."""
    network = CifarNet(10, width=size.width)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# -- the two sides ---------------------------------------------------------------------------------


def ours(
    parent: State, new: ExampleStore, size: Size, device: torch.device, way: dict[str, Any]
) -> Callable[[], float]:
    """Return what times the training of one update, in seconds."""
    trainer = {
        "max_epochs": size.epochs,
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "precision": "bf16-mixed",
        "deterministic": False,
        **way,
    }
    update = {"number": 2, "parent": 1}
    params = Params.parse({"learner": "ER", "update": update, "trainer": trainer})
    values = {
        "learning_rate": RATE,
        "batch_size": size.batch,
        "memory_batch_size": size.batch,
        "memory_size": size.rows,
    }
    user = UserConfig(Path(__file__), {"model_fn": lambda: model_of(size)})
    updater = Updater(user, params, values)

    def run() -> float:
        with TimedFit() as fit:
            updater.train(UpdateData(parent, new))
        return fit.seconds

    return run


def bare(images: Tensor, labels: Tensor, size: Size, device: torch.device) -> Callable[[], float]:
    """Return what times a plain loop of the same steps, in seconds; all data on the device."""
    images, labels = images.to(device), labels.to(device)
    torch.manual_seed(0)
    model = model_of(size).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def run() -> float:
        started = time.perf_counter()
        for _ in range(size.epochs):
            order = torch.randperm(size.rows, device=device) + size.rows
            for rows in order.tensor_split(-(-size.rows // size.batch)):
                drawn = torch.randint(size.rows, (size.batch,), device=device)
                both = torch.cat([rows, drawn])
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16):
                    loss = F.cross_entropy(model(images[both]), labels[both])
                loss.backward()
                optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return run


if __name__ == "__main__":
    main()
