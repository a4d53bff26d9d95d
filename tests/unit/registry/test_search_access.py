from contracts.access import Action, Role
from kit.auth import Access, Grant, Principal

ACCESS = Access(
    [
        Grant(group="everyone", role=Role.VIEWER, workspace="open"),
        Grant(group="risk", role=Role.VIEWER, workspace="bank-*", model="fraud-*"),
        Grant(group="risk", role=Role.CONTRIBUTOR, workspace="bank-1", model="score"),
    ]
)


def caller(*groups: str) -> Principal:
    return Principal(subject="ana", groups=frozenset(groups), kind="person", issued_at=0, method="token")


def test_patterns_are_those_of_grants_that_allow_the_action_there() -> None:
    assert ACCESS.patterns(caller("risk"), Action.READ, "bank-1") == {"fraud-*", "score"}
    assert ACCESS.patterns(caller("risk"), Action.READ, "bank-2") == {"fraud-*"}
    assert ACCESS.patterns(caller("risk"), Action.REGISTER, "bank-1") == {"score"}
    assert ACCESS.patterns(caller("risk"), Action.VOTE, "bank-1") == frozenset()
    assert ACCESS.patterns(caller(), Action.READ, "open") == {"*"}
    assert ACCESS.patterns(caller(), Action.READ, "bank-1") == frozenset()
