"""Watch against a real PostgreSQL and a real server: nothing is lost or told twice, whatever breaks."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.support.serving import House, Pen, digest_of, running, settings_for
from tests.support.waiting import until

from contracts.lifecycle import DEFAULT_LIFECYCLE, StageRule
from contracts.registry import AliasChanged, ModelDeleted, WorkspaceConfigured
from embedded.ports import free_port
from kit.db import Database
from registry.serving import hub as hub_module
from registry.serving import stream as stream_module
from registry.settings import RegistrySettings

DEADLINE = 30.0


@pytest.fixture(scope="module")
def settings(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistrySettings]:
    with settings_for(infra_postgres, tmp_path_factory.mktemp("watch")) as settings:
        yield settings


@pytest_asyncio.fixture
async def house(settings: RegistrySettings) -> AsyncIterator[House]:
    async with running(settings) as house:
        yield house


@pytest.fixture
def pen(house: House) -> Pen:
    return Pen(house.db)


class Ear:
    """One open stream, read event by event."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events
        self.last_id = ""

    async def next(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            async for event in self._events:
                self.last_id = event.id or self.last_id
                if event.data:  # `retry:` comes alone
                    return event
        raise EOFError


@asynccontextmanager
async def watching(client: httpx2.AsyncClient, model: str = "m", **params: Any) -> AsyncIterator[Ear]:
    headers = {"last-event-id": params.pop("resume")} if "resume" in params else {}
    async with client.sse(f"/v1/models/{model}/watch", params=params, headers=headers) as source:
        assert source.response.status_code == 200, await source.response.aread()
        yield Ear(aiter(source))


def told(event: Any) -> tuple[str, str | None, int | None]:
    return event.event, event.json()["target"], event.json()["version"]


async def test_the_state_comes_first_and_then_each_change(house: House, pen: Pen) -> None:
    await pen.model("m", 2)
    head = await pen.promote("m", 1, origin="Development")
    async with house.client(pen) as client, watching(client, stage="production") as ear:
        state = await ear.next()
        assert (state.event, state.id) == ("state", str(head))
        assert [(t["target"], t["version"], t["sequence"]) for t in state.json()["targets"]] == [
            ("Production", 1, head)
        ]
        second = await pen.promote("m", 2, former=1, origin="Development")
        change = await ear.next()
        assert told(change) == ("change", "Production", 2)
        assert (change.id, change.json()["replaced"]) == (str(second), 1)
        assert change.json()["digest"].startswith("sha256:")
        assert "url" not in change.data
        gone = await pen.move("m", 2, "Production", "Archived")
        removed = await ear.next()
        assert told(removed) == ("removed", "Production", None)
        assert (removed.id, removed.json()["replaced"]) == (str(gone), 2)


async def test_an_alias_is_followed_and_other_changes_are_not_told(house: House, pen: Pen) -> None:
    await pen.model("m", 3)
    async with house.client(pen) as client, watching(client, alias="champion") as ear:
        assert (await ear.next()).json()["targets"] == []
        await pen.promote("m", 1, origin="Development")
        await pen.alias("m", "other", 1)
        await pen.alias("m", "champion", 2)
        await pen.alias("m", "champion", 3, 2)
        await pen.alias("m", "champion", None, 3)
        assert [told(await ear.next()) for _ in range(3)] == [
            ("change", "@champion", 2),
            ("change", "@champion", 3),
            ("removed", "@champion", None),
        ]


async def test_without_a_target_everything_is_told_and_an_id_covers_the_whole_event(house: House, pen: Pen) -> None:
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    await pen.alias("m", "live", 1)
    async with house.client(pen) as client:
        async with watching(client) as ear:
            assert [t["target"] for t in (await ear.next()).json()["targets"]] == ["@live", "Production"]
            before = ear.last_id
            await pen.move("m", 1, "Production", "Archived")
            first, second = await ear.next(), await ear.next()
            assert [told(first), told(second)] == [("removed", "Production", None), ("change", "Archived", 1)]
            assert (first.id, int(second.id)) == (before, int(before) + 1)
        # Cut between the two: nothing is lost.
        async with watching(client, last_event_id=first.id) as ear:
            assert [told(await ear.next()) for _ in range(2)] == [told(first), told(second)]


async def test_when_the_newest_of_several_leaves_the_next_one_is_told(house: House, pen: Pen) -> None:
    stages = (*DEFAULT_LIFECYCLE.stages, StageRule(name="Canary", gated=True, holds=3))
    lifecycle = DEFAULT_LIFECYCLE.model_copy(update={"stages": stages})
    await pen.write("-", WorkspaceConfigured(workspace=pen.workspace, lifecycle=lifecycle))
    await pen.model("m", 3)
    async with house.client(pen) as client, watching(client, stage="Canary") as ear:
        await ear.next()
        for version in (1, 2, 3):
            await pen.move("m", version, "Development", "Canary")
        await pen.move("m", 2, "Canary", "Archived")  # not the newest: the answer stays
        await pen.move("m", 3, "Canary", "Archived")
        await pen.move("m", 1, "Canary", "Archived")
        assert [(e := told(await ear.next()))[0::2] for _ in range(5)] == [
            ("change", 1),
            ("change", 2),
            ("change", 3),
            ("change", 1),
            ("removed", None),
        ], e


async def test_a_revocation_is_told_to_everybody_who_watches_the_model(house: House, pen: Pen) -> None:
    """Whoever follows another target may run the version all the same: a swap may have failed."""
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    await pen.alias("m", "live", 1)
    async with house.client(pen) as client, AsyncExitStack() as stack:
        ears = [
            await stack.enter_async_context(watching(client, **params))
            for params in ({"stage": "Production"}, {"alias": "other"}, {})
        ]
        states = [(await ear.next()).json()["targets"] for ear in ears]
        assert [[t["revoked"] for t in targets] for targets in states] == [[None], [], [None, None]]
        last = ears[0].last_id
        sequence = await pen.revoke("m", 1)
        for ear in ears:
            event = await ear.next()
            assert (event.event, event.id) == ("revoked", str(sequence))
            told = event.json()["revoked"]
            assert (told["model"], told["version"], told["reason"], told["by"]) == ("m", 1, "it leaks", "olga")
            assert told["at"] == event.json()["at"]
        await pen.promote("m", 2, former=1, origin="Development")
        change = await ears[0].next()
        assert told_of(change) == ("change", "Production", 2, None)
        # Who was away hears both, in order; who comes anew is told by the state.
        async with watching(client, stage="Production", resume=last) as back:
            assert [told_of(await back.next())[0] for _ in range(2)] == ["revoked", "change"]
        async with watching(client, alias="live") as new:
            [target] = (await new.next()).json()["targets"]
            assert (target["version"], target["revoked"]["reason"]) == (1, "it leaks")


async def test_of_several_in_a_stage_the_state_names_one_that_may_be_used(house: House, pen: Pen) -> None:
    stages = (*DEFAULT_LIFECYCLE.stages, StageRule(name="Canary", gated=True, holds=3))
    lifecycle = DEFAULT_LIFECYCLE.model_copy(update={"stages": stages})
    await pen.write("-", WorkspaceConfigured(workspace=pen.workspace, lifecycle=lifecycle))
    await pen.model("m", 2)
    for version in (1, 2):
        await pen.move("m", version, "Development", "Canary")
    sequence = await pen.revoke("m", 2)
    async with house.client(pen) as client:
        async with watching(client, stage="Canary") as ear:
            [target] = (await ear.next()).json()["targets"]
            assert (target["version"], target["revoked"]) == (1, None)
        answer = (await client.get("/v1/models/m/resolve", params={"stage": "Canary"})).json()
        assert (answer["version"], answer["sequence"], answer["also"]) == (1, sequence, [])


async def test_a_watch_of_a_revoked_version_is_no_use_of_it(house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    await pen.promote("m", 1, origin="Development")
    async with house.client(pen) as client, watching(client, stage="Production") as ear:
        await ear.next()
        [room] = house.serving.hub._rooms.values()
        [watcher] = room.watchers
        assert watcher.versions == {"Production": 1}
        await pen.revoke("m", 1)
        await ear.next()
        assert watcher.versions == {}
        async with watching(client, stage="Production") as late:
            await late.next()
            assert all(not w.versions for w in room.watchers)


def told_of(event: Any) -> tuple[str, str | None, int | None, Any]:
    return (*told(event), event.json()["revoked"])


async def test_what_cannot_be_watched_says_why(house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    async with house.client(pen) as client:
        for params, expected in (
            ({"stage": "Development"}, "not-watchable"),
            ({"stage": "Nowhere"}, "unknown-stage"),
            ({"stage": "Production", "alias": "a"}, "invalid-request"),
            ({"last_event_id": "x"}, "invalid-request"),
        ):
            answer = await client.get("/v1/models/m/watch", params=params)
            assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (422, expected)
        async with watching(client) as ear:
            await ear.next()
            await pen.write("m", ModelDeleted(workspace=pen.workspace, model="m", reason="r"))
            assert (await ear.next()).event == "deleted"
            with pytest.raises(EOFError):
                await ear.next()
        assert (await client.get("/v1/models/m/watch")).status_code == 410
    assert house.serving.hub.watchers == 0


async def test_an_id_that_the_stream_never_had_gets_the_state(house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    async with house.client(pen) as client, watching(client, stage="Production", resume="999999") as ear:
        assert (await ear.next()).event == "state"


async def test_nothing_is_lost_or_told_twice_over_200_reconnects(house: House, pen: Pen) -> None:
    """One hand moves the alias, another writes elsewhere; the stream is cut at random."""
    await pen.model("m", 2)
    start = await pen.alias("m", "live", 1)
    rng = random.Random(4)
    written: list[int] = []
    stop = asyncio.Event()

    async def change() -> None:
        now = 1
        while not stop.is_set():
            now, before = 3 - now, now
            written.append(await pen.alias("m", "live", now, before))
            if rng.random() < 0.3:
                await pen.alias("m", "noise", now, before)
            await asyncio.sleep(rng.random() * 0.02)  # changes fall before, into and after a cut

    writing = asyncio.create_task(change())
    got: list[int] = []
    last = str(start)
    async with house.client(pen) as client:
        for _ in range(200):
            async with watching(client, alias="live", resume=last) as ear:
                for _ in range(rng.randrange(4)):
                    event = await ear.next()
                    got.append(event.json()["sequence"])
                    last = event.id
        stop.set()
        await writing
        async with watching(client, alias="live", resume=last) as ear:
            while got[-1] < written[-1]:
                got.append((await ear.next()).json()["sequence"])
    assert got == written
    assert len(got) > 200


async def test_a_long_absence_is_caught_up_page_by_page(house: House, pen: Pen) -> None:
    await pen.model("m", 2)
    start = await pen.alias("m", "live", 1)
    expected = [await pen.alias("m", "live", 2 - n % 2, 1 + n % 2) for n in range(450)]
    async with house.client(pen) as client, watching(client, alias="live", resume=str(start)) as ear:
        assert [(await ear.next()).json()["sequence"] for _ in expected] == expected
        later = await pen.alias("m", "live", 2, 1)
        assert (await ear.next()).json()["sequence"] == later


async def test_a_change_made_by_another_process_arrives(settings: RegistrySettings, house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    other = Database(settings.database_url.get_secret_value(), name="another-replica", pool=1)
    try:
        async with house.client(pen) as client, watching(client, stage="Production") as ear:
            await ear.next()
            began = time.monotonic()
            await Pen(other, pen.workspace).promote("m", 1, origin="Development")
            assert told(await ear.next()) == ("change", "Production", 1)
            assert time.monotonic() - began < 10 * hub_module.POLL_SECONDS
    finally:
        await other.close()


async def test_a_transaction_that_commits_late_is_not_skipped(house: House, pen: Pen) -> None:
    """Its positions are lower than those of streams that were told meanwhile."""
    await pen.model("slow", 1)
    await pen.model("quick", 2)
    async with house.client(pen) as client, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(watching(client, "slow"))
        quick = await stack.enter_async_context(watching(client, "quick"))
        await slow.next()
        await quick.next()
        entered, commit = asyncio.Event(), asyncio.Event()
        original = house.db.transaction

        @asynccontextmanager
        async def lingering() -> AsyncIterator[Any]:
            async with original() as tx:
                yield tx
                entered.set()
                await commit.wait()

        late = Pen(house.db, pen.workspace)
        late.db = type("Late", (), {"transaction": staticmethod(lingering)})()
        writing = asyncio.create_task(late.promote("slow", 1, origin="Development"))
        await entered.wait()
        await pen.promote("quick", 1, origin="Development")
        assert told(await quick.next()) == ("change", "Production", 1)
        commit.set()
        await writing
        assert told(await slow.next()) == ("change", "Production", 1)


async def test_a_restart_loses_nothing_and_is_not_held_up(settings: RegistrySettings) -> None:
    port = free_port([])
    async with running(settings, port) as house:
        pen = Pen(house.db)
        await pen.model("m", 2)
        await pen.promote("m", 1, origin="Development")
        async with house.client(pen) as client, watching(client, stage="Production") as ear:
            last = (await ear.next()).id
            assert house.server is not None
            began = time.monotonic()
            house.server.should_exit = True
            with pytest.raises(EOFError):
                await ear.next()
            assert time.monotonic() - began < 3
    assert time.monotonic() - began < 5
    other = Database(settings.database_url.get_secret_value(), name="meanwhile", pool=1)
    await Pen(other, pen.workspace).promote("m", 2, former=1, origin="Development")
    await other.close()
    async with (
        running(settings, port) as again,
        again.client(pen) as client,
        watching(client, stage="Production", resume=last) as ear,
    ):
        assert told(await ear.next()) == ("change", "Production", 2)


async def test_a_gone_client_is_noticed_at_once(house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    async with house.client(pen) as client:
        async with watching(client) as ear:
            await ear.next()
            assert house.serving.hub.watchers == 1
        await until(lambda: house.serving.hub.watchers == 0, 3)


async def test_a_slow_watcher_is_disconnected_and_resumes(
    settings: RegistrySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MOST_WAITING", 4)
    monkeypatch.setattr(stream_module, "SEND_SECONDS", 1.0)
    loop = asyncio.get_running_loop()
    async with running(settings, send_buffer=4_096) as house:
        pen = Pen(house.db)
        await pen.model("m", 2)
        start = await pen.alias("m", "live", 1)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.setblocking(False)
        url = httpx2.URL(house.url)
        await loop.sock_connect(slow, (url.host, url.port))
        request = (
            f"GET /v1/models/m/watch?alias=live&workspace={pen.workspace}&last_event_id={start} HTTP/1.1\r\n"
            f"host: x\r\nauthorization: Bearer {house.token()}\r\n\r\n"
        )
        await loop.sock_sendall(slow, request.encode())
        await until(lambda: house.serving.hub.watchers == 1)
        expected: list[int] = []
        async with house.client(pen) as client, watching(client, alias="live", resume=str(start)) as quick:
            async with asyncio.timeout(60):
                while house.serving.hub.watchers > 1:
                    expected.append(await alias_with(pen, 2 - len(expected) % 2, "x" * 1_900))
                    assert (await quick.next()).json()["sequence"] == expected[-1]
            # The slow one reads on: it gets a beginning, then the end of the stream.
            text = b""
            async with asyncio.timeout(DEADLINE):
                while chunk := await loop.sock_recv(slow, 65_536):
                    text += chunk
            slow.close()
            got = [int(line[4:]) for line in text.split(b"\n") if line.startswith(b"id: ")]
            assert 0 < len(got) < len(expected)
            assert got == expected[: len(got)]
            async with watching(client, alias="live", resume=str(got[-1])) as resumed:
                while len(got) < len(expected):
                    got.append((await resumed.next()).json()["sequence"])
        assert got == expected


async def alias_with(pen: Pen, version: int, reason: str) -> int:
    return await pen.write(
        "m",
        AliasChanged(
            workspace=pen.workspace,
            model="m",
            alias="live",
            version=version,
            digest=digest_of(f"m{version}"),
            artifact_digest=digest_of(f"m/{version}"),
            previous=3 - version,
            requested_by="ana",
            reason=reason,
        ),
    )


class Plain:
    """A stream over a bare connection: 2 000 of them in one HTTP client would measure the client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, house: House, pen: Pen, path: str) -> "Plain":
        url = httpx2.URL(house.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        request = f"GET {path}&workspace={pen.workspace} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.token()}"
        writer.write(request.encode() + b"\r\n\r\n")
        return cls(reader, writer)

    async def data(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while line := await self._reader.readline():
                if line.startswith(b"data: "):
                    found: dict[str, Any] = json.loads(line[6:])
                    return found
        raise EOFError

    def close(self) -> None:
        self._writer.close()


async def test_2000_watchers_share_one_question(house: House, pen: Pen) -> None:
    """20 models, 100 streams each. While nothing happens the hub asks about twice a second, for all of them."""
    for n in range(20):
        await pen.model(f"m{n}", 2)
    hub = house.serving.hub
    questions: list[str] = []
    limit = asyncio.Semaphore(100)

    async def open_one(n: int) -> Plain:
        async with limit:
            plain = await Plain.open(house, pen, f"/v1/models/m{n % 20}/watch?stage=Production")
            assert (await plain.data())["targets"] == []
            return plain

    watchers = await asyncio.gather(*(open_one(n) for n in range(2_000)))
    assert hub.watchers == 2_000

    @sa.event.listens_for(house.db.engine.sync_engine, "before_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        questions.append(statement)

    began = time.monotonic()
    await asyncio.sleep(2.0)  # the time is what is measured: questions while nothing happens
    idle = len(questions)
    assert 1 <= idle <= 2 * (time.monotonic() - began) / hub_module.POLL_SECONDS
    await pen.promote("m7", 1, origin="Development")
    concerned = [plain for n, plain in enumerate(watchers) if n % 20 == 7]
    answers = await asyncio.gather(*(plain.data() for plain in concerned))
    assert [(a["target"], a["version"]) for a in answers] == [("Production", 1)] * 100
    # The question of the hub, and the one for who else was in the stage that was left: not one for each watcher.
    asked = [question for question in questions[idle:] if "unnest" in question or "registry.tenure t" in question]
    assert len(asked) < 20
    for plain in watchers:
        plain.close()
    await until(lambda: hub.watchers == 0)


async def test_heartbeats_and_the_end_of_the_token(house: House, pen: Pen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_SECONDS", 0.1)
    await pen.model("m", 1)
    headers = {"authorization": f"Bearer {house.token(ttl=3)}"}
    async with house.client(pen) as client, client.stream("GET", "/v1/models/m/watch", headers=headers) as response:
        async with asyncio.timeout(10):
            text = "".join([chunk async for chunk in response.aiter_text()])
    assert text.count(": ping") > 3


async def test_an_open_watch_counts_as_use(house: House, pen: Pen) -> None:
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    async with house.client(pen) as client, watching(client, stage="Production") as ear:
        await ear.next()

        async def uses() -> dict[int, tuple[str, str]]:
            items = (await client.get("/v1/models/m/usage")).json()["items"]
            return {item["version"]: (item["how"], item["last_at"]) for item in items}

        first = await uses()
        assert first[1][0] == "watch"
        await pen.promote("m", 2, former=1, origin="Development")
        await ear.next()
        later = await uses()
        assert set(later) == {1, 2}
        assert later[1] == first[1]
        assert (await uses())[2][1] > later[2][1]
