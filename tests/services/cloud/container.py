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
DRIVERS = "sm_drivers"  # channel of ModelTrainer's own scripts, which refer to /opt/ml
SCRIPTS = (".json", ".py", ".sh")


class Container:
    """A host, whose /opt/ml is a folder of its own.

    Without root permissions, /opt/ml cannot be created. Each /opt/ml in a request is therefore
    replaced by the container's folder: in the command, the environment, the hyperparameters and
    the scripts that ModelTrainer sends. Files of other channels are not changed: programs must get
    their folders as arguments.

    Host names are addresses, 127.0.0.1, 127.0.0.2 and so on: programs must be able to connect to
    the names in resourceconfig.json, and this machine could not resolve "algo-1".

    Args:
        folder: Folder of the container; it must not exist.
        image: Image to start from.
        index: Number of the host, from 0.
        hosts: Number of hosts.
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
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def remap(self, text: str) -> str:
        """Replace /opt/ml in a text by the container's folder."""
        return text.replace(OPT_ML, str(self.ml))

    def configure(self, request: dict[str, Any]) -> None:
        """Write input/config, and adapt ModelTrainer's scripts to this folder."""
        names = [f"127.0.0.{number + 1}" for number in range(self.hosts)]
        instance = request["ResourceConfig"]["InstanceType"]
        group = {"instance_group_name": "homogeneousCluster", "instance_type": instance}
        contents = {
            "hyperparameters": {
                key: self.remap(value) for key, value in request.get("HyperParameters", {}).items()
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
                path.write_text(self.remap(path.read_text()))

    def start(self, request: dict[str, Any], given: dict[str, str]) -> None:
        """Run the entry point in an environment that only request and service define.

        Args:
            request: Request of CreateTrainingJob.
            given: Environment variables that the service sets.

        Raises:
            OSError: The program does not exist.
        """
        what = request["AlgorithmSpecification"]
        command = [*what.get("ContainerEntrypoint", ["train"]), *what.get("ContainerArguments", [])]
        environment = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            **given,
            **{name: self.remap(text) for name, text in request.get("Environment", {}).items()},
        }
        self._process = subprocess.Popen(
            [self.remap(word) for word in command],
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
                text = line.decode(errors="replace").rstrip("\n") or " "  # empty lines are refused
                with self._lock:
                    self._lines.append({"timestamp": int(time.time() * 1000), "message": text})

    def take_lines(self) -> list[dict[str, Any]]:
        """Return the lines since the last call, as events of CloudWatch Logs."""
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the process runs; 128 + the signal that ended it, as in Docker."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def terminate(self) -> None:
        """Send SIGTERM if the process handles it, as for the first process of a real container.

        The kernel does not deliver a signal to the first process of a namespace if that process has
        no handler. So a shell, or a program without a handler, keeps running until SIGKILL.
        """
        if processes.catches(self._process.pid, signal.SIGTERM):
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def end(self) -> None:
        """End the container with all its processes."""
        if self._process is not None:
            processes.end_all(self.folder)
            self._process.wait()
            self._reader.join(10)

    def failure(self) -> str:
        """Return the failure reason that the program wrote."""
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
