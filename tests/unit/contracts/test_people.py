"""Pseudonyms, commitments, and what looks like an e-mail address."""

import pytest

from contracts.people import commitment, has_address, is_pseudonym


@pytest.mark.parametrize(
    "text",
    [
        "ana@corp.example",
        "ask Ana.Lima+ml@corp.example, please",
        "<o'hara@x-y.example>",
        "mailto:ana@corp.example",
        "user:ana@corp.example",
        "https://ana:secret@corp.example/x",
        "/v1/members/ana@corp.example",
        "ünal@müller.example",
        '{"by":"ana@corp.example"}',
        "'ana@corp.example'",
        "`ana@corp.example`",
        "*ana@corp.example*",
        "{ana@corp.example}",
        "|ana@corp.example|",
        "#ana@corp.example",
        "=ana@corp.example",
        "-ana@corp.example",
        "/ana@corp.example",
        "https://x.example/?to=ana@corp.example",
        "https://x.example/ana@corp.example",
        "Ana Lima <git@corp.example>",
        "git@corp.example",
        "ana@localhost",
        "a" * 65 + "@corp.example",
        "a@b." * 1_000 + "corp.example",
    ],
)
def test_addresses(text: str) -> None:
    assert has_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@champion of churn",
        "torch@2.1.0",
        "image@sha256:" + "0" * 64,
        "git@github.com:team/repo.git",
        "ssh://git@github.com/team/repo.git",
        "https://ana@corp.example/repo.git",
        "models:/churn@champion",
        "ssh://git-user@host.example/x",
        "'git@host.example:x'",
        "****@corp.example",
        "x@localhosts",
        '{"package":"@scope.example"}',
        "a" * 100_000,
        "@" * 100_000,
        "a." * 50_000 + "@",
        "a@" + "b." * 50_000,
    ],
)
def test_what_is_none(text: str) -> None:
    assert not has_address(text)


def test_a_commitment_depends_on_salt_issuer_and_name() -> None:
    said = {commitment(*parts) for parts in ((b"s", "i", "n"), (b"t", "i", "n"), (b"s", "j", "n"), (b"s", "i", "m"))}
    assert len(said) == 4


def test_pseudonyms() -> None:
    assert is_pseudonym("p_b7kq2m5c3vfy6d4tqz2n7xw5ae")
    assert not any(map(is_pseudonym, ("", "p_", "P_b7kq2m5c3vfy6d4tqz2n7xw5ae", "p_b7kq2m5c3vfy6d4tqz2n7xw5ae\n")))
