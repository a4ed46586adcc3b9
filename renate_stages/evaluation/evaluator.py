"""Measure a model's loss, and its accuracy or the user's metrics, on holdouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from renate_stages.data.ranks import gathered, ranks
from renate_stages.errors import (
    EmptyHoldoutError,
    MetricError,
    NotFiniteRowError,
    UserResultError,
    user_code,
)
from renate_stages.evaluation import counted_rows
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts, Predictions
from renate_stages.models.modes import evaluating
from renate_stages.models.module import RenateModule
from renate_stages.tasks.detect import detect
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.tasks.task import IGNORED, Answer, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


def examine(
    model: RenateModule,
    holdouts: Mapping[int, Dataset],
    *,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    metrics_fn: Callable[[], Mapping[str, Metric]] | None = None,
    task: Task | None = None,
    task_ids: Mapping[int, str] | None = None,
    places: Mapping[int, str] | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    keep_rows: bool = False,
) -> ExaminedHoldouts:
    """Return a model's metrics and predictions on each holdout, in evaluation mode.

    No gradients are computed, and modes, device and statistics of the model are preserved. In
    distributed training, all processes call this with equal models. Each runs its share of every
    batch, and all get all results.

    Args:
        model: The model, called as `model(inputs, task_id=...)`.
        holdouts: A map-style dataset of (inputs, targets) for each number. `__getitems__(indices)`
            may return a collated batch (inputs, targets) as a tuple; if it returns a list of
            examples or is missing, PyTorch's default collation is used.
        loss_fn: Loss of (outputs, targets): one value per row, (B, ...), or their mean, a scalar.
            All rows have equal weight, also those of a smaller last batch; ignored rows have none.
            None: the task's default loss.
        metrics_fn: Returns new metrics by name; they are updated with (outputs, targets), and each
            must compute a scalar; rows with an ignored label are left out. None: the task's default
            metrics.
        task: What targets and outputs mean; None decides by the first batch (`tasks.detect`).
        task_ids: Task id of each holdout; None for holdouts that are not listed.
        places: Name of each dataset for messages; None: `holdout NUMBER`.
        batch_size: Examples per forward pass.
        device: Device to run on.
        keep_rows: Whether to keep what the user's metrics were computed from, for `intervals`; not
            kept if it takes more than `counted_rows.MOST_BYTES`.

    Returns:
        For each holdout in ascending order, `loss` and every metric by name, and the prediction for
        each row if rows have one class label. `together` has each metric computed on the rows of all
        holdouts, which is not the mean over holdouts for metrics such as AUROC or R².

    Raises:
        EmptyHoldoutError: If a holdout has no examples, or only ignored ones.
        AmbiguousTaskError: If the first batch does not show what targets and outputs mean.
        TargetsError, OutputsError: If a batch is not what the task expects.
        LossReductionError: If the loss of a row depends on the other rows of its batch.
        LossShapeError: If the loss is neither a scalar nor one value per row.
        NotFiniteRowError: If the loss of some rows, but not of all, is NaN.
        MetricError: If a metric is named `loss` or does not compute a scalar.
    """
    task_ids = task_ids or {}
    measured = _Measured(task, loss_fn)
    together = _Scores(metrics_fn, device) if len(holdouts) > 1 else None
    room = [counted_rows.MOST_BYTES]
    results: dict[int, Examined] = {}
    with evaluation_mode(model, torch.device(device)):
        for number in sorted(holdouts):
            results[number] = _examine_one(
                model,
                number,
                _batches(number, holdouts[number], batch_size, device),
                measured,
                _Scores(metrics_fn, device),
                together,
                task_ids.get(number),
                (places or {}).get(number, f"holdout {number}"),
                counted_rows.RowCollector(room) if keep_rows else None,
            )
    if together is not None:
        return ExaminedHoldouts(results, together.values())
    return ExaminedHoldouts(results, next((each.metrics for each in results.values()), {}))


def evaluate(
    model: RenateModule, holdouts: Mapping[int, Dataset], **settings: Any
) -> dict[int, dict[str, float]]:
    """Return only the metrics; arguments and errors are those of `examine`."""
    examined = examine(model, holdouts, **settings)
    return {number: dict(each.metrics) for number, each in examined.items()}


class _Measured:
    """The task and loss of one call of `examine`, known from its first batch on."""

    def __init__(self, task: Task | None, loss_fn: Callable[[Any, Any], Tensor] | None) -> None:
        self.task, self.loss_fn = task, loss_fn
        self.loss: RowLoss | None = None
        self.is_checked = False  # whether the loss was checked, on the first batch

    def of(self, outputs: Any, targets: Any) -> tuple[Task, RowLoss]:
        """Return task and loss."""
        if self.task is None:
            self.task = detect(outputs, targets, own_loss=self.loss_fn is not None)
        if self.loss is None:
            self.loss = RowLoss(self.task, self.loss_fn)
        return self.task, self.loss


def _examine_one(
    model: RenateModule,
    number: int,
    batches: Iterator[tuple[int, Any, Any]],
    measured: _Measured,
    own: _Scores,
    together: _Scores | None,
    task_id: str | None,
    place: str,
    collector: counted_rows.RowCollector | None,
) -> Examined:
    """Measure one holdout; add its rows to its own scores, and to those of all holdouts."""
    rows = 0
    answers: list[Answer | None] = []
    of_rows: dict[str, list[np.ndarray | None]] = {}  # numerators and divisors, if it is a mean
    for size, inputs, targets in batches:
        outputs, targets = gathered((called(model, inputs, task_id), targets), size)
        task, loss = measured.of(outputs, targets)
        task.check(outputs, targets, rows, place)
        if not measured.is_checked:
            loss.check(outputs, targets)
            measured.is_checked = True
        rows += size
        total, divisor, losses = loss.sums(outputs, targets, size)
        sums = {"loss": (total, divisor)}
        of_rows.setdefault("loss", []).append(None if losses is None else losses.numpy())
        counted = None
        if own.metrics is None:
            for name, parts in task.metrics(outputs, targets).items():
                pairs = torch.stack([part.cpu().double() for part in parts], dim=1).numpy()
                of_rows.setdefault(name, []).append(pairs)
                numerator, divisor = pairs.sum(axis=0).tolist()
                sums[name] = numerator, divisor
        elif own.metrics:
            counted = task.for_metrics(outputs, targets)
            if collector is not None:
                collector.add(task, outputs, targets, counted, size)
        for each in (own, together) if together is not None else (own,):
            each.add(sums, counted)
        answers.append(task.answer(outputs, targets))
    if own.is_empty:
        raise EmptyHoldoutError(number, ignored=rows)
    scores = _complete(of_rows)
    if "loss" in scores:
        bad = np.flatnonzero(np.isnan(scores["loss"][:, 0])).tolist()
        if 0 < len(bad) < rows:
            raise NotFiniteRowError(place, bad[0], len(bad), rows)
    return Examined(
        rows,
        own.values(),
        _predictions([each for each in answers if each is not None]),
        scores,
        collector.collected(own.again()) if collector is not None else None,
    )


def _complete(of_rows: Mapping[str, list[np.ndarray | None]]) -> dict[str, np.ndarray]:
    """Return the values of rows of all batches, for the metrics for which all batches have them."""
    known = {name: [p for p in parts if p is not None] for name, parts in of_rows.items()}
    return {
        name: np.concatenate(parts)
        for name, parts in known.items()
        if len(parts) == len(of_rows[name])
    }


class _Scores:
    """Loss and metrics of the rows added so far.

    Args:
        metrics_fn: Returns the user's metrics; None: the task's default metrics.
        device: Device of the metrics.
    """

    def __init__(
        self, metrics_fn: Callable[[], Mapping[str, Metric]] | None, device: torch.device | str
    ) -> None:
        self.metrics = _new_metrics(metrics_fn, device)
        self.sums: dict[str, list[float]] = {"loss": [0.0, 0.0]}  # numerator and divisor

    @property
    def is_empty(self) -> bool:
        """Whether no row counted."""
        return not self.sums["loss"][1]

    def add(self, sums: Mapping[str, tuple[float, float]], counted: tuple[Any, Any] | None) -> None:
        """Add a batch.

        Args:
            sums: Numerator and divisor of the loss, and of each default metric.
            counted: Outputs and targets of the rows that count for the user's metrics; None: no row.
        """
        for name, (numerator, divisor) in sums.items():
            known = self.sums.setdefault(name, [0.0, 0.0])
            known[0] += numerator
            known[1] += divisor
        if counted is not None:
            for name, metric in (self.metrics or {}).items():
                with user_code.running(f"metrics_fn, metric '{name}'"):
                    metric.update(*counted)

    def values(self) -> dict[str, float]:
        """Return `loss` and every metric."""
        values = {name: numerator / divisor for name, (numerator, divisor) in self.sums.items()}
        for name, metric in (self.metrics or {}).items():
            with user_code.running(f"metrics_fn, metric '{name}'"):
                values[name] = _scalar(name, metric.compute())
        return values

    def again(self) -> dict[str, Metric]:
        """Return the user's metrics without any rows, on the CPU."""
        for metric in (self.metrics or {}).values():
            metric.reset()
        return {name: metric.cpu() for name, metric in (self.metrics or {}).items()}


