"""Who may do what: roles and the actions each allows. Groups get roles in the access file (`kit.auth`)."""

from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    APPROVER = "approver"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    SERVER = "server"
    ADMIN = "admin"


class Action(StrEnum):
    READ = "read"
    REGISTER = "register"
    REQUEST = "request"
    VOTE = "vote"
    ROLL_BACK = "roll_back"
    AUDIT = "audit"
    SUBSCRIBE = "subscribe"
    MANAGE = "manage"  # rename, delete, restore, take back another's request
    MANAGE_POLICY = "manage_policy"
    ATTEST = "attest"  # attach evidence to a version, and what a check of it found
    REVOKE = "revoke"
    BREAK_GLASS = "break_glass"  # let a request pass in an emergency, where its policies allow that
    MANAGE_PEOPLE = "manage_people"  # tell which groups somebody is in, before their next token does
    CONFIGURE = "configure"
    REPORT = "report"  # say what a server has loaded


ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.READ, Action.SUBSCRIBE}),
    Role.CONTRIBUTOR: frozenset(
        {Action.READ, Action.SUBSCRIBE, Action.REGISTER, Action.REQUEST, Action.REPORT, Action.ATTEST}
    ),
    Role.APPROVER: frozenset({Action.READ, Action.SUBSCRIBE, Action.VOTE, Action.ATTEST}),
    Role.OPERATOR: frozenset(
        {
            Action.READ,
            Action.SUBSCRIBE,
            Action.REQUEST,
            Action.ROLL_BACK,
            Action.MANAGE,
            Action.REPORT,
            Action.REVOKE,
            Action.BREAK_GLASS,
        }
    ),
    Role.SERVER: frozenset({Action.READ, Action.SUBSCRIBE, Action.REPORT}),
    Role.AUDITOR: frozenset({Action.READ, Action.SUBSCRIBE, Action.AUDIT}),
    Role.ADMIN: frozenset(Action),
}
