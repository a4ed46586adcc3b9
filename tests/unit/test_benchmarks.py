"""What the scripts in `benchmarks` share."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ASK = """
import sys
sys.path.insert(0, {folder!r})
import report
from importlib.util import find_spec
print(report.is_installed("avalanche"), find_spec("avalanche").origin)
"""


def test_a_benchmark_named_like_a_package_does_not_stand_in_for_it() -> None:
    """A script's folder comes first where Python looks: there `import avalanche` is a benchmark."""
    ask = ASK.format(folder=str(BENCHMARKS))
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    spec = find_spec("avalanche")
    found = spec.origin if spec is not None else str(BENCHMARKS / "avalanche.py")
    assert asked.stdout.split() == [str(spec is not None), found]


def test_the_benchmark_of_a_gpu_checks_itself_without_one_and_judges_nothing() -> None:
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


def test_the_benchmark_of_a_gpu_reads_cifar(tmp_path: Path, monkeypatch) -> None:
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
