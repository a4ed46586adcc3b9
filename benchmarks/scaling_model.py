"""What an update costs, by formula: bytes, files, requests, disk. `scaling.py` holds it against reality.

Bytes are of files; a megabyte is 10^6 bytes. `Part` is what most functions return: how many files of how
many bytes. Times are no formula: rates are measured, and depend on the machine and on your model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from renate_stages.memory.writer import SHARD_BYTES
from renate_stages.storage.checksums import PART
from renate_stages.storage.objects import PREFIX_LENGTH

TARGET, METADATA = 8, 16 + 4  # bytes of a row beside its inputs: a label; its id, its update
FIELDS = 4  # files of a shard
HEADER = 128  # bytes of an .npy file before its values
INDEX, INDEX_SHARD = 400, 70  # bytes of a store's index.json, and more for each shard
LISTED = 135  # bytes that a manifest takes for a file
PAGE = 1000  # objects that S3 lists at a time
FETCHED = 50 * 2**20  # bytes that s3fs asks for, or DVC by it sends, at a time
PREFIXES = 16**PREFIX_LENGTH
EMPTY_STATE_FILES = 5
OTHER_BYTES = 20_000  # of a small project: lists of folders, export, trials, code
REWRITTEN = 3.5  # bytes a weekly update writes into the memory, over those of the rows it adds
DESCRIPTIONS = 2000  # bytes of a state's descriptions, generators, histories
STORED = 1.6  # bytes of the memory's shards over those of its live rows: dead ones stay a while


@dataclass(frozen=True)
class Part:
    """Some files.

    Args:
        bytes: Of all of them.
        files: How many.
        inputs: Those of them that are a shard's inputs, the only large ones: bytes, how many.
        same: How many of them have the content of another: whole shards' numbers of the update.
    """

    bytes: float = 0
    files: float = 0
    inputs: tuple[tuple[float, int], ...] = ()
    same: float = 0

    def __add__(self, other: Part) -> Part:
        files, inputs = self.files + other.files, self.inputs + other.inputs
        return Part(self.bytes + other.bytes, files, inputs, self.same + other.same)

    def requests(self, piece: int, least: int) -> tuple[float, float, float]:
        """Return files that travel whole, those that travel in pieces, and the pieces.

        Args:
            piece: Bytes of a piece.
            least: Bytes of a file from which on it travels in pieces.
        """
        large = [(size, count) for size, count in self.inputs if size >= least]
        in_pieces = sum(count for _, count in large)
        pieces = sum(ceil(size / piece) * count for size, count in large)
        return self.files - self.same - in_pieces, in_pieces, pieces


@dataclass(frozen=True)
class Update:
    """An update, as far as it decides what it costs.

    Args:
        rows: New examples, all splits together.
        row_bytes: Of one example's inputs, as they are stored.
        before: Updates before it.
        seen: Training rows of these.
        kept_before: Rows of the holdouts that these left, of those that are kept.
        validation_before: Likewise of the validation splits.
        epochs: Passes over the new training rows.
        batch: New rows of a step; as many are replayed.
        memory_rows: Most rows kept for replay.
        holdout_rows: Most rows kept of the test split; None: all.
        validation_rows: Likewise of the validation split.
        test_fraction: Share of the new rows that is the test split.
        validation_fraction: Share of the rest that is the validation split.
        model_bytes: Of the model's weights.
        trials: Of a search: each trains as the update does.
        incoming_files: Files of the new data as it arrives.
    """

    rows: int
    row_bytes: int
    before: int = 0
    seen: int = 0
    kept_before: int = 0
    validation_before: int = 0
    epochs: int = 1
    batch: int = 32
    memory_rows: int = 0
    holdout_rows: int | None = None
    validation_rows: int | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    model_bytes: int = 0
    trials: int = 0
    incoming_files: int = 1

    @property
    def test(self) -> int:
        """Rows of the test split."""
        return round(self.test_fraction * self.rows)

    @property
    def val(self) -> int:
        """Rows of the validation split."""
        return round(self.validation_fraction * (self.rows - self.test))

    @property
    def train(self) -> int:
        """Rows that are trained on."""
        return self.rows - self.test - self.val

    @property
    def added(self) -> int:
        """New rows that enter the memory, as expected of a uniform sample of all rows ever seen."""
        seen = self.seen + self.train
        return round(min(self.train, self.memory_rows * self.train / max(1, seen)))

    @property
    def memory_before(self) -> int:
        """Rows of the parent's memory."""
        return min(self.memory_rows, self.seen)

    @property
    def memory(self) -> int:
        """Rows of the memory after the update."""
        return min(self.memory_rows, self.seen + self.train)

    @property
    def kept(self) -> tuple[int, int]:
        """Rows of the test and validation split that stay."""
        test, val = self.holdout_rows, self.validation_rows
        return (
            self.test if test is None else min(test, self.test),
            self.val if val is None else min(val, self.val),
        )


