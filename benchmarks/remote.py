"""Sending a state to S3: `make bench NAME=remote`.

A state of 200 shards of 100 kB, and its next update with 20 new ones, to a server of moto in a process
of its own on this machine, which answers each request 20 ms later than it could, as a service at some
distance does. Ours beside its peers in the same run, in turn, each time to an empty place: one PUT after
the other with boto3 in the same process; and, as processes from their start to their end,
`renate-stages copy-state` beside `dvc push` of the same folder. Bytes and files are counted by the
server. The server and the clients share the cores, so what is timed is their work and the waiting.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from report import Report
from s3_server import BUCKET, Server

from renate_stages.state import Provenance, state
from renate_stages.storage import Storage
from renate_stages.storage.states import send_state

LATENCY = 0.02  # seconds
SHARDS, NEW = 200, 20
SHARD_BYTES = 100_000
BIN = Path(sys.executable).parent


def main() -> None:
    """Send a state in each way in turn, then its next update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    repeats = 1 if parser.parse_args().quick else 3
    settings = {"latency": LATENCY, "repeats": repeats, "shards": SHARDS, "new": NEW}
    report = Report("remote", {**settings, "bytes of a shard": SHARD_BYTES})
    with TemporaryDirectory() as folder, Server(LATENCY) as server:
        first, second = make_states(Path(folder))
        times = time_all(report, server, first, Path(folder), repeats)
        measure_bytes(report, server, first, second)
    for peer, own, aim in (("boto3", "ours", 2), ("dvc push", "copy-state", 1)):
        ratios = [a / b for a, b in zip(times[peer], times[own], strict=True)]
        report.at_least(f"{peer} over {own}, time", median(ratios), aim)
    report.finish()


def make_states(folder: Path) -> tuple[Path, Path]:
    """Write a state of many shards and one that has most of them."""
    generator = np.random.default_rng(0)
    first, second = folder / "first", folder / "second"
    for number in range(SHARDS + NEW):
        content = generator.bytes(SHARD_BYTES)
        for place, of_it in ((first, number < SHARDS), (second, number >= NEW)):
            if of_it:
                path = place / "memory" / f"{number:05}-00.inputs.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    for number, place in enumerate((first, second)):
        state.write_manifest(place, Provenance("update", number))
    return first, second


def time_all(
    report: Report, server: Server, first: Path, folder: Path, repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of each way to send a state."""
    project = folder / "project"
    shutil.copytree(first, project / "state")

    def dvc(*arguments: str) -> None:
        subprocess.run([str(BIN / "dvc"), *arguments], cwd=project, check=True)

    dvc("init", "-q", "--no-scm")
    dvc("add", "-q", "state")

    def boto3_loop(place: str) -> None:
        for path in sorted(first.rglob("*")):
            if path.is_file():
                key = f"{place}/{path.relative_to(first).as_posix()}"
                server.client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())

    def dvc_push(place: str) -> None:
        dvc("remote", "add", "-q", place, f"s3://{BUCKET}/{place}")
        started.append(time.perf_counter())  # naming the remote is not pushing
        dvc("push", "-q", "-r", place)

    def copy_state(place: str) -> None:
        command = [str(BIN / "renate-stages"), "copy-state", str(first), f"s3://{BUCKET}/{place}"]
        subprocess.run(command, check=True, capture_output=True)

    ways: dict[str, Callable[[str], Any]] = {
        "ours": lambda place: send_state(first, Storage.at(f"s3://{BUCKET}/{place}")),
        "boto3": boto3_loop,
        "copy-state": copy_state,
        "dvc push": dvc_push,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    ways["ours"]("warm-up")
    for repeat in range(repeats):
        for name, send in ways.items():
            started = [time.perf_counter()]
            send(f"{name.replace(' ', '-')}-{repeat}")
            times[name].append(time.perf_counter() - started[-1])
    print(f"{'seconds':<44}   median       min       max")
    for name, values in times.items():
        report.add(name, values)
    return times


def measure_bytes(report: Report, server: Server, first: Path, second: Path) -> None:
    """Count what of an update travels, and what of a sending that is repeated."""
    before, after = (Storage.at(f"s3://{BUCKET}/bytes/{name}") for name in ("1", "2"))
    whole = sum(path.stat().st_size for path in second.rglob("*") if path.is_file())
    send_state(first, before)
    asked = server.count(lambda: send_state(second, after, parent=before))
    what = "files that travel of an update, over new ones and state.json"
    report.at_most(what, asked["PUT"], NEW + 1)
    share = asked["bytes up"] / whole
    report.at_most("bytes that travel of an update, over the state's", share, NEW / SHARDS + 0.01)
    after.remove(["state.json", *sorted(after.sizes())[:5]])  # as an interrupted sending left it
    asked = server.count(lambda: send_state(second, after))
    report.at_most("files that travel again where 5 were missing", asked["PUT"], 6)


if __name__ == "__main__":
    main()
