"""Scripts in `benchmarks`: the report helper, the cost model and the GPU benchmark."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from renate_stages import files
from renate_stages.data.ingest import ingest
from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.simulation.settings import read_plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ASK = """
import sys
sys.path.insert(0, {folder!r})
import report
from importlib.util import find_spec
print(report.is_installed("avalanche"), find_spec("avalanche").origin)
"""


def test_benchmark_script_does_not_shadow_the_package_of_the_same_name() -> None:
    """The folder of a script is first in `sys.path`, where `avalanche.py` is a benchmark."""
    ask = ASK.format(folder=str(BENCHMARKS))
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    spec = find_spec("avalanche")
    found = spec.origin if spec is not None else str(BENCHMARKS / "avalanche.py")
    assert asked.stdout.split() == [str(spec is not None), found]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import scaling_model

    return scaling_model


def images(rows: int) -> list[tuple[np.ndarray, int]]:
    return [(np.full((3, 64, 64), row % 251, np.uint8), row % 10) for row in range(rows)]


def test_cost_model_predicts_bytes_and_files_of_a_store(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "SHARD_BYTES", 2**20)
    monkeypatch.setattr(StoreWriter.__init__, "__defaults__", (2**20, ()))
    ingest(images(300), tmp_path / "train", 1, "train")  # pyright: ignore[reportArgumentType]
    listed = files.inventory(tmp_path / "train").values()
    part = model.store(300, 3 * 64 * 64)
    assert part.files == len(listed) == 17
    assert part.bytes == pytest.approx(sum(each["size"] for each in listed), rel=1e-3)
    inputs = [path.stat().st_size for path in sorted((tmp_path / "train").glob("*.inputs.npy"))]
    assert [size for size, count in part.inputs for _ in range(count)] == inputs


def test_cost_model_predicts_the_memory_of_the_second_update(model, tmp_path):
    update = model.Update(100, 3 * 64 * 64, before=1, seen=288, memory_rows=50)
    assert (update.test, update.val, update.train, update.added) == (20, 8, 72, 10)
    new = ingest(images(72), tmp_path / "new", 2, "train")  # pyright: ignore[reportArgumentType]
    old = ingest(images(50), tmp_path / "old", 1, "train")  # pyright: ignore[reportArgumentType]
    evolve(tmp_path / "memory", old, np.arange(40), new, np.arange(10), 2)
    listed = files.inventory(tmp_path / "memory").values()
    part = model.memory_stored(update)
    assert part.files == len(listed) == 10
    assert part.bytes == pytest.approx(sum(each["size"] for each in listed), rel=2e-3)
    assert len(ExampleStore.open(tmp_path / "memory")) == update.memory


def test_cost_model_counts_requests_of_multipart_uploads(model):
    part = model.Part(100, 5, ((40 * 2**20, 2), (1000, 1)))
    asked = model.our_upload(part, looked_for=5, lying=256_000 * 3)
    assert (asked["PUT"], asked["POST"]) == (3 + 2 * 3, 4)
    assert asked["LIST"] == pytest.approx(3 * model.prefixes(5))
    assert model.our_download(part, lying=0)["GET"] == 5


def test_gpu_benchmark_runs_without_a_gpu_and_gives_no_verdict() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "gpu.py"), "--quick"]
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("there is no GPU here")
    lines = [line for line in ran.stdout.splitlines() if line]
    for name in ("bare loop", "ours, plain", "ours, ahead", "ours, data on device"):
        (line,) = [line for line in lines if line.startswith(name + " ")]
        assert float(line.split()[-1]) > 0
    assert not any(line.startswith(("ok", "MISS")) for line in lines)


def test_gpu_benchmark_reads_cifar_10(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        encoded.append(file.getvalue())
    table = pa.table({"label": [3, 1, 2], "image": encoded})
    pq.write_table(table, tmp_path / "cifar10-train.parquet")
    found, labels = runpy.run_path(str(BENCHMARKS / "gpu.py"))["cifar"](tmp_path, 2)
    assert found.dtype == torch.uint8 and labels.tolist() == [3, 1]
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1), images[:2])


@pytest.mark.parametrize(
    "suite", sorted((BENCHMARKS / "suites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_suite_is_a_valid_simulation(suite):
    plan = read_plan(suite)
    assert plan.updates >= 2 and plan.config.is_file()
    assert {run.hyperparameters["dataset"] for run in plan.runs} <= {"cifar10", "mnist"}


def test_suites_crop_and_flip_each_image_for_itself():
    config = runpy.run_path(str(BENCHMARKS / "suites" / "renate_config.py"))
    torch.manual_seed(0)
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(40, 2, 1, 1)
    padded = torch.nn.functional.pad(images[0], (4, 4, 4, 4))
    crops = [padded[:, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
    possible = {crop.numpy().tobytes() for each in crops for crop in (each, each.flip(-1))}
    found = {image.contiguous().numpy().tobytes() for image in config["_augmented"](images)}
    assert len(found) > 20 and found <= possible


def test_update_is_asked_for_in_some_quarters_of_a_share_price_only(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import shift_stream

    parts = shift_stream.quarters(shift_stream.stream())
    calm, crisis = parts[-3], parts[-1]  # from April and from October 2008
    earlier = np.concatenate(parts[:-3])
    names, decided = shift_stream.NAMES, shift_stream.decided
    assert str(calm[0, 0].astype("datetime64[D]")) == "2008-04-01"
    assert not decided(names, 1, earlier, calm, 0).update
    assert decided(names, 1, earlier, crisis, 0).update


def test_figure2_reports_the_paired_difference(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import figure2

    orders = figure2.other_orders(10)
    assert all(sorted(chain(*order)) == list(range(10)) for order in orders)
    text = figure2.table([("published", {"ER": [0.5, 0.6], "DER": [0.6, 0.65]})])
    half = stats.t.ppf(0.975, 1) * stdev([10, 5]) / 2**0.5
    assert f"| 55.0 | 62.5 | +7.5 ({7.5 - half:+.2f} to {7.5 + half:+.2f}) |" in text
