"""Start the processes that share a training, and find out which of them this one is.

    renate-stages train                     trainer.devices: 2 starts two of itself, and waits
    torchrun ... -m renate_stages train     on each of several nodes: its processes are the training's

Each process finds its number in the environment, as torchrun and SageMaker set it. The first one alone
holds the project, logs, prints and writes. Torch is imported where processes are started, and only
there.
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

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # that every launcher sets
OURS = "RENATE_STAGES_LAUNCHED"  # set where it was us, who hold the project
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by torch's launcher
MISTAKE, DEFECT = 2.0, 6.0  # seconds in which another process may say what has gone wrong


def is_launched() -> bool:
    """Return whether a launcher has started this process, as one of several or of one."""
    return all(name in os.environ for name in VARIABLES)


def rank() -> int:
    """Return the number of this process; 0 where it is the first, or alone."""
    return int(os.environ["RANK"]) if is_launched() else 0


def num_processes() -> int:
    """Return how many processes the launcher has started; 1 without one."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def check_processes(params: TrainerParams, found: int) -> None:
    """Refuse another number of processes than `trainer` asks for.

    Raises:
        ProcessCountError: If there is another number.
    """
    if found != params.num_processes:
        raise ProcessCountError(params.devices, params.num_nodes, found)


def is_to_launch(params: Params) -> bool:
    """Return whether this process is to start those that train, all on this machine.

    Raises:
        ProcessCountError: If there are other processes than `trainer` asks for, or it asks for
            several nodes, which none of them can start.
    """
    if params.update.kind == "forget" or params.trainer.num_processes == num_processes():
        return False
    if is_launched() or params.trainer.num_nodes > 1:
        check_processes(params.trainer, num_processes())
    return True


def own(name: str) -> str:
    """Return a name for a folder of this process alone."""
    return f"{name}-{rank()}" if rank() else name


@contextmanager
def held(project: Project, stage: str) -> Iterator[None]:
    """Hold the project, unless the first process or the one that started all does so."""
    if rank() or OURS in os.environ:
        yield
        return
    with project.lock(stage):
        yield


def begin(*, trains: bool) -> bool:
    """Settle what this process is, before anything else; return whether there is work for it.

    Of several processes the later ones train, print nothing, and leave all other commands to the
    first, which then is as if it were alone.

    Args:
        trains: Whether this is what several processes do together.
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
        # At once: what waits for it then meets that it has gone, and can end in good order.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- as long as the process
    return True


def let_others_speak(seconds: float) -> None:
    """Wait before this process says what has gone wrong: another may know better, or the same.

    A mistake that all meet is told once, by the first process, which does not wait. Where one process
    has failed, the others only meet that it has gone. The launcher ends those that wait.
    """
    if num_processes() > 1 and (rank() or seconds == DEFECT):
        time.sleep(seconds)


def start(arguments: Sequence[str], count: int, scratch: Path) -> int:
    """Run `python -m ...` in so many processes; return the exit code of all, the first that fails.

    They end together: when one fails, when this process is asked to end, and when it is killed.

    Args:
        arguments: Those of Python.
        count: How many processes.
        scratch: An empty folder for what the launcher writes.

    Raises:
        LostProcessError: If one was killed.
    """
    import logging
    from uuid import uuid4

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # of torch's launcher: what is to be said, is said by us
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
        max_restarts=0,  # a training goes on from its checkpoint when it is run again
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
        if threading.current_thread() is threading.main_thread():  # elsewhere nothing was changed
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
        logging.disable(logging.NOTSET)
    return 0
