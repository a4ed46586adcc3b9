"""The image of containers: Python with the locked packages, without this library."""

from __future__ import annotations

import importlib.util
import sysconfig
import venv
from pathlib import Path

from cloud.warm_python import WarmPython

PROJECT = "renate_stages"


class Image:
    """An image with the packages of the environment that the tests run in.

    The packages are symbolic links in the image's own folder. This library has no link, nor has
    anything that `.pth` files would add, such as its editable installation.

    Args:
        folder: Folder to create the image in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warm: WarmPython | None = None
        self.packages = folder / "site-packages"
        self.packages.mkdir(parents=True)
        for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for package in Path(installed).iterdir():
                if package.suffix != ".pth" and PROJECT not in package.name:
                    (self.packages / package.name).symlink_to(package)
        assert importlib.util.find_spec("pip"), "the image needs pip: python -m ensurepip"

    def warm_up(self) -> None:
        """Run the programs of this library, in containers from now on, in forked processes."""
        if self._warm is None:
            python = self.unpack(self._folder / "python") / "python3"
            self._warm = WarmPython(python, self._folder / "warm")

    def end(self) -> None:
        """End the process that forks programs, if there is one."""
        if self._warm is not None:
            self._warm.end()

    def unpack(self, to: Path) -> Path:
        """Create a container's own environment, into which pip can install.

        Args:
            to: Folder to create; it must not exist.

        Returns:
            The folder of `python`, `python3`, `pip` and `pip3`.
        """
        venv.EnvBuilder(symlinks=True, with_pip=False).create(to)
        (own,) = to.glob("lib/python*/site-packages")
        (own / "_image.pth").write_text(f"{self.packages}\n")
        for name in ("pip", "pip3"):
            command = to / "bin" / name
            command.write_text(f'#!/bin/sh\nexec "{to}/bin/python3" -m pip "$@"\n')
            command.chmod(0o755)
        if self._warm is not None:
            self._warm.stand_in(to / "bin")
        return to / "bin"
