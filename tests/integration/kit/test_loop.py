"""The services' loop with the Kafka client: a closed connection is broken, whatever the loop calls it."""

import asyncio

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from embedded.fixtures import Kafka
from kit.loop import run_loop


def test_a_request_over_a_closed_transport_says_that_the_connection_is_broken(kafka: Kafka) -> None:
    host, port = kafka.bootstrap.rsplit(":", 1)

    async def ask() -> None:
        connection = AIOKafkaConnection(host, int(port))
        await connection.connect()
        await connection.send(MetadataRequest(None))
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # the transport is closed, as when the broker dies, and the reader is not told yet
        with pytest.raises(KafkaConnectionError, match="broken"):
            await connection.send(MetadataRequest(None))
        assert not connection.connected()

    run_loop(ask())
