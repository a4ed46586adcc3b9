"""Resume an interrupted training from the checkpoint of its last epoch.

    .renate/resume/<key>/last.ckpt
    .renate/resume/<key>/files.json     hashes of the user's files, to report which ones changed

The key is a digest of all inputs and of the versions of torch, Lightning, NumPy and this library,
so a checkpoint of a different training is never found. A checkpoint holds what Lightning saves
(model, learner, optimizer, scheduler, progress), the curves so far, the states of the global random
generators of every process, and the learner's position in its data. It also records the hashes of
the user's files that the training used; if one of them has changed, the checkpoint is not used. A
resumed training gives the same bytes as an uninterrupted one. Checkpoints are in torch's format and
are loaded with `weights_only=True`, which runs no code.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from renate_stages import files
from renate_stages._version import __version__
from renate_stages.data.ranks import ranks, value_of_rank_0, values_of_all_ranks
from renate_stages.errors import MalformedFileError, shortage
from renate_stages.learners.base import Learner
from renate_stages.project import Project
from renate_stages.state.inputs import Inputs
from renate_stages.training.callbacks import is_last_epoch
from renate_stages.user.file_watch import CODE
from renate_stages.user.used_files import UserFiles

SECONDS = 30.0  # minimum time between two checkpoints
SECONDS_VARIABLE = "RENATE_STAGES_CHECKPOINT_SECONDS"
NAME = "last.ckpt"
MADE_WITH = "files.json"
STATE = "renate_stages"
ANEW = "training starts anew: {} changed since the checkpoint"


@dataclass(frozen=True)
class Resume:
    """The folder for the checkpoints of one training.

    Args:
        folder: Folder of this training alone.
        say: Prints one line for the user.
        whole: Whether to write a checkpoint only when the training ends or a callback stops it. A
            learner that cannot resume between two epochs is always treated this way.
        base: Digest of the inputs without the user's files; it stays the same if the code changes.
        known: SHA-256 of the user's files that are known before training, by path.
        used: The user's files that this process uses; None: do not compare files.
    """

    folder: Path
    say: Callable[[str], None] = print
    whole: bool = False
    base: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    used: UserFiles | None = None

    @classmethod
    def of(
        cls,
        folder: Path,
        inputs: Inputs | str,
        say: Callable[[str], None] = print,
        *,
        whole: bool = False,
        used: UserFiles | None = None,
    ) -> Resume:
        """Return the checkpoint folder for a training with these inputs, inside `folder`."""
        versions = [__version__, torch.__version__, pytorch_lightning.__version__, np.__version__]
        if isinstance(inputs, str):
            return cls(folder / files.digest([inputs, *versions]), say, whole, used=used)
        own, base = (files.digest([each, *versions]) for each in (inputs.key, inputs.base))
        known = {name: each for name, each in inputs.files.items() if name != CODE}
        return cls(folder / own, say, whole, base, known, used)

    @classmethod
    def of_update(
        cls, project: Project, inputs: Inputs, used: UserFiles, say: Callable[[str], None]
    ) -> Resume:
        """Return the checkpoint folder of an update, with the best trial's checkpoint if it fits.

        Args:
            project: The project that is updated.
            inputs: Everything that the result depends on.
            used: The user's files as this process uses them.
            say: Prints one line for the user.
        """
        resume = cls.of(project.checkpoints, inputs, say, used=used)
        if resume.take_over(project.tuning / "checkpoints"):
            say("the best trial was trained with these values: its training is taken over")
        return resume

    @property
    def file(self) -> Path:
        return self.folder / NAME

    def take_over(self, folder: Path) -> bool:
        """Take a checkpoint of the same training from another folder, unless there is one already.

        Args:
            folder: Folder with the checkpoints of other runs; it is not changed.

        Returns:
            Whether a checkpoint was taken over.
        """
        other = folder / self.folder.name / NAME
        if self.file.is_file() or not other.is_file():
            return False
        files.link_or_copy(other, self.file)
        return True

    def record(self) -> dict[str, str]:
        """Return the SHA-256 of the user's files that the training has used so far, by path."""
        return {} if self.used is None else self.used.record()

    def note(self) -> None:
        """Write, next to the checkpoint, the hashes of the files that it was made with."""
        if self.used is not None:
            made = {"base": self.base, "files": {**self.known, **self.record()}}
            files.write_json(self.folder / MADE_WITH, made)

    def checkpoint(self) -> dict[str, Any] | None:
        """Return the checkpoint, or None if there is no usable one; remove a damaged one.

        If several processes share the training, perhaps on machines with separate file systems, the
        checkpoint is used only if all of them have one of the same epoch.
        """
        found = self._read()
        epochs = values_of_all_ranks(-1 if found is None else found["epoch"])
        return found if len(set(epochs)) == 1 else None

    def _read(self) -> dict[str, Any] | None:
        if not self.file.is_file():
            self._say_why_anew()
            return None
        try:
            found = torch.load(self.file, map_location="cpu", weights_only=True)
            if not {"state_dict", "loops", STATE} <= found.keys():
                raise KeyError(STATE)
        except Exception as error:  # noqa: BLE001 -- torch's reader fails in many ways
            shortage.reraise(error)
            kind = type(error).__name__
            print(f"warning: {self.file} cannot be read ({kind}): trained anew", file=sys.stderr)
            self.file.unlink()
            return None
        return found if self._is_of_these_files(found[STATE].get("files")) else None

    def _is_of_these_files(self, recorded: dict[str, str] | None) -> bool:
        if self.used is None:
            return True
        if recorded is None:
            self.say("training starts anew: the checkpoint does not say which files made it")
            return False
        if differing := self.used.differing(recorded):
            self.say(ANEW.format(", ".join(differing)))
            return False
        self.used.take_record(recorded)
        return True

    def _say_why_anew(self) -> None:
        """Tell the user which files changed if a training with other files was interrupted."""
        for path in sorted(self.folder.parent.glob(f"*/{MADE_WITH}")):
            with suppress(MalformedFileError, KeyError, TypeError, AttributeError):
                made = files.read_json(path)
                if self.used is not None and made["base"] == self.base:
                    names = ", ".join(self.used.differing(made["files"]))
                    self.say(ANEW.format(names or "a file"))
                    return


