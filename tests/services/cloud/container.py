"""One host of a training job: /opt/ml in a folder, a clean environment, the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloud import processes
from cloud.image import Image

OPT_ML = "/opt/ml"
FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints")
DRIVERS = "sm_drivers"  # channel of ModelTrainer's own scripts, which name /opt/ml
SCRIPTS = (".json", ".py", ".sh")


class Container:
    """A host, whose /opt/ml is a folder of its own.

    Who has no root cannot have /opt/ml here, so the request's words /opt/ml are replaced by the
    folder where the request reaches the container: in the command, the environment, the
    hyperparameters, and in the scripts that ModelTrainer sends. Not in the files of other
    channels: what runs must be told its folders.

    Hosts are named by addresses, 127.0.0.1, 127.0.0.2 and so on: "algo-1" could be looked up
    nowhere on this machine, but a name from resourceconfig.json must be one to connect to.

    Args:
        folder: All that belongs to the container; it must not exist.
        image: What it starts from.
        index: Number of the host, from 0.
        hosts: How many there are.
    """

    def __init__(self, folder: Path, image: Image, index: int, hosts: int) -> None:
        self.folder, self.index, self.hosts = folder, index, hosts
        self.ml = folder / "opt" / "ml"
        for name in FOLDERS:
            (self.ml / name).mkdir(parents=True)
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()
        self.bin = image.unpack(folder / "python")
        self.stream = f"algo-{index + 1}-{int(time.time() * 1000)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._said: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def here(self, text: str) -> str:
        """Say where something of /opt/ml is on this machine."""
        return text.replace(OPT_ML, str(self.ml))

    def configure(self, request: dict[str, Any]) -> None:
        """Write input/config, and move the drivers of ModelTrainer to this folder."""
        names = [f"127.0.0.{number + 1}" for number in range(self.hosts)]
        instance = request["ResourceConfig"]["InstanceType"]
        group = {"instance_group_name": "homogeneousCluster", "instance_type": instance}
        contents = {
            "hyperparameters": {
                key: self.here(value) for key, value in request.get("HyperParameters", {}).items()
            },
            "inputdataconfig": {
                channel["ChannelName"]: _described(channel)
                for channel in request.get("InputDataConfig", [])
            },
            "resourceconfig": {
                "current_host": names[self.index],
                "current_instance_type": instance,
                "current_group_name": "homogeneousCluster",
                "hosts": names,
                "instance_groups": [group | {"hosts": names}],
                "network_interface_name": "lo",
            },
        }
        for name, content in contents.items():
            (self.ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content))
        for path in (self.ml / "input" / "data" / DRIVERS).rglob("*"):
            if path.suffix in SCRIPTS:
                path.write_text(self.here(path.read_text()))

    def start(self, request: dict[str, Any], given: dict[str, str]) -> None:
        """Run the entry point with nothing but what the request and the service set.

        Args:
            request: Of CreateTrainingJob.
            given: Variables that the service sets.

        Raises:
            OSError: There is no such program.
        """
        what = request["AlgorithmSpecification"]
        command = [*what.get("ContainerEntrypoint", ["train"]), *what.get("ContainerArguments", [])]
        environment = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            **given,
            **{name: self.here(text) for name, text in request.get("Environment", {}).items()},
        }
        self._process = subprocess.Popen(
            [self.here(word) for word in command],
            cwd=self.folder / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip("\n") or " "  # empty ones are refused
                with self._lock:
                    self._said.append({"timestamp": int(time.time() * 1000), "message": text})

    def said(self) -> list[dict[str, Any]]:
        """Take the lines since the last time, as events of CloudWatch Logs."""
        with self._lock:
            said, self._said = self._said, []
        return said

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + the signal, as Docker counts, if one ended it."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def terminate(self) -> None:
        """Send SIGTERM, as the first process of a container gets it: only with a handler for it.

        The kernel does not deliver a signal to the first process of a namespace which has none.
        So a shell that started the program, and a program without a handler, go on until SIGKILL.
        """
        if processes.catches(self._process.pid, signal.SIGTERM):
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def end(self) -> None:
        """End it, with everything inside."""
        if self._process is not None:
            processes.end_all(self.folder)
            self._process.wait()
            self._reader.join(10)

    def failure(self) -> str:
        """What the program left as the reason of its failure."""
        path = self.ml / "output" / "failure"
        return path.read_text(errors="replace") if path.is_file() else ""


def _described(channel: dict[str, Any]) -> dict[str, str]:
    source = channel["DataSource"]["S3DataSource"]
    described = {
        "TrainingInputMode": channel.get("InputMode", "File"),
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": "None",
    }
    if "ContentType" in channel:
        described["ContentType"] = channel["ContentType"]
    return described
