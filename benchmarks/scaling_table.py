"""The tables of docs/scaling.md: an archive taken in at once, and a week of it, at three sizes."""

from __future__ import annotations

import scaling_model as model
from scaling_model import Update

ROW_BYTES = 3 * 224 * 224  # an image, uint8
SIZES = {"1 GB": 1e9, "1 TB": 1e12, "100 TB": 1e14}
WEEK = 0.01  # of the archive
EPOCHS = 3
MOST_MEMORY = 1e11
HOLDOUT_ROWS, VALIDATION_ROWS, KEPT_UPDATES = 2000, 500, 10
MODEL_BYTES = 100_000_000
UPDATES = 52
INCOMING_FILE = 64e6

# MB of new data that a processor gets through in a second: what 100 and 400 MB cost over 10 MB.
RATES = {"dvc add": 550, "prepare": 160, "dvc commit": 280}
NETWORK = 125e6  # bytes a second: 1 Gbit/s
ROWS_A_SECOND = 1000  # of your model, in training: put your own in its place

Row = tuple[str, list[str]]


def updates() -> list[Update]:
    """Return the archive of each size as one update, then a week of each, a year later."""
    return [archive(size) for size in SIZES.values()] + [week(size) for size in SIZES.values()]


def archive(size: float) -> Update:
    """Return the first update, which takes in all there is."""
    rows = int(size // ROW_BYTES)
    return Update(rows, ROW_BYTES, incoming_files=files_of(size), **settings(size))


def week(size: float) -> Update:
    """Return an update with a week's new data, a year after the archive."""
    rows = int(WEEK * size // ROW_BYTES)
    first = archive(size)
    one = Update(rows, ROW_BYTES, incoming_files=files_of(WEEK * size), **settings(size))
    test, val = one.kept
    return Update(
        rows,
        ROW_BYTES,
        before=UPDATES,
        seen=first.train + (UPDATES - 1) * one.train,
        kept_before=(KEPT_UPDATES - 1) * test,
        validation_before=(KEPT_UPDATES - 1) * val,
        incoming_files=files_of(WEEK * size),
        **settings(size),
    )


def settings(size: float) -> dict[str, int]:
    """Return what all updates of a size have in common."""
    return {
        "epochs": EPOCHS,
        "memory_rows": int(min(WEEK * size, MOST_MEMORY) // ROW_BYTES),
        "holdout_rows": HOLDOUT_ROWS,
        "validation_rows": VALIDATION_ROWS,
        "model_bytes": MODEL_BYTES,
    }


def files_of(size: float) -> int:
    """Return the files that new data comes in."""
    return max(1, round(size / INCOMING_FILE))


def rows_of(update: Update) -> dict[str, str]:
    """Return what the tables say of an update, by the name of the row."""
    first = not update.before
    lying = (
        0.0
        if first
        else UPDATES * (model.prepared(update).files - model.prepared(update).same + 20)
    )
    sent, back = model.sent_to_job(update), model.new_in_state(update)
    pushed, reads = model.dvc_push(update), model.job_reads(update)
    up = model.our_upload(sent, reads.files - reads.same, lying)
    down = model.our_download(back, lying)
    incoming = update.rows * (update.row_bytes + model.TARGET)
    disk = model.disk(update, model.parent_read(update).bytes)
    mapped = 2 * sum(count for _, count in reads.inputs)
    requests = up["PUT"] + up["POST"] + up["LIST"] + down["LIST"]
    return {
        "new examples": number(update.rows),
        "`prepare` writes": f"{size(model.prepared(update).bytes)}, "
        f"{number(model.prepared(update).files)} files",
        "memory, dead rows included": size(model.memory_stored(update).bytes),
        "state": f"{size(model.state(update).bytes)}, {number(model.state(update).files)} files",
        "disk of the project": size(disk),
        "`dvc push` sends": f"{size(pushed['bytes up'])}, {number(pushed['PUT'])} PUT",
        "a job's disk": size(reads.bytes),
        "sent to a job": size(up["bytes up"]),
        "brought from it": size(down["bytes down"]),
        "PUT, POST and LIST for it": number(requests),
        "GET and HEAD for it": number(up["HEAD"] + down["GET"] + reads.files - reads.same),
        "arrays that `train` maps": number(mapped),
        "rows trained": number(model.rows_trained(update)),
        "rows measured": number(model.rows_evaluated(update)),
        "`dvc add`, one processor": hours(incoming / RATES["dvc add"] / 1e6),
        "`prepare`, one processor": hours(incoming / RATES["prepare"] / 1e6),
        "`dvc commit`, one processor": hours(incoming / RATES["dvc commit"] / 1e6),
        "`dvc push` at 1 Gbit/s": hours(pushed["bytes up"] / NETWORK),
        "training at 1,000 rows a second": hours(model.rows_trained(update) / ROWS_A_SECOND),
    }


def size(value: float) -> str:
    """Return bytes with a unit and three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{digits(value)} {unit}"
        value /= 1000
    raise AssertionError


def number(value: float) -> str:
    """Return a count with three digits."""
    for unit in ("", " k", " M"):
        if value < 999.5:
            return f"{digits(value) if unit else round(value)}{unit}"
        value /= 1000
    return f"{digits(value)} G"


def hours(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < {"s": 99.5, "min": 99.5 * 60, "h": 48 * 3600}[unit]:
            return f"{digits(seconds / length)} {unit}"
    return f"{digits(seconds / 86400)} days"


def digits(value: float) -> str:
    """Return a number with two digits, or all before its point."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def print_tables() -> None:
    """Print both tables as Markdown."""
    columns = [rows_of(update) for update in updates()]
    half = len(SIZES)
    for title, part in (("the archive at once", columns[:half]), ("a week", columns[half:])):
        print(f"| {title} | " + " | ".join(f"of {name}" for name in SIZES) + " |")
        print("|---|" + "---|" * half)
        for name in part[0]:
            print(f"| {name} | " + " | ".join(column[name] for column in part) + " |")
        print()
