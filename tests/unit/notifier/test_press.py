"""Templates are rendered in a sandbox, in another process, for a second at most."""

import time
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from notifier.press import answer, rendered
from notifier.template_views import Template
from notifier.templating import Press, TemplateFailed, chosen, context

from .test_matching import PROMOTED, seen

CONTEXT: dict[str, Any] = {"notice": {"headline": "<b> & co"}, "event": {}, "data": {"a": 1}}


@pytest.mark.parametrize(
    ("channel", "part", "text", "made"),
    [
        ("slack", "text", "*{{ notice.headline }}* <{{ data.a }}>", "*&lt;b&gt; &amp; co* <1>"),
        ("email", "html", "<p>{{ notice.headline }}</p>", "<p>&lt;b&gt; &amp; co</p>"),
        ("email", "text", "{{ notice.headline }}", "<b> & co"),
        ("email", "text", "{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
    ],
)
def test_each_medium_has_its_own_escapes(channel: str, part: str, text: str, made: str) -> None:
    assert rendered(channel, part, text, CONTEXT) == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ notice.headline", "unexpected end"),
        ("{{ secret }}", "there is no secret; there are data, event, notice"),
        ("{{ data.nothing }}", "nothing"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ data.update({'a': 2}) }}", "unsafe|not safely"),
        ("{% include 'email.txt.j2' %}", "loader"),
        ("{% for n in range(99999) %}{{ notice }}{% endfor %}", "more than 100000 characters"),
        ("{{ range(1000000) }}", "too big"),
    ],
)
def test_what_a_template_may_not_do(text: str, says: str) -> None:
    import json
    import re

    told = answer(json.dumps({"channel": "email", "parts": {"text": text}, "context": CONTEXT}))
    assert re.search(says, told["error"]), told
    assert told["error"].startswith("text: ")


async def test_one_that_takes_too_long_or_too_much_is_ended_and_the_next_is_rendered() -> None:
    press = Press(0.5)
    try:
        endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        began = time.monotonic()
        with pytest.raises(TemplateFailed, match="longer than"):
            await press.render("email", {"text": endless}, CONTEXT)
        assert time.monotonic() - began < 20
        with pytest.raises(TemplateFailed, match=r"memory|longer"):
            await press.render("email", {"text": "{{ ('x' * 10 ** 9) ~ ('y' * 10 ** 9) }}"}, CONTEXT)
        assert await press.render("email", {"text": "{{ data.a }}"}, CONTEXT) == {"text": "1"}
        assert await press.render("email", {"text": "{{ data.a }}"}, None) == {"text": ""}
    finally:
        await press.close()


def test_the_longest_pattern_that_fits_is_taken() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    known = [Template("default", "slack", types, 1, {}, "a", at, True) for types in ("*", "hallmark.stage.*")]
    found = chosen(known, "default", "slack", "hallmark.stage.changed.v1")
    assert found is not None
    assert found.name == "slack hallmark.stage.* r1"
    assert chosen(known, "default", "email", "hallmark.stage.changed.v1") is None
    assert chosen(known, "other", "slack", "hallmark.stage.changed.v1") is None


def test_a_template_sees_the_words_the_event_and_its_body() -> None:
    told = context(seen(PROMOTED, "hallmark.new.thing.v9").envelope)
    assert told["event"]["model"] == "churn"
    assert told["event"]["version"] == 2
    assert told["data"]["to_stage"] == "Production"
    assert told["notice"]["headline"].startswith("default/churn/2")


async def test_the_process_knows_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_SMTP_PASSWORD", "pa55word")
    press = Press(5)
    try:
        assert await press.render("email", {"text": "x"}, CONTEXT) == {"text": "x"}
        assert press._process is not None
        assert "HALLMARK_SMTP_PASSWORD" not in psutil.Process(press._process.pid).environ()
    finally:
        await press.close()
