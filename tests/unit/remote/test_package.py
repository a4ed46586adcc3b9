"""Package the library for cloud jobs: its wheel, and pins of the locally installed versions."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

import renate_stages
from renate_stages.errors import MalformedFileError, MissingFileError, NotInstalledHereError
from renate_stages.remote import package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    name, content = package.wheel()
    path = tmp_path_factory.mktemp("wheel") / name
    path.write_bytes(content)
    return path


def test_equal_sources_give_identical_wheels(wheel):
    assert package.wheel() == (wheel.name, wheel.read_bytes())


def test_wheel_can_be_installed_and_imported(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path), str(wheel)], check=True)
    show = "import renate_stages; print(renate_stages.__file__, renate_stages.__version__)"
    command = [sys.executable, "-c", show]
    where = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        command, env=where, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    printed = done.stdout
    assert printed.split() == [
        str(tmp_path / "renate_stages" / "__init__.py"),
        renate_stages.__version__,
    ]
    assert (tmp_path / "renate_stages" / "remote" / "start.py").is_file()


def test_wheel_metadata_declares_the_required_python_version(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert "Requires-Python: >=3.11" in archive.read(name).decode()


def test_pins_cover_all_dependencies_in_their_installed_versions():
    found = dict(line.split("==") for line in package.pins())
    for name in ("torch", "pytorch-lightning", "s3fs", "nvidia-cublas", "numpy"):
        if name == "nvidia-cublas" and name not in found:
            continue  # the CPU build of torch
        assert found[name] == metadata.version(name).partition("+")[0]
    assert "pytest" not in found and "renate-stages" not in found


def test_packages_of_the_image_are_not_pinned():
    assert not [line for line in package.pins(without=["Torch"]) if line.startswith("torch==")]


def test_requirements_of_the_project_are_pinned_too(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# of ours\nrenate-stages[s3]>=0.1\npytest>=8  # a test\n--no-index\n")
    assert f"pytest=={metadata.version('pytest')}" in package.pins(path)


def test_error_names_a_requirement_that_is_not_installed(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("pytest\nno-such-thing>=1\n")
    with pytest.raises(NotInstalledHereError, match="no-such-thing"):
        package.pins(path)


def test_missing_or_malformed_requirements_file_is_refused(tmp_path):
    path = tmp_path / "requirements.txt"
    with pytest.raises(MissingFileError):
        package.pins(path)
    path.write_text("torch = 2\n")
    with pytest.raises(MalformedFileError, match="torch = 2"):
        package.pins(path)
