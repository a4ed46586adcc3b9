"""Start the processes that share a training, and find out which of them this one is.

    renate-stages train                     with trainer.devices: 2, starts two processes and waits
    torchrun ... -m renate_stages train     on each of several nodes; uses the processes of torchrun

Each process reads its rank from the environment variables that torchrun and SageMaker set. Only the
first process locks the project, logs, prints and writes. Torch is imported only where processes are
started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from renate_stages.errors import LostProcessError, ProcessCountError
from renate_stages.processes import end_with_parent
from renate_stages.project import Project

if TYPE_CHECKING:
    from renate_stages.params import Params, TrainerParams

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # set by every launcher
OURS = "RENATE_STAGES_LAUNCHED"  # set if `start` is the launcher; it already holds the lock
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # handled by torch
MISTAKE, DEFECT = 2.0, 6.0  # seconds to wait while another process reports the error


def is_launched() -> bool:
    """Return whether a launcher has started this process, even if it is the only one."""
    return all(name in os.environ for name in VARIABLES)


def rank() -> int:
    """Return the rank of this process; 0 if it is the first or the only one."""
    return int(os.environ["RANK"]) if is_launched() else 0


def num_processes() -> int:
    """Return how many processes the launcher has started; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def check_processes(params: TrainerParams, found: int) -> None:
    """Check that there are as many processes as `trainer` asks for.

    Raises:
        ProcessCountError: If the number differs.
    """
    if found != params.num_processes:
        raise ProcessCountError(params.devices, params.num_nodes, found)


def is_to_launch(params: Params) -> bool:
    """Return whether this process has to start the training processes on this machine.

    Raises:
        ProcessCountError: If a launcher has started another number of processes than `trainer` asks
            for, or if `trainer` asks for several nodes, which this process cannot start.
    """
    if params.update.kind == "forget" or params.trainer.num_processes == num_processes():
        return False
    if is_launched() or params.trainer.num_nodes > 1:
        check_processes(params.trainer, num_processes())
    return True


def own(name: str) -> str:
    """Return a folder name that no other process of this training uses."""
    return f"{name}-{rank()}" if rank() else name


@contextmanager
def held(project: Project, stage: str) -> Iterator[None]:
    """Lock the project, unless the first process or the launching process holds the lock."""
    if rank() or OURS in os.environ:
        yield
        return
    with project.lock(stage):
        yield


def begin(*, trains: bool) -> bool:
    """Set up the role of this process, before anything else; return whether it has work to do.

    If a launcher has started several processes, all of them train, but only the first one prints.
    Any other command runs only in the first process, as if that were the only one.

    Args:
        trains: Whether the command is `train`, which several processes run together.
    """
    if OURS in os.environ:
        end_with_parent()
    if not is_launched() or num_processes() == 1:
        return True
    if not trains:
        alone = rank() == 0
        for name in VARIABLES:
            del os.environ[name]
        return alone
    if rank():
        # Exit at once, so that waiting processes notice that it has exited and can end cleanly.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- stays open until the process ends
    return True


def let_others_speak(seconds: float) -> None:
    """Wait before this process reports its error, so that a more useful report can come first.

    If all processes make the same mistake, only the first process reports it, without waiting. If
    one process fails, the others only notice that it has exited, which is less useful to report.
    The launcher ends the waiting processes.
    """
    if num_processes() > 1 and (rank() or seconds == DEFECT):
        time.sleep(seconds)


def start(arguments: Sequence[str], count: int, scratch: Path) -> int:
    """Run `python -m ...` in several processes; return 0, or the first exit code that is not 0.

    All processes end when one of them fails, and when this process is terminated or killed.

    Args:
        arguments: Command-line arguments of Python.
        count: Number of processes.
        scratch: An empty folder for the launcher's logs.

    Raises:
        LostProcessError: If a process was killed by a signal.
    """
    import logging
    from uuid import uuid4

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # silences torch's launcher; we report errors ourselves
    os.environ[OURS] = str(os.getpid())
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # a training resumes from its checkpoint when the user runs it again
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch)),
    )
    try:
        elastic_launch(config, sys.executable)("-P", *arguments)
    except ChildFailedError as error:
        failed, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise LostProcessError(failed, signal.Signals(-failure.exitcode).name) from error
        return failure.exitcode
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        return 128 + int(error.sigval)
    finally:
        del os.environ[OURS]
        if threading.current_thread() is threading.main_thread():  # only it has handlers to restore
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
        logging.disable(logging.NOTSET)
    return 0
