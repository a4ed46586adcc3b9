"""The command line: one command for each stage and each action of a user.

Heavy imports are inside the commands, so that `renate-stages --help` responds at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from renate_stages._version import __version__
from renate_stages.cli import champion, memory, remote, simulate, stages, updates
from renate_stages.training import launch
from renate_stages.training.guarded import end_on_sigterm, guarded

COMMANDS = {
    "prepare": stages.prepare,
    "restore-state": stages.restore_state,
    "tune": stages.tune,
    "train": stages.train,
    "export": stages.export,
    "init": updates.init,
    "next": updates.next_update,
    "status": updates.status,
    "verify": updates.verify,
    "resolve": updates.resolve,
    "should-update": updates.should_update,
    "example-data": updates.example_data,
    "learners": updates.learners,
    "simulate": simulate.simulate,
    "gate": champion.gate,
    "promote": champion.promote,
    "demote": champion.demote,
    "champion": champion.champion,
    "publish": champion.publish,
    "memory": memory.memory,
    "forget": memory.forget,
    "copy-state": memory.copy_state,
}

app = typer.Typer(
    help="Update PyTorch models with new data, again and again, without forgetting.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(remote.app)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"renate-stages {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command line itself."""


def main() -> None:
    """Run the command line; a user's mistake ends with a message and exit code 2, no traceback."""
    end_on_sigterm()
    if launch.begin(trains=sys.argv[1:2] == ["train"]):
        guarded(app)
