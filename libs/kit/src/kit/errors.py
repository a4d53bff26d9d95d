"""What an error means for the record that met it: try again, or give up at once."""

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from urllib3.exceptions import HTTPError


class Transient(Exception):
    """The world is at fault; the same input may succeed later."""


class Permanent(Exception):
    """The input is at fault; no number of tries helps. `code` is stable, the text is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def is_transient(error: BaseException) -> bool:
    """Whether a retry without limit is right (PostgreSQL, Kafka or the store is away, or a race was lost)."""
    if isinstance(error, DBAPIError):
        cause = getattr(error.orig, "__cause__", None)
        return (
            error.connection_invalidated
            or isinstance(error, (OperationalError, InterfaceError))
            or isinstance(cause, _POSTGRES_AWAY)
        )
    if isinstance(error, KafkaError):
        return bool(error.retriable)
    # All of OSError: a name that does not resolve and several refused addresses at once are no ConnectionError.
    return isinstance(error, (Transient, OSError, PoolTimeout, HTTPError, *_POSTGRES_AWAY))


_POSTGRES_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a session that was cut off while it was used
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # after a fail-over we may still talk to the old primary
)
