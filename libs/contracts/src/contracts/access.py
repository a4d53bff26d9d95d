"""Who may do what: roles and the actions each allows. Groups get roles in the access file (`kit.auth`)."""

from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    APPROVER = "approver"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Action(StrEnum):
    READ = "read"
    REGISTER = "register"
    REQUEST = "request"
    VOTE = "vote"
    ROLL_BACK = "roll_back"
    AUDIT = "audit"
    SUBSCRIBE = "subscribe"
    MANAGE_POLICY = "manage_policy"


ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.READ, Action.SUBSCRIBE}),
    Role.CONTRIBUTOR: frozenset({Action.READ, Action.SUBSCRIBE, Action.REGISTER, Action.REQUEST}),
    Role.APPROVER: frozenset({Action.READ, Action.SUBSCRIBE, Action.VOTE}),
    Role.OPERATOR: frozenset({Action.READ, Action.SUBSCRIBE, Action.REQUEST, Action.ROLL_BACK}),
    Role.AUDITOR: frozenset({Action.READ, Action.AUDIT}),
    Role.ADMIN: frozenset(Action),
}
