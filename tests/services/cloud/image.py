"""What a container finds when it starts: Python with the locked packages, without this library."""

from __future__ import annotations

import importlib.util
import sysconfig
import venv
from pathlib import Path

PROJECT = "renate_stages"


class Image:
    """An image with the packages of the environment that the tests run in.

    They are links, in a folder of the image's own: what is not in the image, this library and
    everything that `.pth` files would add, such as its editable installation, has no link.

    Args:
        folder: Where the image is put.
    """

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "site-packages"
        self.packages.mkdir(parents=True)
        for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for package in Path(installed).iterdir():
                if package.suffix != ".pth" and PROJECT not in package.name:
                    (self.packages / package.name).symlink_to(package)
        assert importlib.util.find_spec("pip"), "the image needs pip: python -m ensurepip"

    def unpack(self, to: Path) -> Path:
        """Make a container's own environment, which pip installs into.

        Args:
            to: Folder of it; it must not exist.

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
        return to / "bin"
