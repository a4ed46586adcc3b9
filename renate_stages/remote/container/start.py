"""The first thing that runs in a job's container: install the library there, then run the stage.

It travels alone, before anything of ours is installed: the standard library is all it imports. Where
things lie it takes from the variables that SageMaker's training toolkit sets.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

BEGIN = "== renate-stages begins =="  # what is printed before it is of the container
END = "== renate-stages ends =="  # and what is printed after this


def main():
    configuration = Path(os.environ["SM_CHANNEL_CONFIGURATION"]) / "job.json"
    inputs = Path(os.environ["SM_CHANNEL_INPUTS"])
    job = json.loads(configuration.read_text(encoding="utf-8"))
    install(job, inputs)
    print(BEGIN, flush=True)
    command = [sys.executable, "-m", "renate_stages.remote.container", str(configuration)]
    os.execv(sys.executable, [*command, str(inputs)])


def install(job, inputs):
    """Install the library's wheel, and those requirements that are not here in their version."""
    lacking = [each for each in job["requirements"] if not is_here(each)]
    with tempfile.TemporaryDirectory() as folder:
        if lacking:
            listed = Path(folder) / "requirements.txt"
            listed.write_text("\n".join(lacking), encoding="utf-8")
            print(f"installing {len(lacking)} packages", flush=True)
            pip("--requirement", str(listed), say=", ".join(lacking))
        wheel = Path(folder) / job["wheel"]["name"]
        shutil.copyfile(inputs / job["wheel"]["object"], wheel)
        pip("--no-index", "--force-reinstall", str(wheel), say=job["wheel"]["name"])


def is_here(requirement):
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


def pip(*arguments, say):
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "install", *options, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        problem = f"cannot be installed in the image: {say}\n{done.stdout[-800:]}"
        print(problem, flush=True)
        Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(problem[-1000:], encoding="utf-8")
        sys.exit(1)


if __name__ == "__main__":
    main()
