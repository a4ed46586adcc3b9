"""What an update costs as data grows: `make bench NAME=scaling`; the document's tables: `--table`.

The formulas of `scaling_model.py` beside what is measured here: a generated project takes in random
images of 3x32x32 bytes, as two updates of which the second has a quarter of the first one's rows. Its
stages are called as DVC calls them, with one epoch of a model that is next to none; `dvc push` goes to S3
of moto, and so do the files that a job in SageMaker would read and make, by our own remote.

Bytes, files, rows and requests are held against the formulas. Times are told as rates: processor seconds
of a stage over those at the smallest size, by the bytes that the first update has more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import scaling_model as model
from scaling_model import Part, Update
from scaling_table import print_tables

if TYPE_CHECKING:
    from s3_server import Server

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SHAPE = (3, 32, 32)
ROW_BYTES = 3 * 32 * 32
MB = 10**6
WITHIN = 0.05
STAGES = ("prepare", "restore-state", "tune", "train", "export")
READ_BY_TRAIN = ("work/prepared", "work/restored", "work/tuning", "parent-state")
CONFIG = """
import atexit, json, os
from pathlib import Path

import numpy as np
import torch
from renate_stages.data import Batched, RenateDataModule
from torch.utils.data import TensorDataset

ROWS = {"trained": 0, "evaluated": 0}


class Images(RenateDataModule):
    def setup(self):
        images, labels = (np.load(Path(self._data_path) / f"{name}.npy", mmap_mode="c")
                          for name in ("inputs", "targets"))
        self._train_data = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))


def data_module_fn(data_path, seed=0):
    return Images(data_path, seed=seed)


class Tiny(torch.nn.Linear):
    def forward(self, images):
        ROWS["trained" if self.training else "evaluated"] += len(images)
        return super().forward(images[:, :, ::4, ::4].flatten(1))


def model_fn(model_state_url=None):
    model = Tiny(3 * 8 * 8, 10)
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model


def loss_fn():
    return torch.nn.CrossEntropyLoss(reduction="none")


def to_float(images):
    return images.float() / 255


def train_transform():
    return Batched(to_float)


def test_transform():
    return Batched(to_float)


@atexit.register
def tell():
    if "SCALING_ROWS" in os.environ and any(ROWS.values()):
        Path(os.environ["SCALING_ROWS"]).write_text(json.dumps(ROWS))
