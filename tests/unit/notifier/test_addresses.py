"""What addresses of receivers look like, and what of them people may see."""

from urllib.parse import unquote

import pytest

from kit.outbound import AddressRefused
from notifier.addresses import check_mailbox, hidden, visible
from notifier.retrying import redact


@pytest.mark.parametrize("address", ["ana@example.org", "a.b+c@x-y.example", "o'hara@example.org"])
def test_plain_mailboxes_pass(address: str) -> None:
    check_mailbox(address)


@pytest.mark.parametrize(
    "address",
    ["", "ana", "ana@", "@x.org", "Ana <ana@x.org>", "a@x.org,b@x.org", "a@x.org\nBcc: b@y.org", "a b@x.org", "a@x..y"],
)
def test_everything_else_does_not(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_mailbox(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example:8443/s3cretstep/b?key=s3cretkey",
        "https://hooks.slack.com/services/T/B/s3cretstep",
        "https://hooks.slack.com/services/T/B/s3cretstep/",
        "https://discord.com/api/webhooks/1/s3cretstep?thread_id=s3cretkey",
        "https://h.example/a%2Fs3cretstep",
        "https://h.example/x?s3cretkey",
    ],
)
def test_what_people_see_of_a_url_has_no_password_in_it(url: str) -> None:
    host = url.split("/")[2]
    assert visible(url) == f"https://{host}/****"
    assert visible(visible(url)) == visible(url)
    path = url.partition(host)[2]
    for said in (url, path, path.strip("/"), unquote(path), path.partition("?")[0].rpartition("/")[2]):
        assert "s3cret" not in redact(f"404 for {said} here", hidden(url)), said


def test_a_url_without_a_path_hides_nothing_else() -> None:
    assert redact("a/b ? c", hidden("https://h.example/")) == "a/b ? c"


def test_of_a_mailbox_people_see_the_domain() -> None:
    assert visible("o'hara@example.org") == "****@example.org"
