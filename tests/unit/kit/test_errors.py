"""Whether an error is the world's fault (try again) or the input's (give up)."""

import socket

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, RequestTimedOutError
from pydantic import BaseModel, ValidationError
from sqlalchemy import exc
from urllib3.exceptions import MaxRetryError

from contracts.envelope import EnvelopeError
from kit.errors import Permanent, Transient, is_transient
from kit.events import Conflict
from kit.parking import UNKNOWN_ERROR_TRIES, permanent_of
from kit.problems import Problem


def wrapped(cause: Exception, *, lost: bool = False) -> exc.DBAPIError:
    """As SQLAlchemy's asyncpg dialect raises it: the driver's error is the cause of the adapted one."""
    adapted = Exception(str(cause))
    adapted.__cause__ = cause
    return exc.DBAPIError("select 1", None, adapted, connection_invalidated=lost)


def invalid() -> ValidationError:
    class Model(BaseModel):
        size: int

    try:
        Model.model_validate({})
    except ValidationError as error:
        return error
    raise AssertionError


TRANSIENT = [
    Transient("x"),
    Conflict("x"),
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    # A name server that does not know a stopped container, and a dual-stack host where nothing listens.
    socket.gaierror(-2, "Name or service not known"),
    OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
    OSError(113, "No route to host"),
    exc.TimeoutError("QueuePool limit of size 8 overflow 8 reached"),
    exc.OperationalError("select 1", None, Exception("x")),
    exc.InterfaceError("select 1", None, Exception("x")),
    wrapped(Exception("connection is closed"), lost=True),
    wrapped(asyncpg.CannotConnectNowError("starting up")),
    wrapped(asyncpg.AdminShutdownError("terminating")),
    wrapped(asyncpg.TooManyConnectionsError("no slots")),
    wrapped(asyncpg.DeadlockDetectedError("deadlock")),
    wrapped(asyncpg.SerializationError("race")),
    wrapped(asyncpg.LockNotAvailableError("lock")),
    wrapped(asyncpg.ConnectionDoesNotExistError("gone")),
    wrapped(asyncpg.InterfaceError("gone")),
    # A fail-over can leave us on the standby for a while.
    wrapped(asyncpg.ReadOnlySQLTransactionError("standby")),
    asyncpg.CannotConnectNowError("starting up"),
    KafkaConnectionError(),
    RequestTimedOutError(),
    MaxRetryError(None, "http://store"),  # type: ignore[arg-type]
]
UNKNOWN = [
    ValueError("x"),
    KeyError("x"),
    AssertionError(),
    wrapped(asyncpg.UniqueViolationError("twice")),
    wrapped(asyncpg.NotNullViolationError("null")),
    wrapped(asyncpg.UndefinedTableError("migrate first")),
    wrapped(asyncpg.DataError("bad")),
    MessageSizeTooLargeError(),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda e: f"{type(e).__name__}-{e}"[:60])
def test_the_world_is_at_fault_and_no_number_of_tries_ends_it(error: Exception) -> None:
    assert is_transient(error)
    assert permanent_of(error, 10_000) is None


@pytest.mark.parametrize("error", UNKNOWN, ids=lambda e: f"{type(e).__name__}-{e}"[:60])
def test_unknown_errors_get_a_few_tries(error: Exception) -> None:
    assert not is_transient(error)
    assert permanent_of(error, UNKNOWN_ERROR_TRIES - 1) is None
    parked = permanent_of(error, UNKNOWN_ERROR_TRIES)
    assert parked is not None
    assert parked.code == "unexpected-error"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Permanent("no-such-stage", "x"), "no-such-stage"),
        (Problem(404, "no-such-model", "x"), "no-such-model"),
        (EnvelopeError("header"), "bad-event"),
    ],
)
def test_permanent_errors_are_parked_at_the_first_try(error: Exception, code: str) -> None:
    parked = permanent_of(error, 1)
    assert parked is not None
    assert parked.code == code


def test_a_validation_error_of_our_own_code_is_not_the_senders_fault_at_once() -> None:
    assert permanent_of(invalid(), 1) is None