"""


@dataclass
class Spent:
    """Processor seconds and wall time of commands, by what they were."""

    processor: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Measure sizes from small to large, or print the tables of the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 MB alone")
    parser.add_argument("--table", action="store_true", help="print the tables of docs/scaling.md")
    arguments = parser.parse_args()
    if arguments.table:
        print_tables()
        return
    from report import Report
    from s3_server import Server

    sizes = (10,) if arguments.quick else (10, 100, 400)
    report = Report("scaling", {"MB": sizes, "row bytes": ROW_BYTES, "seed": 0, "threads": 1})
    spent: dict[int, Spent] = {}
    for size in sizes:
        with TemporaryDirectory() as folder, Server() as server:
            spent[size] = measure_size(report, server, Path(folder), size)
    print(f"\n{'':<44}   processor s, wall s, of the first update")
    for size, each in spent.items():
        for what in each.processor:
            figures = (each.processor[what], each.wall[what])
            print(f"{f'{size} MB: {what}':<44}" + "".join(f"{f:10.1f}" for f in figures))
            report.values[f"{size} MB: {what}: processor s, wall s"] = list(figures)
    base, *larger = sizes
    for what in spent[base].processor if larger else ():
        more = [(size - base, spent[size].processor[what]) for size in larger]
        rates = [m / max(0.01, taken - spent[base].processor[what]) for m, taken in more]
        report.add(f"{what}: MB a processor second", rates)
    report.finish()


# -- one size --------------------------------------------------------------------------------------


def measure_size(report: Any, server: Server, folder: Path, size: int) -> Spent:
    """Run two updates of a project, and compare each with the formulas."""
    from renate_stages.files import yaml_file
    from renate_stages.project import Project
    from renate_stages.storage import Storage
    from renate_stages.storage.objects import ObjectStore

    root, spent, rows = folder / "bench", Spent(), size * MB // ROW_BYTES
    answers = ["project_slug=bench", "starting_data=empty", "--no-input", "--output-dir"]
    run([str(BIN / "cookiecutter"), str(ROOT), "--directory", "template", *answers, str(folder)])
    project = Project(root)
    (root / "renate_config.py").write_text(CONFIG)

    def change(params: Any) -> None:
        params["hyperparameters"]["memory_size"] = rows // 4
        params["trainer"]["max_epochs"] = 1
        params["shift"]["enabled"] = False  # 1,000 rows of either side, at every size
        params["tracking"]["enabled"] = False

    yaml_file.edit(project.params, change)
    first = Update(rows, ROW_BYTES, memory_rows=rows // 4, model_bytes=(192 + 1) * 40)
    second = Update(
        rows // 4,
        ROW_BYTES,
        before=1,
        seen=first.train,
        kept_before=first.test,
        validation_before=first.val,
        memory_rows=rows // 4,
        model_bytes=first.model_bytes,
    )
    write_images(project.incoming, first.rows, 1)
    run([str(BIN / "renate-stages"), "init"], root)
    run([str(BIN / "dvc"), "remote", "add", "-q", "-d", "bucket", "s3://benchmark/dvc"], root)
    objects = ObjectStore(Storage.at("s3://benchmark/ours/objects"))
    lying = cached = 0.0
    for update in (first, second):
        label = f"{size} MB, update {update.before + 1}"
        if update.before:
            run(["git", "add", "-A"], root)
            run(["git", "commit", "-qm", "Update 1"], root)
            run([str(BIN / "renate-stages"), "next"], root)
            write_images(project.incoming, update.rows, 2)
        clock = spent if not update.before else Spent()
        run([str(BIN / "dvc"), "add", "-q", "data/incoming"], root, clock, "dvc add")
        counted = folder / "rows.json"
        for stage in STAGES:
            told = {"SCALING_ROWS": str(counted)} if stage == "train" else {}
            run([str(BIN / "renate-stages"), stage], root, clock, stage, told)
        run([str(BIN / "dvc"), "commit", "-q", "-f"], root, clock, "dvc commit")
        pushed = server.count(
            lambda clock=clock: run([str(BIN / "dvc"), "push", "-q"], root, clock, "dvc push")
        )
        found = {
            "prepared": part_of(project.prepared),
            "state": part_of(project.state),
            "read by train": read_by_train(root),
        }
        expected = {
            "prepared": model.prepared(update),
            "state": model.state(update),
            "read by train": model.job_reads(update),
        }
        for what, part in found.items():
            compare(report, f"{label}: {what}, MB", part.bytes / MB, expected[what].bytes / MB)
            compare(report, f"{label}: {what}, files", part.files, expected[what].files)
        through = json.loads(counted.read_text())
        compare(report, f"{label}: rows trained", through["trained"], model.rows_trained(update))
        evaluated = model.rows_evaluated(update)
        compare(report, f"{label}: rows evaluated", through["evaluated"], evaluated)
        used = disk_used(root) / MB
        compare(report, f"{label}: disk, MB", used, model.disk(update, cached) / MB)
        cached += model.own(update).bytes
        asked = model.dvc_push(update)
        for kind in ("PUT", "bytes up"):
            compare(report, f"{label}: dvc push, {kind}", pushed[kind], asked[kind])
        print(f"{f'{label}: dvc push, LIST and HEAD':<52}{pushed['LIST']:12}{pushed['HEAD']:12}")
        lying = measure_remote(report, server, project, objects, update, label, lying)
    return spent


def measure_remote(
    report: Any,
    server: Server,
    project: Any,
    objects: Any,
    update: Update,
    label: str,
    lying: float,
) -> float:
    """Send what `train` reads and bring the state, as a job's two sides do; return objects there."""
    from renate_stages import files

    inputs = {
        path: {"sha256": files.sha256(path), "size": path.stat().st_size}
        for name in READ_BY_TRAIN
        for path in project.root.joinpath(name).rglob("*")
        if path.is_file()
    }
    made = files.inventory(project.state)
    sent = server.count(lambda: objects.upload(inputs, "inputs"))
    fresh = model.sent_to_job(update)
    reads = model.job_reads(update)
    asked = model.our_upload(fresh, reads.files - reads.same, lying)
    for kind in ("PUT", "POST", "HEAD", "LIST", "bytes up"):
        draws = asked[kind] if kind in ("HEAD", "LIST") else 0
        compare(report, f"{label}: sent to a job, {kind}", sent[kind], asked[kind], draws)
    lying += fresh.files - fresh.same
    objects.upload({project.state / name: entry for name, entry in made.items()}, "results")
    here = {entry["sha256"]: path for path, entry in inputs.items()}
    with project.empty_scratch("fetched") as scratch:
        wanted = {scratch / name: entry for name, entry in made.items()}
        travelled: list[Any] = []
        came = server.count(lambda: travelled.append(objects.download(wanted, here, "results")))
    # Of a file above 50 MiB s3fs first asks for all, looks at its size, hangs up, and asks for pieces.
    came["bytes down"] = travelled[0].bytes
    new = model.new_in_state(update)
    brought = model.our_download(new, lying)
    for kind in ("GET", "LIST", "bytes down"):
        draws = {"bytes down": update.added, "LIST": brought[kind]}.get(kind, 0)
        compare(report, f"{label}: brought from it, {kind}", came[kind], brought[kind], draws)
    return lying + new.files


