"""Run a stage in a forked process that cannot write files above a size limit."""

from __future__ import annotations

import resource
import signal
import sys

import warm_commands


def import_all() -> None:
    """Import what the command needs."""
    warm_commands.import_for("commands")


def command() -> None:
    """Run `renate-stages`; the first argument is the file size limit in bytes, 0 for none."""
    from renate_stages.cli import main

    limit, *arguments = sys.argv[1:]
    if limit != "0":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.argv = ["renate-stages", *arguments]
    main.main()
