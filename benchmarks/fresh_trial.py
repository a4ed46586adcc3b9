"""One trial for Syne Tune's LocalBackend: what a forked trial does, in a fresh interpreter."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from syne_tune import Reporter


def main() -> None:
    """Train with the values of the command line, and report each epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--momentum", type=float)
    parser.add_argument("--st_checkpoint_dir")
    values = vars(parser.parse_args())
    del values["st_checkpoint_dir"]

    from renate_stages.project import Project
    from renate_stages.training.callbacks import Follower, validation_metrics
    from renate_stages.training.update_data import UpdateData
    from renate_stages.training.updater import Updater
    from renate_stages.tuning.trial import TrialInputs
    from renate_stages.user.config import UserConfig

    class Reporting(Follower):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            report(epoch=trainer.current_epoch + 1, **validation_metrics(self.curves[-1]))

    report = Reporter()
    project = Project(Path(os.environ["RENATE_PROJECT"]))
    with TemporaryDirectory() as scratch:
        inputs = TrialInputs.open(project, Path(scratch))
        user = UserConfig.load(project.user_config, stage="tune")
        params = inputs.params.fixed(inputs.params.search_space.complete(values))
        data = UpdateData.of(inputs.kept, inputs.parent)
        Updater(user, params, params.hyperparameters).train(data, follower=Reporting())


if __name__ == "__main__":
    main()