def compare(report: Any, what: str, found: float, expected: float, draws: float = 0) -> None:
    """Print a measured figure beside the modelled one, and hold their ratio near 1.

    Args:
        report: Of the benchmark.
        what: The figure is of.
        found: As it was measured.
        expected: As the formula says.
        draws: How many things decide it that are as good as random: rows drawn, hashes of files.
    """
    ratio = found / expected if expected else 1.0 + bool(found)
    report.values[what] = [found, expected]
    print(f"{what:<52}{found:12.6g}{expected:12.6g}{ratio:8.3f}", flush=True)
    aim = max(WITHIN, 2 / draws**0.5) if draws else WITHIN
    if "files" in what or what.endswith(("GET", "PUT")):
        aim = max(aim, 1.01 / expected)  # one file may be equal to another by chance
    report.at_most(f"{what}, off by", abs(ratio - 1), aim)


def write_images(folder: Path, rows: int, seed: int) -> None:
    """Write random images and labels as two arrays; what was there is replaced, never written to."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for old in folder.glob("*.npy"):
        old.unlink()
    np.save(folder / "targets.npy", generator.integers(0, 10, rows))
    shape = (rows, *SHAPE)
    images = np.lib.format.open_memmap(folder / "inputs.npy", "w+", np.uint8, shape)
    for start in range(0, rows, 4096):
        count = min(4096, rows - start)
        images[start : start + count] = generator.integers(0, 256, (count, *SHAPE), np.uint8)
    images.flush()


def run(
    command: list[str],
    folder: Path | None = None,
    spent: Spent | None = None,
    what: str = "",
    variables: dict[str, str] | None = None,
) -> None:
    """Run a command, and note what it took."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "Bench",
        "GIT_AUTHOR_EMAIL": "bench@example.org",
        "GIT_COMMITTER_NAME": "Bench",
        "GIT_COMMITTER_EMAIL": "bench@example.org",
        "DVC_NO_ANALYTICS": "1",
        **(variables or {}),
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    told = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{told}")
    if spent is not None:
        spent.processor[what] = usage.ru_utime + usage.ru_stime
        spent.wall[what] = time.perf_counter() - started


def part_of(folder: Path) -> Part:
    """Return the files under a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Part(sum(sizes), len(sizes))


def read_by_train(root: Path) -> Part:
    """Return what `train` reads, each content once."""
    return model.total(part_of(root / name) for name in ("work/prepared", "parent-state"))


def disk_used(root: Path) -> int:
    """Return the bytes of a project's files, links once; without Git's own and the databases."""
    counted = {}
    for folder in (".dvc/cache", "data", "work", "state", "parent-state", "export"):
        for path in root.joinpath(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                counted[status.st_ino] = status.st_size
    return sum(counted.values())


if __name__ == "__main__":
    main()
