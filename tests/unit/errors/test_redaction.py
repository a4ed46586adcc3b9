"""Printed text contains no URL secrets and no terminal control sequences."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renate_stages.errors import RemoteRefusedError
from renate_stages.errors.redaction import hide_secrets, printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at http://me:pw@host/x?", "at http://***@host/x?"),
        ("mail me@host", "mail me@host"),
        ("no scheme me:pw@host/x", "no scheme me:pw@host/x"),
        ("http://me:my pw@host/db", "http://***@host/db"),
        ("http://me:a/b@host/db", "http://***@host/db"),
        ("http://me:a@b@host/db", "http://***@host/db"),
        ("http://me:a?b#c@host/db", "http://***@host/db"),
        ("http://me:1234/5@host", "http://***@host"),
        ("postgresql://me:12 34@host", "postgresql://***@host"),
        ("https://token/with/slash@host/x", "https://***@host/x"),
        ("http://me@host", "http://***@host"),
        ("HTTP://ME:PW@HOST", "HTTP://***@HOST"),
        ("http://me:pw", "http://me:***"),
        ("http://[::1", "http://[:***"),
        ("http://me:pw@[::1]:80/x", "http://***@[::1]:80/x"),
        ("http://h:5000/x?token=abc&timeout=3", "http://h:5000/x?token=***&timeout=3"),
        ("http://h/?password=a%20b;c", "http://h/?password=***"),
        ("http://h/?access_key=1&b", "http://h/?access_key=***&***"),
        ("http://h/?tok", "http://h/?***"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=ab: no",
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=*** no",
        ),
        ("http://h/#access_token=abc", "http://h/#access_token=***"),
        ("http://h/?next=https://i/x&token=abc", "http://h/?next=***https://i/x&token=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dx", "mssql+pyodbc:///?odbc_connect=***"),
        (
            "a http://u:p@h, b https://x:y@z/?k=1\nc me@host",
            "a http://***@h, b https://***@z/?k=***\nc me@host",
        ),
        # text without secrets is unchanged
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
        (
            "(http://127.0.0.1:5000): no answer, ask me@host",
            "(http://127.0.0.1:5000): no answer, ask me@host",
        ),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("s3://bucket/a@b/c: it is no JSON", "s3://bucket/a@b/c: it is no JSON"),
        ("sqlite:////a/b.db?timeout=30", "sqlite:////a/b.db?timeout=30"),
        ("what is at http://host?", "what is at http://host?"),
        ("", ""),
    ],
)
def test_urls_are_shown_without_secrets(text, expected):
    assert hide_secrets(text) == expected


PASSWORD = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)


@given(PASSWORD, st.sampled_from(["http", "postgresql+psycopg2", "s3", "mysql"]))
def test_password_with_any_characters_is_hidden(password, scheme):
    secret = f"S3CRET{password}T3RCES"
    if "://" in secret:  # these would be two URLs
        return
    for text in (
        f"{scheme}://me:{secret}@host/x",
        f"cannot reach {scheme}://me:{secret}@host/x: no",
    ):
        assert "S3CRET" not in hide_secrets(text) and "T3RCES" not in hide_secrets(text)


@given(st.text())
def test_redaction_of_any_text_is_idempotent(text):
    once = hide_secrets(f"http://{text}")
    assert hide_secrets(once) == once
    assert printable(printable(text)) == printable(text)


def test_terminal_control_sequences_are_removed():
    line = "\x1b[31mred\x1b[0m\x1b]0;title\x07 10%\r20%\x08\x9b2J \u202eok\tü\r"
    assert printable(line) == "20% ok\tü"
    assert printable("\x1b[2J") == ""
    assert shown("a\x07\nhttp://me:pw@host") == "a\nhttp://***@host"


def test_error_messages_are_redacted_before_and_after_pickling():
    error = RemoteRefusedError("reading", "http://me:pw@host/x?sig=1", "no\x1b[2J.", "wait")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert str(each) == (
            "reading http://***@host/x?sig=*** was refused: no.\nTo fix this: wait."
        )
