"""Speed, bytes and memory of the store of examples: `make bench NAME=store`.

Each figure beside its peer in the same run, alternating: tensors in memory, `numpy.save`, a Python
loop, one `torch.save` file per example. Examples are CIFAR-sized: 3x32x32 uint8, a label, 10 float
logits. Files are read from the page cache. The peer with a file per example is measured on 2,000
rows and given per row.

The updates of the last part are what `train` does to a state, without the training: select, evolve
the memory, link capped holdouts, write the manifest.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from report import Report

from renate_stages import files
from renate_stages.data import StoredDataset
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.memory import ExampleStore, Reservoir, StoreWriter, evolve
from renate_stages.state import Provenance, State, state

ROW_BYTES = 3 * 32 * 32 + 8 + 10 * 4
BATCH = 256
FEW = 2000
LIMIT_MB = 200
UPDATES = 50
CHUNK = 2000


def main() -> None:
    """Measure all parts on 50,000 rows and, without --quick, on 1,000,000."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 rows, fewer repeats")
    # In a process of their own, whose memory nothing else has grown:
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--updates", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.replay:
        replay(arguments.replay)
        return
    if arguments.updates:
        print(json.dumps(run_updates(arguments.updates)))
        return
    repeats = 3 if arguments.quick else 7
    report = Report("store", {"batch": BATCH, "repeats": repeats, "seed": 0, "threads": 1})
    print(f"{'':<44}   median       min       max")
    with TemporaryDirectory() as folder:
        for rows in (50_000,) if arguments.quick else (50_000, 1_000_000):
            measure_size(report, Path(folder), rows, repeats)
        measure_selection(report, repeats)
        measure_updates(report, Path(folder) / "updates")
        measure_memory(report, Path(folder) / "large")
    report.finish()