def _predictions(answers: list[Answer]) -> Predictions | None:
    if not answers:
        return None
    labels, predicted, confidence = (
        torch.cat(part).cpu().numpy() for part in zip(*answers, strict=True)
    )
    counted = labels != IGNORED
    if counted.all():
        return Predictions(labels, predicted, confidence)
    return Predictions(labels[counted], predicted[counted], confidence[counted], counted)


def _batches(
    number: int, dataset: Any, batch_size: int, device: torch.device | str
) -> Iterator[tuple[int, Any, Any]]:
    """Yield (rows, inputs, targets) of each batch in order, with this process's share of rows."""
    if len(dataset) == 0:
        raise EmptyHoldoutError(number)
    for start in range(0, len(dataset), batch_size):
        rows = range(start, min(start + batch_size, len(dataset)))
        first, last = ranks().bounds(len(rows))
        indices = list(rows[first:last] or rows[:1])
        if hasattr(dataset, "__getitems__"):
            batch = dataset.__getitems__(indices)
        else:
            batch = [dataset[index] for index in indices]
        inputs, targets = default_collate(batch) if isinstance(batch, list) else batch
        yield len(rows), move(inputs, device), move(targets, device)


def move(value: Any, device: torch.device | str) -> Any:
    """Move all tensors in nested tuples, lists and dicts to a device; keep other values."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [move(item, device) for item in value]
        return getattr(value, "_make", type(value))(items)  # _make builds a named tuple
    return value


def called(model: RenateModule, inputs: Any, task_id: str | None) -> Any:
    """Return a model's outputs; an error in its code names model_fn."""
    try:
        return model(inputs, task_id=task_id)
    except Exception as error:  # noqa: BLE001 -- raised again as the user's error
        what = f"the model of model_fn, given inputs of {user_code.outline(inputs)},"
        user_code.fail(what, error)