def store(rows: float, row_bytes: int) -> Part:
    """Return the files of a store of examples, written at once."""
    if rows <= 0:
        return Part(INDEX / 20, 1)
    fitting = max(1, SHARD_BYTES // (row_bytes + TARGET))
    full, rest = int(rows // fitting), rows % fitting
    shards = full + bool(rest)
    size = rows * (row_bytes + TARGET + METADATA) + shards * (FIELDS * HEADER + INDEX_SHARD) + INDEX
    inputs = ((fitting * row_bytes + HEADER, full), (rest * row_bytes + HEADER, int(bool(rest))))
    return Part(size, FIELDS * shards + 1, inputs, max(0, full - 1))


def manifest(part: Part) -> Part:
    """Return a file that lists others with size and hash."""
    return Part(LISTED * part.files, 1)


def total(parts: Iterable[Part]) -> Part:
    """Return the sum of parts."""
    return sum(parts, Part())


def prepared(update: Update) -> Part:
    """Return what `prepare` writes."""
    splits = [store(rows, update.row_bytes) for rows in (update.train, update.val, update.test)]
    return total([*splits, manifest(total(splits))])


def memory_written(update: Update) -> Part:
    """Return what an update writes into the memory: new rows, and of later updates rewritten shards."""
    rows = update.added if update.before < 2 else min(update.memory, REWRITTEN * update.added)
    return store(rows, update.row_bytes) + dead(update)


def memory_stored(update: Update) -> Part:
    """Return the memory after the update, dead rows included."""
    if update.before > 1:
        return store(STORED * update.memory, update.row_bytes) + dead(update)
    parts = [store(update.memory_before, update.row_bytes)] if update.before else []
    parts += [store(update.added, update.row_bytes), dead(update)]
    return total(parts) + Part(-INDEX, -1) if update.before else total(parts)


def dead(update: Update) -> Part:
    """Return the file that says which rows of the memory are live, where there are others."""
    there = update.before and update.memory == update.memory_rows
    return Part(STORED * update.memory + HEADER, 1) if there else Part()


def model(update: Update) -> Part:
    """Return the files of model and learner, and the small ones beside them."""
    return Part(update.model_bytes + DESCRIPTIONS, 8)


def new_model(update: Update) -> Part:
    """Return those of them that no earlier update has, each content once."""
    return Part(update.model_bytes + DESCRIPTIONS, 4 if update.before else 6)


def own_splits(update: Update) -> Part:
    """Return the test and validation split that the state keeps of this update."""
    return total(store(rows, update.row_bytes) for rows in update.kept)


def state(update: Update) -> Part:
    """Return the state that an update leaves, parent's shards included."""
    earlier = [
        store(rows, update.row_bytes) if rows else Part()
        for rows in (update.kept_before, update.validation_before)
    ]
    parts = [memory_stored(update), own_splits(update), *earlier, model(update)]
    return total([*parts, manifest(total(parts))])


def new_in_state(update: Update) -> Part:
    """Return what of the state is neither the parent's nor `prepare`'s: splits kept whole are that."""
    whole = update.kept == (update.test, update.val)
    splits = Part() if whole else own_splits(update)
    return total([memory_written(update), new_model(update), splits, manifest(state(update))])


def parent_read(update: Update) -> Part:
    """Return what `train` reads of the parent: memory, holdouts, validation, model."""
    if not update.before:
        return Part(1500, EMPTY_STATE_FILES)
    stored = update.memory_before * (1 if update.before == 1 else STORED)
    parts = [
        store(rows, update.row_bytes)
        for rows in (stored, update.kept_before, update.validation_before)
    ]
    return total([*parts, model(update), manifest(total(parts))])


def job_reads(update: Update) -> Part:
    """Return the inputs of a job that trains: what lies on its disk."""
    return prepared(update) + parent_read(update)


def rows_trained(update: Update) -> int:
    """Return rows that go through the model in training, replayed ones included."""
    steps = ceil(update.train / update.batch)
    replayed = steps * update.batch if update.memory_before else 0
    return update.epochs * (update.train + replayed) * (1 + update.trials)


def rows_evaluated(update: Update) -> int:
    """Return rows that go through a model to be measured.

    The untrained model on the new holdout, the parent's and the new one on all; in each epoch the
    validation data of all updates that are kept.
    """
    test, val = update.kept
    holdouts = test + 2 * (test + update.kept_before)
    validation = update.epochs * (val + update.validation_before)
    return holdouts + validation * (1 + update.trials)


# -- what travels ----------------------------------------------------------------------------------


def prefixes(files: float) -> float:
    """Return how many of our remote's folders so many objects lie in, as expected of their hashes."""
    return PREFIXES * (1 - (1 - 1 / PREFIXES) ** files)


def pages(lying: float) -> int:
    """Return LIST requests of one of our remote's folders, where so many objects lie in all."""
    return max(1, ceil(lying / PREFIXES / PAGE))


def our_upload(new: Part, looked_for: float, lying: float) -> dict[str, float]:
    """Return requests and bytes of sending to our remote: first each folder is listed, to its end.

    A folder without an object costs a LIST and a HEAD more.

    Args:
        new: What is not there.
        looked_for: Files that shall be there, those that are there included.
        lying: Objects that lie there.
    """
    whole, in_pieces, pieces = new.requests(PART, 2 * PART)
    empty = prefixes(new.files - new.same) * (1 - prefixes(lying) / PREFIXES)
    return {
        "PUT": whole + pieces,
        "POST": 2 * in_pieces,
        "HEAD": in_pieces + empty,
        "LIST": (prefixes(looked_for) - empty) * pages(lying) + 2 * empty,
        "bytes up": new.bytes,
    }


def our_download(new: Part, lying: float) -> dict[str, float]:
    """Return requests and bytes of bringing from our remote what is not here.

    Args:
        new: What is not here.
        lying: Objects that lie there.
    """
    whole, in_pieces, pieces = new.requests(FETCHED, FETCHED + 1)
    lists = prefixes(new.files) * pages(lying)
    return {"GET": whole + in_pieces + pieces, "LIST": lists, "bytes down": new.bytes}


def sent_to_job(update: Update) -> Part:
    """Return what of a job's inputs no earlier job has brought or made."""
    return prepared(update) + (Part() if update.before else parent_read(update))


def own(update: Update) -> Part:
    """Return what an update adds to DVC's cache and remote: data as it came, prepared, state, the rest."""
    incoming_bytes = update.rows * (update.row_bytes + TARGET)
    each = (incoming_bytes / update.incoming_files, update.incoming_files)
    incoming = Part(incoming_bytes, update.incoming_files + 1, (each,))
    other = Part(OTHER_BYTES + update.model_bytes, 8 if update.before else 20)
    return total([incoming, prepared(update), new_in_state(update), other])


def dvc_push(update: Update) -> dict[str, float]:
    """Return PUT requests and bytes of `dvc push` after an update; a file of 100 MiB takes several."""
    part = own(update)
    whole, _, pieces = part.requests(FETCHED, 2 * FETCHED)
    return {"PUT": whole + pieces, "bytes up": part.bytes}


def disk(update: Update, cached: float) -> float:
    """Return bytes on the disk of the machine with the project.

    DVC links files that it checks out, and copies into its cache what a folder holds that a stage, or
    you, wrote: so the open update's files are there twice.

    Args:
        update: The open update.
        cached: Bytes that DVC's cache keeps of the updates before; the parent's are among them.
    """
    return cached + 2 * own(update).bytes
