"""The first program in a job's container: install the library, then run the stage.

This file is sent alone and runs before our library is installed, so it imports only the standard
library. It reads the folders from the variables that SageMaker's training toolkit sets. The request
that started the job contains the SHA-256 of job.json, and job.json names all other files by their
SHA-256. So write access to the bucket alone is not enough to change what a submitted job runs.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

DESCRIPTION = "job.json"
DIGEST = "RENATE_STAGES_JOB_SHA256"  # environment variable of the job
BEGIN = "== renate-stages begins =="  # lines before this one are the container's
END = "== renate-stages ends =="  # lines after this one are the container's


def main():
    configuration = Path(os.environ["SM_CHANNEL_CONFIGURATION"]) / DESCRIPTION
    inputs = Path(os.environ["SM_CHANNEL_INPUTS"])
    content = configuration.read_bytes()
    if hashlib.sha256(content).hexdigest() != os.environ.get(DIGEST):
        fail(
            f"{DESCRIPTION} is not the one that this job was submitted with. "
            "To fix this: run `dvc repro` again, which submits a new job."
        )
    job = json.loads(content)
    install(job, inputs)
    print(BEGIN, flush=True)
    command = [sys.executable, "-m", "renate_stages.remote.container", str(configuration)]
    os.execv(sys.executable, [*command, str(inputs)])


def install(job, inputs):
    """Install the library's wheel, and the requirements that the image lacks in that version."""
    lacking = [each for each in job["requirements"] if not is_here(each)]
    name, source = job["wheel"]["name"], job["wheel"]["object"]
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / name
        shutil.copyfile(inputs / source, wheel)
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != source.replace("/", ""):
            fail(
                f"objects/{source} (the library) does not match the SHA-256 in its name. "
                "To fix this: run `dvc repro` again, which sends it again."
            )
        if lacking:
            listed = Path(folder) / "requirements.txt"
            listed.write_text("\n".join(lacking), encoding="utf-8")
            print(f"installing {len(lacking)} packages", flush=True)
            pip("--requirement", str(listed), say=", ".join(lacking))
        pip("--no-index", "--force-reinstall", str(wheel), say=name)


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
        fail(f"cannot install in the image: {say}\n{done.stdout[-800:]}")


def fail(problem):
    """End the job and write the reason to the file that SageMaker shows."""
    print(problem, flush=True)
    Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(problem[-1000:], encoding="utf-8")
    sys.exit(1)


if __name__ == "__main__":
    main()
