"""Time stamps by `openssl ts` behind HTTP, verified by us and by `openssl ts -verify`."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rfc3161_client import decode_timestamp_response
from tests.support.authority import LocalAuthority

from audit.tlog.calling import Caller
from audit.tlog.stamps import Authority, Stamper, StampError, read_stamp

NOTE = "hallmark.example/log/test\n7\nroot\n\n— key signature\n"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAuthority]:
    authority = LocalAuthority(tmp_path / "tsa")
    yield authority
    authority.stop()


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    caller = Caller(("127.0.0.0/8",), 10)
    yield caller
    await caller.close()


def openssl_verifies(token: bytes, note: str, roots: Path, directory: Path) -> bool:
    (directory / "token").write_bytes(token)
    (directory / "note").write_text(note)
    command = ["openssl", "ts", "-verify", "-token_in", "-in", "token", "-data", "note", "-CAfile", str(roots)]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


def believed(local: LocalAuthority) -> Authority:
    return Authority.read(local.roots.read_bytes())


def stamper(local: LocalAuthority, caller: Caller) -> Stamper:
    return Stamper(local.url, believed(local), caller, 3600)


async def test_a_stamp_is_of_the_whole_note_and_openssl_agrees(
    local: LocalAuthority, caller: Caller, tmp_path: Path
) -> None:
    token = await stamper(local, caller).request(NOTE)
    assert abs(read_stamp(token, NOTE, believed(local)) - datetime.now(UTC)) < timedelta(minutes=1)
    assert openssl_verifies(token, NOTE, local.roots, tmp_path)
    assert not openssl_verifies(token, NOTE.partition("\n\n")[0] + "\n", local.roots, tmp_path)


async def test_a_stamp_of_another_note_or_a_bent_one_is_refused(local: LocalAuthority, caller: Caller) -> None:
    token = await stamper(local, caller).request(NOTE)
    authority = believed(local)
    with pytest.raises(StampError, match="Mismatch"):
        read_stamp(token, NOTE + "x", authority)
    for cut in (b"", token[:-1], token + b"\0", token[1:]):
        with pytest.raises(StampError):
            read_stamp(cut, NOTE, authority)
    at = token.index(datetime.now(UTC).strftime("%Y%m").encode())  # the time inside
    for position in (at, at + 5, len(token) - 1, token.index(b"\x04\x20") + 2):
        bent = bytearray(token)
        bent[position] ^= 1
        with pytest.raises(StampError):
            read_stamp(bytes(bent), NOTE, authority)


async def test_only_the_configured_authority_is_believed(local: LocalAuthority, caller: Caller, tmp_path: Path) -> None:
    other = LocalAuthority(tmp_path / "other")
    try:
        with pytest.raises(StampError, match="verify"):
            await Stamper(local.url, believed(other), caller, 1).request(NOTE)
    finally:
        other.stop()


async def test_an_answer_to_another_request_is_refused(local: LocalAuthority, caller: Caller) -> None:
    """A reply of yesterday, for the same note: its nonce is another one."""
    answers: list[bytes] = []
    honest = local.receiver.answer

    def keep(hit: object) -> object:
        answer = honest(hit)  # type: ignore[arg-type]
        answers.append(answer[2] if isinstance(answer, tuple) else b"")
        return answer

    local.receiver.answer = keep  # type: ignore[assignment]
    await stamper(local, caller).request(NOTE)
    local.answer = (200, {"content-type": "application/timestamp-reply"}, answers[0])
    assert decode_timestamp_response(answers[0]).tst_info.serial_number == 2
    with pytest.raises(StampError, match="Nonce"):
        await stamper(local, caller).request(NOTE)


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (200, {"content-type": "text/html"}, b"<html>"),
        (200, {"content-type": "application/timestamp-reply"}, b""),
        (200, {"content-type": "application/timestamp-reply"}, b"\x30\x05\x30\x03\x02\x01\x02"),  # rejection
        (200, {"content-type": "application/timestamp-reply"}, b"x" * 300_000),
    ],
)
async def test_a_bad_answer_is_no_stamp_and_is_asked_for_again(
    local: LocalAuthority, caller: Caller, answer: tuple[int, dict[str, str], bytes]
) -> None:
    now = [0.0]
    stamping = Stamper(local.url, believed(local), caller, 3600, lambda: now[0])
    local.answer = answer
    assert await stamping.stamp(NOTE) is None
    local.answer = None
    assert await stamping.stamp(NOTE) is None  # not at once
    now[0] = 60.0
    assert await stamping.stamp(NOTE)
    assert len(local.receiver.hits) == 2


async def test_one_stamp_in_a_while(local: LocalAuthority, caller: Caller) -> None:
    now = [0.0]
    stamping = Stamper(local.url, believed(local), caller, 3600, lambda: now[0])
    given = []
    for second in (0, 1, 3599, 3600, 3601):
        now[0] = second
        given.append(await stamping.stamp(NOTE) is not None)
    assert given == [True, False, False, True, False]


async def test_without_an_authority_nothing_is_stamped(caller: Caller) -> None:
    assert await Stamper(None, None, caller, 1).stamp(NOTE) is None


async def test_an_authority_that_is_away_gives_no_stamp(local: LocalAuthority, caller: Caller) -> None:
    local.stop()
    assert await stamper(local, caller).stamp(NOTE) is None


def test_certificates_without_a_root_are_refused(tmp_path: Path, local: LocalAuthority) -> None:
    with pytest.raises(ValueError, match="no root"):
        Authority.read((local.roots.parent / "tsa.pem").read_bytes())
    with pytest.raises(ValueError, match="PEM"):
        Authority.read(b"nonsense")
