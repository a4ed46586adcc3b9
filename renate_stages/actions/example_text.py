"""Example texts: support tickets of a shop in three updates, written by a small grammar.

    ticket  = [greeting] problem [remark] [request]
    problem = a sentence of the topic, with an item, a time and words of the topic
    remark  = for one ticket in eight, a sentence of another topic

Update 1 has four topics. Update 2 has a new one, and only two of the old ones. Update 3 has all five,
with words that are new: the shop has new products and services.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date, timedelta
from hashlib import blake2b

FILE = "tickets.csv"
HEADER = ("text", "topic", "ticket", "date")
LAST = 3
ROWS = {
    1: dict.fromkeys(("delivery", "payment", "login", "return"), 100),
    2: {"subscription": 200, "delivery": 100, "payment": 100},
    3: dict.fromkeys(("delivery", "payment", "login", "return", "subscription"), 80),
}
FIRST_DAY = {1: date(2026, 1, 1), 2: date(2026, 4, 1), 3: date(2026, 7, 1)}
DAYS = 90

GREETINGS = ("Hello,", "Hi,", "Good morning,", "Dear team,", "")
REQUESTS = (
    "Please help.",
    "Can you check this?",
    "What should I do?",
    "Please answer soon.",
    "Thanks!",
    "",
)
TIMES = ("yesterday", "today", "last week", "on Monday", "two days ago", "this morning")
ITEMS = ("kettle", "lamp", "jacket", "pair of shoes", "backpack", "blender", "chair", "phone case")
NEW_ITEMS = ("scooter", "drone", "smartwatch", "air fryer", "standing desk")

# {item} and {time} are replaced by one of the lists above, {word} by a word of the topic.
PROBLEMS = {
    "delivery": (
        "My {item} should have arrived {time}, but the {word} never came.",
        "The {word} left my {item} at the wrong address {time}.",
        "The {word} with my {item} is late again.",
        "Tracking says the {word} was here {time}, but I have no {item}.",
    ),
    "payment": (
        "I was charged twice for the {item} {time}; my {word} shows it.",
        "My {word} was refused when I bought a {item} {time}.",
        "The {word} for the {item} has the wrong amount.",
        "I cannot pay for the {item} with my {word}.",
    ),
    "login": (
        "I cannot log in since {time}; the {word} is not accepted.",
        "The page says my {word} is wrong, but I changed nothing.",
        "My account is locked {time} after I typed my {word}.",
        "I never got the email to reset my {word}.",
    ),
    "return": (
        "I want to send the {item} back; where is the {word}?",
        "The {item} is broken, and I asked for a {word} {time}.",
        "You got my {item} {time}, but I still wait for the {word}.",
        "The {item} does not fit. How do I get a {word}?",
    ),
    "subscription": (
        "Please cancel my {word}; I stopped using it {time}.",
        "My {word} was renewed {time} although I had ended it.",
        "How do I change my {word} to a cheaper one?",
        "The {word} does not include the {item} that you promised.",
    ),
}
WORDS = {
    "delivery": ("parcel", "courier", "package", "driver", "shipment"),
    "payment": ("card", "invoice", "bank account", "bill", "cheque"),
    "login": ("password", "username", "code", "account name"),
    "return": ("return label", "refund", "replacement", "return form"),
    "subscription": ("membership", "monthly plan", "yearly plan", "subscription", "trial"),
}
NEW_WORDS = {
    "delivery": ("pickup locker", "cargo bike", "delivery robot"),
    "payment": ("instalment plan", "gift voucher", "mobile wallet"),
    "login": ("passkey", "fingerprint", "authenticator app"),
    "return": ("QR code", "store credit", "repair kit"),
    "subscription": ("family bundle", "student discount", "paused plan"),
}


def ticket_files(update: int | None) -> dict[str, bytes]:
    """Return the file of an update: `tickets.csv` with the columns text, topic, ticket and date.

    Args:
        update: 1, 2 or 3; None: the tickets of all updates.
    """
    rows = [row for number in ((update,) if update else ROWS) for row in tickets(number)]
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([HEADER, *rows])
    return {FILE: stream.getvalue().encode()}


def tickets(update: int) -> list[tuple[str, str, str, str]]:
    """Return the rows of an update: text, topic, ticket and date, in order of their dates."""
    topics = [topic for topic, count in ROWS[update].items() for _ in range(count)]
    made = []
    for number, topic in enumerate(topics):
        key = f"{update}/{number}"
        day = FIRST_DAY[update] + timedelta(_number(f"{key}/day", DAYS))
        made.append((day.isoformat(), number, _text(topic, update, key), topic))
    made.sort()
    return [
        (text, topic, f"T{update}-{place:04}", day)
        for place, (day, _, text, topic) in enumerate(made, 1)
    ]


def _text(topic: str, update: int, key: str) -> str:
    """Return the text of a ticket."""
    parts = [_chosen(GREETINGS, f"{key}/greeting"), _sentence(topic, update, f"{key}/problem")]
    if _number(f"{key}/has remark", 8) == 0:
        others = [other for other in ROWS[update] if other != topic]
        parts.append(_sentence(_chosen(others, f"{key}/other"), update, f"{key}/remark"))
    parts.append(_chosen(REQUESTS, f"{key}/request"))
    return " ".join(filter(None, parts))


def _sentence(topic: str, update: int, key: str) -> str:
    is_new = update == LAST
    words = WORDS[topic] + NEW_WORDS[topic] * is_new
    items = ITEMS + NEW_ITEMS * is_new
    return _chosen(PROBLEMS[topic], f"{key}/form").format(
        item=_chosen(items, f"{key}/item"),
        time=_chosen(TIMES, f"{key}/time"),
        word=_chosen(words, f"{key}/word"),
    )


def _chosen(options: Sequence[str], key: str) -> str:
    return options[_number(key, len(options))]


def _number(key: str, below: int) -> int:
    """Return a number in [0, below) that depends only on the key, in every version of Python."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % below
