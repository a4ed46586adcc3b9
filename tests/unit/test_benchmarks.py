"""What the scripts in `benchmarks` share."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ASK = """
import sys
sys.path.insert(0, {folder!r})
import report
from importlib.util import find_spec
print(report.is_installed("avalanche"), find_spec("avalanche").origin)
"""


def test_a_benchmark_named_like_a_package_does_not_stand_in_for_it() -> None:
    """A script's folder comes first where Python looks: there `import avalanche` is a benchmark."""
    ask = ASK.format(folder=str(BENCHMARKS))
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    spec = find_spec("avalanche")
    found = spec.origin if spec is not None else str(BENCHMARKS / "avalanche.py")
    assert asked.stdout.split() == [str(spec is not None), found]
