"""Whatever stands in the Authorization header, the answer is 401: never a crash, never a principal."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.auth import KeySource, Verifier
from kit.keys import ensure_key
from kit.problems import Problem

RUNNER = asyncio.Runner()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.fixed_dictionaries({}, optional=dict.fromkeys(("alg", "kid", "typ", "crit", "jwk", "b64", "zip"), VALUES))


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


TOKENS = st.one_of(
    st.text(max_size=80),
    st.builds(".".join, st.lists(st.text(max_size=20), min_size=2, max_size=5)),
    st.builds(lambda h, c, s: f"{segment(h)}.{segment(c)}.{s}", HEADERS | VALUES, VALUES, st.text(max_size=20)),
    st.builds(lambda h, s: f"{segment({'alg': 'EdDSA', **h})}.{segment({'sub': 'eve'})}.{s}", HEADERS, st.just("AAAA")),
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    directory = tmp_path_factory.mktemp("keys")
    ensure_key(directory, "auth")
    return Verifier(KeySource(str(Path(directory) / "auth.jwks.json")), issuer="hallmark", audience="hallmark")


@settings(max_examples=200)
@given(token=TOKENS)
def test_no_header_gets_in_or_crashes(verifier: Verifier, token: str) -> None:
    with pytest.raises(Problem) as caught:
        RUNNER.run(verifier.principal(f"Bearer {token}"))
    assert caught.value.status == 401
