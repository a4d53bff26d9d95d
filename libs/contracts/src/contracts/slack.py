"""What the notifier's buttons in Slack say, and the approval service reads. Pure.

A button's value is no secret and gives nobody a right: Slack signs the whole click with a secret that it shares with
the approval service, which checks that itself.
"""

from dataclasses import dataclass
from hashlib import sha256

from pydantic import TypeAdapter, ValidationError

from contracts.approval import Choice
from contracts.payload import Digest, Identifier

# Beginnings of `action_id`s (each must be another one in a message), and the input whose text goes with a vote.
VOTE, COMMENT = "hallmark-vote", "hallmark-comment"
METHOD = "slack"  # the `auth_method` of a vote by click, which a policy may name in `signature.methods`
_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


@dataclass(frozen=True)
class Button:
    """A vote on a request as it was shown: when its digest is another by then, the vote is refused."""

    choice: Choice
    request_digest: str
    request_id: str

    def value(self) -> str:
        return f"{self.choice}|{self.request_digest}|{self.request_id}"


def read_button(value: str) -> Button:
    """Raises ValueError for what is no value of a button."""
    choice, _, rest = value.partition("|")
    digest, _, request_id = rest.partition("|")
    try:
        return Button(Choice(choice), _DIGEST.validate_python(digest), _IDENTIFIER.validate_python(request_id))
    except ValidationError as error:
        raise ValueError("the value of the button is malformed") from error


def account_of(team: str, user: str) -> str:
    """Somebody of a Slack workspace, as events and tables name them."""
    return f"sha256:{sha256(f'slack:{team}:{user}'.encode()).hexdigest()}"