def _new_metrics(
    metrics_fn: Callable[[], Mapping[str, Metric]] | None, device: torch.device | str
) -> dict[str, Metric] | None:
    if metrics_fn is None:
        return None
    from torchmetrics import Metric

    metrics = metrics_fn()
    if not isinstance(metrics, Mapping):
        expected = "a dict of torchmetrics metrics by name"
        raise UserResultError("metrics_fn", user_code.outline(metrics), expected)
    metrics = dict(metrics)
    for name, metric in metrics.items():
        if not (isinstance(name, str) and name and isinstance(metric, Metric)):
            found = f"{name!r}: {user_code.outline(metric)}"
            raise UserResultError("metrics_fn", found, "a torchmetrics metric for each name")
    if "loss" in metrics:
        raise MetricError(
            "loss", "this name is reserved for the mean of loss_fn", "rename the metric"
        )
    for part in (part for metric in metrics.values() for part in metric.modules()):
        vars(part)["distributed_available_fn"] = _alone  # every process already has all rows
    return {name: metric.to(device) for name, metric in metrics.items()}


def _alone() -> bool:
    return False


def _scalar(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise MetricError(
        name,
        f"it computes a value of {found}, expected a scalar",
        'average the values (`average="macro"`), or return a metric with its own name for each value',
    )


@contextmanager
def evaluation_mode(model: RenateModule, device: torch.device) -> Iterator[None]:
    """Run a block with a model in evaluation mode on a device; restore modes and device."""
    home = next((tensor.device for tensor in model.parameters()), device)
    try:
        with evaluating(model.to(device)), torch.inference_mode():
            yield
    finally:
        model.to(home)
        model.reset_intermediate_representation_cache()
