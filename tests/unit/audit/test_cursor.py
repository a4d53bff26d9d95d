"""Cursors of pages."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cursor import MAX, Cursor, decode

INDEX = st.integers(0, MAX)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)


@given(INDEX, st.datetimes(timezones=st.just(UTC)), TEXT, INDEX)
def test_a_cursor_is_read_back_exactly(size: int, at: datetime, text: str, index: int) -> None:
    cursor = Cursor(size, (at, text, index))
    assert decode(cursor.encode(), (datetime, str, int)) == cursor


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        cursor = decode(text, (int,))
    except ValueError:
        return
    assert cursor.size >= 0


BAD = [
    "[]", "[1]", "[1,2,3]", "[-1,2]", "[1,-2]", "[true,2]", "[1,true]", '["1",2]', '[1,"2"]', "[1.0,2]",
    "[1,9223372036854775808]",
    "{}", "1", "null", "[1,2",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the 'next'"):
        decode(urlsafe_b64encode(text.encode()).decode().rstrip("="), (int,))


@pytest.mark.parametrize("text", ['[1,"\\u0000"]', '[1,"\\ud800"]', "[1,2]"])
def test_text_that_the_database_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the 'next'"):
        decode(urlsafe_b64encode(text.encode()).decode().rstrip("="), (str,))


@pytest.mark.parametrize("micros", [10**30, -(10**30), MAX])
def test_an_instant_beyond_the_years_is_refused(micros: int) -> None:
    with pytest.raises(ValueError, match="not the 'next'"):
        decode(urlsafe_b64encode(f"[1,{micros}]".encode()).decode().rstrip("="), (datetime,))
