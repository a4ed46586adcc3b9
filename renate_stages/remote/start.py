"""The first program in a job's container: install the library, then run the stage.

It travels alone, before anything of ours is installed: the standard library is all it imports. It
takes the folders from the variables that SageMaker's training toolkit sets. The SHA-256 of job.json
is in the request that started the job, and job.json names everything else by its SHA-256: whoever
can write to the bucket alone cannot change what the job runs once it has begun.
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
DIGEST = "RENATE_STAGES_JOB_SHA256"  # variable of the job
BEGIN = "== renate-stages begins =="  # what is printed before it is of the container
END = "== renate-stages ends =="  # and what is printed after this


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
    """Install the library's wheel, and those requirements that are not here in their version."""
    lacking = [each for each in job["requirements"] if not is_here(each)]
    name, source = job["wheel"]["name"], job["wheel"]["object"]
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / name
        shutil.copyfile(inputs / source, wheel)
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != source.replace("/", ""):
            fail(
                f"objects/{source}, the library, is not what its name says. "
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
        fail(f"cannot be installed in the image: {say}\n{done.stdout[-800:]}")


def fail(problem):
    """End the job, and say why, where SageMaker shows it."""
    print(problem, flush=True)
    Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(problem[-1000:], encoding="utf-8")
    sys.exit(1)


if __name__ == "__main__":
    main()
