"""A command of ours that may write no large file, in a process forked from one that has imported all."""

from __future__ import annotations

import resource
import signal
import sys

import warm_commands


def import_all() -> None:
    """Import what the command needs."""
    warm_commands.import_for("commands")


def command() -> None:
    """Be `renate-stages`; the first argument is the largest size of a file in bytes, or 0."""
    from renate_stages.cli import main

    limit, *arguments = sys.argv[1:]
    if limit != "0":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.argv = ["renate-stages", *arguments]
    main.main()
