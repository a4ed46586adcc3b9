"""A new user's first three updates, from an empty folder: `make demo`.

Generates a project into ./demo and takes it through three updates on scikit-learn's handwritten
digits, which arrive class by class. Starts afresh each time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo"
REMOTE = ROOT / "demo-dvc-remote"
ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Demo",
    "GIT_AUTHOR_EMAIL": "demo@example.org",
    "GIT_COMMITTER_NAME": "Demo",
    "GIT_COMMITTER_EMAIL": "demo@example.org",
    **{name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
}
ENVIRONMENT.pop("MLFLOW_TRACKING_URI", None)


def main() -> None:
    """Generate, update three times, compare."""
    started = time.monotonic()
    for folder in (DEMO, REMOTE):
        if folder.exists():
            shutil.rmtree(folder)
    answers = ["project_name=Demo", "project_slug=demo", f"_renate_stages=-e {ROOT}"]
    run("cookiecutter", "--no-input", ".", "--directory", "template", *answers, folder=ROOT)
    run("renate-stages", "init")
    for update in (1, 2, 3):
        print(f"\n--- update {update} ---")
        run("renate-stages", "example-data", str(update))
        run("dvc", "add", "--quiet", "data/incoming")
        run("dvc", "repro", "--quiet")
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "-m", f"Update {update}")
        if update < 3:
            run("renate-stages", "next")

    print("\n--- what changed from update 1 to update 3 ---")
    run("dvc", "metrics", "diff", "--md", "update-1", "--targets", "metrics/update.json")
    figures = json.loads((DEMO / "metrics" / "update.json").read_text())["accuracy"]
    print("--- accuracy after update 3 on the holdout of each update ---")
    for number, value in figures["holdout"].items():
        print(f"update {number}: {value:.3f}")
    print(f"all:      {figures['overall']:.3f}")
    print(f"\n{time.monotonic() - started:.0f} s. The runs, as a page on http://127.0.0.1:5000:")
    print("  .venv/bin/mlflow ui --backend-store-uri sqlite:///demo/mlflow.db")


def run(*command: str, folder: Path = DEMO) -> None:
    """Run a command as a user would, and end with its exit code if it fails."""
    print(f"$ {' '.join(command)}", flush=True)
    code = subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
