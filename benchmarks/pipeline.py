"""Wall time of one digits update, stage by stage: `make bench NAME=pipeline`.

Beside it, in the same run, the time inside the training loop itself (the same update through
`run_training_job` in a process that has imported everything), and a bare interpreter that only
imports torch and Lightning. The update is the second one of a generated project, so that there is
a parent, a memory and two holdouts. Nearly all of the time is imports: packages have to be compiled
to bytecode, as `make install` does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from report import Report, has_bytecode

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "restore-state", "tune", "train", "export")
LOOP = """
import sys, time
from pathlib import Path
from renate_stages import run_training_job
from renate_stages.files import yaml_file
from renate_stages.training.updater import Updater
root, out = Path(sys.argv[1]), Path(sys.argv[2])
params = yaml_file.read(root / "params.yaml")
inside = []
fit = Updater.update
def timed(*a, **k):
    started = time.perf_counter()
    try:
        return fit(*a, **k)
    finally:
        inside.append(time.perf_counter() - started)
Updater.update = timed
for attempt in ("warm", "timed"):
    run_training_job(params["hyperparameters"], max_epochs=params["trainer"]["max_epochs"],
                     config_file=root / "renate_config.py", data_path=root / "data" / "incoming",
                     input_state_url=root / "parent-state", output_state_url=out / attempt)
print(inside[-1])
"""


def main() -> None:
    """Make a project with one update, then time its second update again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat instead of three")
    repeats = 1 if parser.parse_args().quick else 3
    report = Report("pipeline", {"repeats": repeats, "threads": 1, "seed": 0})
    if not has_bytecode("torch"):
        print("note: packages are not compiled (`make install` does it): imports take double")
    with TemporaryDirectory() as folder:
        project = Path(folder) / "bench"
        answers = ["project_slug=bench", "--no-input", "--output-dir", folder]
        call("cookiecutter", str(ROOT), "--directory", "template", *answers, folder=ROOT)
        call("renate-stages", "init", folder=project)
        call("dvc", "repro", "-q", folder=project)
        call("git", "add", "-A", folder=project)
        call("git", "commit", "-qm", "Update 1", folder=project)
        call("renate-stages", "next", folder=project)
        call("renate-stages", "example-data", "2", folder=project)
        call("dvc", "add", "-q", "data/incoming", folder=project)
        call("dvc", "repro", "-q", folder=project)  # warm-up

        print(f"{'seconds':<44}   median       min       max")
        times: dict[str, list[float]] = {stage: [] for stage in STAGES}
        imports, repro, idle, loop = [], [], [], []
        for repeat in range(repeats):
            for stage in STAGES:
                times[stage].append(call("renate-stages", stage, folder=project))
            imports.append(call(sys.executable, "-c", "import pytorch_lightning", folder=project))
            scratch = Path(folder) / f"loop-{repeat}"
            scratch.mkdir()
            loop.append(inside_training(project, scratch))
            repro.append(call("dvc", "repro", "-q", "-f", folder=project))
            idle.append(call("dvc", "repro", "-q", folder=project))
    for stage in STAGES:
        report.add(stage, times[stage])
    total = [sum(times[stage][i] for stage in STAGES) for i in range(repeats)]
    report.add("all five stages", total)
    report.add("training itself, in a warm process", loop)
    report.add("a process that imports torch and Lightning", imports)
    report.add("dvc repro --force", repro)
    report.add("dvc repro, nothing to do", idle)
    over = median(t - inside for t, inside in zip(total, loop, strict=True))
    report.at_most("five processes over the training itself, s", over, 25)
    report.at_most("dvc repro with nothing to do, s", median(idle), 4)
    report.at_most("restore-state, s", median(times["restore-state"]), 2.5)
    report.at_most("tune, s", median(times["tune"]), 2.5)
    report.at_most("prepare, s", median(times["prepare"]), 5)
    report.finish()


def call(*command: str, folder: Path) -> float:
    """Run a command and return its wall time in seconds."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "Bench",
        "GIT_AUTHOR_EMAIL": "bench@example.org",
        "GIT_COMMITTER_NAME": "Bench",
        "GIT_COMMITTER_EMAIL": "bench@example.org",
        "DVC_NO_ANALYTICS": "1",
    }
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def inside_training(project: Path, scratch: Path) -> float:
    """Return the seconds of the training loop, in a process that has done it once before."""
    command = [sys.executable, "-c", LOOP, str(project), str(scratch)]
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