class CheckpointWriter(Callback):
    """Writes a checkpoint at the end of an epoch, at most once every `SECONDS`.

    If `resume.whole` is set, it writes only the checkpoint of the last epoch, after which nothing
    is left to train.

    Args:
        resume: The folder to write to.
        learner: The learner whose position in the data is saved.
        curves: Rows of the epochs so far; another callback appends a row before this one is called.
        found: The checkpoint from which the training resumes, if any.
    """

    def __init__(
        self,
        resume: Resume,
        learner: Learner,
        curves: list[dict[str, float]],
        found: dict[str, Any] | None,
    ) -> None:
        self.resume = resume
        self.learner = learner
        self.curves = curves
        self.found = found
        self.pause = float(os.environ.get(SECONDS_VARIABLE, SECONDS))
        self.last = time.monotonic()
        if found is not None:
            curves[:] = found[STATE]["curves"]
            learner.restore_position(found[STATE]["position"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._go_on("training goes on")

    def training_ended(self) -> None:
        """Report that the training was already complete, if no epoch has run since the restart."""
        self._go_on("training was complete")

    def _go_on(self, what: str) -> None:
        """Restore the global random generators, once after a restart."""
        if self.found is not None:
            self.resume.say(f"{what} after epoch {len(self.curves)}")
            restore_generators(self.found[STATE]["generators"][ranks().rank])
            self.found = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        whole = self.resume.whole or not self.learner.resumes
        waited = time.monotonic() - self.last >= self.pause
        if not (is_last_epoch(trainer) if whole else value_of_rank_0(waited)):
            return
        self.resume.folder.mkdir(parents=True, exist_ok=True)
        beside = self.resume.file.with_name(f".{NAME}.{os.getpid()}.new")
        with shortage.explained(self.resume.folder):
            trainer.save_checkpoint(beside)  # a collective call: only the first process writes
        if trainer.is_global_zero:
            beside.replace(self.resume.file)
            self.resume.note()
        self.last = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.learner.reading.stop()
        checkpoint[STATE] = {
            "curves": list(self.curves),
            "files": self.resume.record(),
            "generators": values_of_all_ranks(generators()),
            "position": self.learner.position(),
        }


def generators() -> dict[str, Any]:
    """Return the states of all global random generators, as tensors and plain values."""
    state: Any = np.random.get_state()
    algorithm, keys, place, has_gauss, gauss = state
    version, internal, gauss_next = random.getstate()
    found: dict[str, Any] = {
        "numpy": [algorithm, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def restore_generators(states: dict[str, Any]) -> None:
    """Set all global random generators to the states that `generators` returned."""
    algorithm, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), place, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