def examples(rows: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return random CIFAR-sized examples."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
    logits = generator.random((rows, 10), dtype=np.float32)
    return images, {"label": generator.integers(0, 10, rows), "logits": logits}


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def measure_size(report: Report, folder: Path, rows: int, repeats: int) -> None:
    """Append and random batches, at one number of rows."""
    images, targets = examples(rows)
    block = (images, targets)
    name = f"{rows // 1000}k"
    ours, saved = [], []
    appends = repeats if rows <= 50_000 else 2  # three gigabytes each
    for _ in range(appends + 1):  # the first is the warm-up
        target = folder / "written"
        ours.append(seconds(write, target, block))
        shutil.rmtree(target)
        target.mkdir()
        saved.append(seconds(save_arrays, target, block))
        shutil.rmtree(target)
    one_file = folder / "files"
    per_file = seconds(save_files, one_file, block) / FEW * rows
    report.add(f"append {name} rows, ms", [1e3 * t for t in ours[1:]])
    report.add(f"numpy.save of {name} rows, ms", [1e3 * t for t in saved[1:]])
    report.add(f"torch.save, a file each, {name} rows, ms", [1e3 * per_file])
    ratio = median(a / b for a, b in zip(ours[1:], saved[1:], strict=True))
    report.at_most(f"append {name} rows over numpy.save", ratio, 2)
    report.at_least(f"a file each over append {name} rows", per_file / median(ours[1:]), 10)

    tensors = [torch.from_numpy(each) for each in (images, targets["label"], targets["logits"])]
    generator = np.random.default_rng(1)
    for shards, aim in ((10, 0.5), (200, 0.2)):
        store_folder = folder / f"shards-{shards}"
        write(store_folder, block, shard_bytes=-(-rows // shards) * ROW_BYTES)
        dataset = StoredDataset(ExampleStore.open(store_folder))
        for start in range(0, rows, 10_000):  # the pages of both are there
            dataset.__getitems__(range(start, min(rows, start + 10_000)))
        found: dict[str, list[float]] = {"ours": [], "memory": []}
        for _ in range(50 * repeats):
            chosen = generator.integers(0, rows, BATCH)
            index = torch.from_numpy(chosen)
            found["ours"].append(seconds(dataset.__getitems__, chosen))
            found["memory"].append(seconds(gather_tensors, tensors, index))
        batch = [1e3 * t for t in found["ours"]]
        report.add(f"batch of 256, {name} rows, {shards} shards, ms", batch)
        report.add(
            f"the same from tensors in memory ({shards}), ms", [1e3 * t for t in found["memory"]]
        )
        speed = median(b / a for a, b in zip(found["ours"], found["memory"], strict=True))
        report.at_least(f"speed of {shards} shards over memory, {name} rows", speed, aim)
        if shards == 10:
            single = [seconds(load_files, one_file, generator) for _ in range(repeats)]
            report.add("batch of 256, a torch.save file each, ms", [1e3 * t for t in single])
            times = median(single) / median(found["ours"])
            report.at_least(f"a file each over 10 shards, {name} rows", times, 100)
        shutil.rmtree(store_folder)
    shutil.rmtree(one_file)
    gc.collect()


def gather_tensors(tensors: list[torch.Tensor], index: torch.Tensor) -> list[torch.Tensor]:
    """Gather a batch from memory the fastest way torch has; `each[index]` takes five times as long."""
    return [each.index_select(0, index) for each in tensors]


def write(folder: Path, block: tuple, shard_bytes: int = 64 * 2**20) -> None:
    """Write a store in blocks of 4,096 rows, as `prepare` does."""
    images, targets = block
    with StoreWriter(folder, 1, shard_bytes) as writer:
        for start in range(0, len(images), 4096):
            part = slice(start, start + 4096)
            writer.append((images[part], {name: each[part] for name, each in targets.items()}))


def save_arrays(folder: Path, block: tuple) -> None:
    """Write the same arrays with `numpy.save`."""
    images, targets = block
    for name, array in {"images": images, **targets}.items():
        np.save(folder / name, array)


def save_files(folder: Path, block: tuple) -> None:
    """Write one torch file for each of a few examples."""
    images, targets = block
    folder.mkdir()
    for row in range(FEW):
        example = (torch.from_numpy(images[row].copy()), int(targets["label"][row]))
        torch.save(
            (*example, torch.from_numpy(targets["logits"][row].copy())), folder / f"{row}.pt"
        )


def load_files(folder: Path, generator: np.random.Generator) -> None:
    """Read a random batch from one file per example."""
    rows = generator.integers(0, FEW, BATCH)
    loaded = [torch.load(folder / f"{row}.pt", weights_only=True) for row in rows]
    torch.stack([example[0] for example in loaded])
    torch.stack([example[2] for example in loaded])


def measure_selection(report: Report, repeats: int) -> None:
    """Reservoir selection of a million rows, beside Vitter's algorithm in a Python loop."""
    ours, loop = [], []
    for repeat in range(repeats):
        policy = Reservoir(5000, np.random.default_rng(repeat))
        ours.append(seconds(policy.select, None, None, 0, 1_000_000))
        generator = np.random.default_rng(repeat)
        loop.append(seconds(python_reservoir, 5000, 1_000_000, generator))
    report.add("reservoir of 1,000,000 rows, ms", [1e3 * t for t in ours])
    report.add("the same in a Python loop, ms", [1e3 * t for t in loop])
    ratio = median(b / a for a, b in zip(ours, loop, strict=True))
    report.at_least("a Python loop over the reservoir", ratio, 50)


def python_reservoir(size: int, count: int, generator: np.random.Generator) -> list[int]:
    """Vitter's Algorithm R, item after item; the draws are made at once, which favours it."""
    draws = generator.random(count)
    memory: list[int] = []
    for item in range(count):
        if item < size:
            memory.append(item)
        else:
            slot = int(draws[item] * (item + 1))
            if slot < size:
                memory[slot] = item
    return memory


def measure_updates(report: Report, folder: Path) -> None:
    """The cost of update t from 1 to 50: equal chunks, a bounded memory, capped holdouts."""
    folder.mkdir()
    command = [sys.executable, __file__, "--updates", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cost = json.loads(done.stdout)
    early, late = slice(1, 11), slice(-10, None)
    for what in cost:
        report.add(f"{what} of updates 2 to 11", cost[what][early])
        report.add(f"{what} of the last ten updates", cost[what][late])
    for what, aim in (("new MB", 1.05), ("time, ms,", 1.25), ("peak MB", 1.05)):
        ratio = sum(cost[what][late]) / sum(cost[what][early])
        report.at_most(f"{what} last ten over updates 2 to 11", ratio, aim)


def run_updates(folder: Path) -> dict[str, list[float]]:
    """Run the updates; return what each of them cost."""
    state.write_empty(made(folder / "0"))
    policy = Reservoir(5000, np.random.default_rng(0))
    stored: set[str] = set()
    cost: dict[str, list[float]] = {"new MB": [], "time, ms,": [], "peak MB": []}
    for number in range(1, UPDATES + 1):
        chunk = examples(CHUNK, number)
        holdout = (chunk[0][:200], {name: each[:200] for name, each in chunk[1].items()})
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started = time.perf_counter()
        write(folder / "new" / "train", chunk)
        write(folder / "new" / "test", holdout)
        target = made(folder / str(number))
        one_update(folder, number, policy, target)
        cost["time, ms,"].append(1e3 * (time.perf_counter() - started))
        cost["peak MB"].append(memory_mb("VmHWM"))
        listed = files.inventory(target).values()
        fresh = {
            entry["sha256"]: entry["size"] for entry in listed if entry["sha256"] not in stored
        }
        cost["new MB"].append(sum(fresh.values()) / 1e6)
        stored |= fresh.keys()
        shutil.rmtree(folder / "new")
        if number > 1:
            shutil.rmtree(folder / str(number - 2), ignore_errors=True)
    return cost


def made(folder: Path) -> Path:
    """Make a folder and return it."""
    folder.mkdir()
    return folder


def one_update(folder: Path, number: int, policy: Reservoir, target: Path) -> None:
    """Write the state of one update, with the holdouts of the last five updates."""
    parent = State.open(folder / str(number - 1))
    memory, new = parent.memory(), ExampleStore.open(folder / "new" / "train")
    kept, added = policy.select(None, None, len(memory), len(new))
    evolve(target / "memory", memory, kept, new, added, number)
    holdouts = {**parent.split("holdouts"), number: ExampleStore.open(folder / "new" / "test")}
    state.write_split(target, "holdouts", dict(sorted(holdouts.items())[-5:]))
    state.write_split(target, "validation", {})
    EvaluationHistory().write(target / "evaluations.csv")
    state.write_manifest(target, Provenance("update", number, parent.identity), parent)


def measure_memory(report: Report, folder: Path) -> None:
    """Resident memory of a process that replays from a store ten times larger than a limit."""
    rows = 10 * LIMIT_MB * 10**6 // ROW_BYTES
    with StoreWriter(folder, 1) as writer:
        for start in range(0, rows, 10_000):
            writer.append(examples(min(10_000, rows - start), start))
    command = [sys.executable, __file__, "--replay", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    base, grown = map(float, done.stdout.split()[-2:])
    report.add(f"RssAnon while replaying from {10 * LIMIT_MB} MB, over start, MB", [grown - base])
    report.at_most("growth of RssAnon while replaying, MB", grown - base, LIMIT_MB)


def replay(folder: Path) -> None:
    """Draw batches from a store; print RssAnon in MB before it is opened, and the most after."""
    dataset = StoredDataset(ExampleStore.open(folder))
    base = memory_mb("RssAnon")
    generator, most = np.random.default_rng(0), base
    for step in range(2000):
        dataset.__getitems__(generator.integers(0, len(dataset), BATCH))
        if step % 50 == 0:
            most = max(most, memory_mb("RssAnon"))
    print(base, most)


def memory_mb(kind: str) -> float:
    """Return this process's RssAnon (what is no mapped file) or VmHWM (the peak of both)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


if __name__ == "__main__":
    main()
