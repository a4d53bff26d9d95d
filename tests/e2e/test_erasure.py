"""Somebody is erased, and every proof still verifies: the vault of identities over the whole system."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.support.foreign import go_check
from tests.support.system import EXTERNAL, System, embedded_system
from tests.support.waiting import until_now

from contracts.people import is_pseudonym
from embedded import s3
from embedded.fixtures import run
from embedded.services import database_url
from hallmark import Client, HallmarkError

pytestmark = pytest.mark.skipif(bool(EXTERNAL), reason="a stack with the vault on, of its own")

README = (Path(__file__).parents[2] / "README.md").read_text()
SUBJECT, ADDRESS = "quilla-vandersteen", "q.vandersteen@corp.example"
SECOND = "a-second-account"


@dataclass
class Erased:
    """The system after the erasure, and what was found before and after it: where which name stood."""

    system: System
    pseudonym: str
    version_evidence: bytes
    old_note: str
    old_size: int
    before: set[str] = field(default_factory=set)
    after: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Erased]:
    with ExitStack() as held:
        archives = {"HALLMARK_ARCHIVE_RUNNING_DAY": "true", "HALLMARK_ARCHIVE_SECONDS": "1"}
        system = embedded_system("tansu", held, people=True, settings=archives)
        system.workspace = "default"
        yield scenario(system, tmp_path_factory.mktemp("erasure"))


def quilla(system: System, subject: str = SUBJECT, email: str = ADDRESS) -> Client:
    return system.client(subject, "ml-engineers", "reviewers", email=email)


def scenario(system: System, directory: Path) -> Erased:
    artifact = directory / "model.bin"
    artifact.write_bytes(b"a model")
    author, ben = quilla(system), system.client("ben", "reviewers", email="ben@corp.example")
    author.register("churn", artifact, metrics={"accuracy": 0.97}, owner=SUBJECT)
    assert author.request_stage("churn", 1, "Staging", "evaluated", wait=60).applied
    transition = author.request_stage("churn", 1, "Production", "ready", wait=0)
    request = author.request(transition.transition_id, wait=60)
    separation_of_duties(system, transition.transition_id)
    no_names(system, transition.transition_id)
    committers(author, artifact)
    ben.vote(transition.transition_id, "approve", "reviewed", request_digest=request.request_digest)
    assert author.transition(transition.transition_id, wait=60).applied
    [found] = system.aud.identities(SUBJECT.upper())
    pseudonym = found.pseudonym
    assert is_pseudonym(pseudonym)
    assert author.model("churn").owner == pseudonym
    until_now(lambda: system.aud.production("churn").requested_by == pseudonym, 60, "the change is in the log")
    list(quilla_reads(system))
    until_now(lambda: system.aud.identity(pseudonym).as_announced, 60, "the log knows of the pseudonym")

    seen = Erased(system, pseudonym, evidence(system), *head(system))
    seen.before = everywhere(system)
    with pytest.raises(HallmarkError) as refused:
        system.client("root", "admins").erase_identity(pseudonym, "case 4711")
    assert refused.value.code == "seen-lately"
    run(silent(system))
    assert commands(system, pseudonym) == ["find", "show", "erase"]
    for name in (SECOND, ADDRESS):  # every account of theirs: an address stays while another has it
        [other] = system.aud.identities(name)
        system.client("root", "admins").erase_identity(other.pseudonym, "case 4711")
    assert not system.aud.identities(ADDRESS)
    until_now(lambda: erasure_is_logged(system, pseudonym), 60, "the erasure is in the log")
    seen.after = everywhere(system)
    return seen


async def silent(system: System) -> None:
    """As if nobody had called for a while."""
    assert system.stack is not None
    assert system.stack.infra is not None
    connection = await asyncpg.connect(database_url(system.stack.infra.infra))
    try:
        await connection.execute("update people.state set last_seen = last_seen - interval '1 hour'")
    finally:
        await connection.close()


def separation_of_duties(system: System, request_id: str) -> None:
    """One person is one, by whatever token; nobody approves what they asked for."""
    for voter in (
        quilla(system),
        quilla(system, SUBJECT.upper()),
        quilla(system, SECOND),
        quilla(system, ADDRESS, "other@corp.example"),
    ):
        with pytest.raises(HallmarkError) as refused:
            voter.approve(request_id)
        assert refused.value.code in ("own-request", "own-version")


def no_names(system: System, request_id: str) -> None:
    """What people type is stored by pseudonym, or refused."""
    root = system.client("root", "admins")
    ben = system.client("ben", "reviewers", email="ben@corp.example")
    with pytest.raises(HallmarkError) as refused:
        ben.comment(request_id, f"ask {ADDRESS} about it")
    assert refused.value.code == "personal-data"
    assert ADDRESS not in refused.value.detail
    hook = system.receivers.hook_url
    made = root.subscribe("webhook", hook, secret=system.receivers.secret, audience=[f"user:{SUBJECT}"])
    assert is_pseudonym(made.audience[0].removeprefix("user:"))
    mailed = root.subscribe("email", ADDRESS)
    assert mailed.address == "****@corp.example"
    root.unsubscribe(mailed.subscription_id)
    policy = system.client("root", "admins").policy("production").document
    with pytest.raises(HallmarkError) as refused:
        root.publish_policy(f"{policy}\n# user:{SUBJECT} wrote this\n")
    assert refused.value.code == "personal-data"
    with pytest.raises(HallmarkError) as refused:
        root.set_member("nobody-of-this-name", ["reviewers"])
    assert refused.value.code == "unknown-person"
    for name in (SUBJECT, "nobody-of-this-name"):
        with pytest.raises(HallmarkError) as refused:
            ben.member(name)
        assert refused.value.code == "forbidden", "which does not tell whether there is somebody of that name"
    assert is_pseudonym(root.member(SUBJECT).subject)
    lent = ben.delegate(ADDRESS, datetime.now(UTC) + timedelta(days=1), reason="a holiday")
    assert is_pseudonym(lent.delegate)
    assert lent.delegator == root.member("ben").subject


def committers(author: Client, artifact: Path) -> None:
    """Who commits is kept from voting by the name that their token has."""
    content = author.content(artifact, metrics={"accuracy": 0.98})
    wrote = content.lineage.model_copy(update={"committers": (ADDRESS, SUBJECT, "never-here@corp.example")})
    author.register_content("churn", content.model_copy(update={"lineage": wrote}))
    stored = author.version("churn", 2).content["lineage"]["committers"]
    assert [is_pseudonym(name) for name in stored] == [True] * 3


def quilla_reads(system: System) -> Iterator[Any]:
    yield quilla(system).timeline("churn").__next__()
    yield quilla(system).production("churn")
    for query in (f"actor={SUBJECT}", f"actor={ADDRESS.replace('@', '%40')}"):
        yield asked(system, "aud", "auditors", f"/v1/timeline?workspace=*&limit=1&{query}")
    yield asked(system, "aud", "auditors", f"/v1/search?workspace=*&q={SUBJECT}")


def asked(system: System, subject: str, group: str, path: str) -> bytes:
    audit = system.ana.services().audit
    token = system.token(subject, group)
    answer = httpx2.get(f"{audit}{path}", headers={"authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.content


def evidence(system: System) -> bytes:
    return asked(system, "aud", "auditors", "/v1/models/churn/versions/1/evidence")


def head(system: System) -> tuple[str, int]:
    note = system.aud.checkpoint()
    return note, int(note.splitlines()[1])


def commands(system: System, pseudonym: str) -> list[str]:
    """Runs what the README says of erasure, and gives what was run."""
    done = []
    for line in re.findall(r"^hallmark audit person .+$", README, re.MULTILINE):
        words = [re.sub(r"^p_[a-z2-7]{26}$", pseudonym, word) for word in shlex.split(line)]
        words = [SUBJECT if word == "ana" else word for word in words]
        done.append(words[3])
        ran = hallmark(system, *words[1:], group="admins" if words[3] == "erase" else "auditors")
        assert ran.returncode == 0, ran.stderr
        assert pseudonym in ran.stdout
        assert (words[3] == "show") == (SUBJECT in ran.stdout)
    return done


def hallmark(system: System, *words: str, group: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("hallmark")), *words],
        env={
            "PATH": "/usr/bin:/bin",
            "COLUMNS": "200",
            "HALLMARK_URL": system.url,
            "HALLMARK_TOKEN": system.token("root" if group == "admins" else "aud", group),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def erasure_is_logged(system: System, pseudonym: str) -> bool:
    found = asked(system, "aud", "auditors", "/v1/timeline?workspace=*&type=hallmark.subject.erased.v1")
    return any(pseudonym in item["summary"] for item in json.loads(found)["items"])


# -- looking for the name --------------------------------------------------------------------------------------------


def needles() -> list[bytes]:
    """The name and the address as they are, and as base64 spells them wherever they stand in what it encodes."""
    found = []
    for text in (SUBJECT.encode(), ADDRESS.encode()):
        found += [text, text.hex().encode(), text.upper()]
        for shift in range(3):
            spelt = base64.urlsafe_b64encode(b"\0" * shift + text).rstrip(b"=")
            found.append(spelt[2 if shift else 0 : -2][shift and 1 :])
    return found


NEEDLES = needles()


def has_name(data: bytes) -> bool:
    return any(needle in data for needle in NEEDLES)


def everywhere(system: System) -> set[str]:
    """Where the name or the address is, over all that the system stores and gives out."""
    found: set[str] = set()
    run(in_database(system, found))
    run(in_kafka(system, found))
    in_store(system, found)
    assert system.stack is not None
    for path in system.stack.data.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 28 and has_name(path.read_bytes()):
            found.add("/".join(("file", *path.relative_to(system.stack.data).parts[:2])))
    for name, url in (("export", "/v1/export?format=ndjson&format=csv&format=parquet"), ("log", "/v1/log/export")):
        if any(map(has_name, parts(asked(system, "aud", "auditors", url)))):
            found.add(name)
    if any(map(has_name, parts(evidence(system)))):
        found.add("evidence")
    return found


async def in_database(system: System, found: set[str]) -> None:
    assert system.stack is not None
    assert system.stack.infra is not None
    connection = await asyncpg.connect(database_url(system.stack.infra.infra))
    try:
        await connection.execute("checkpoint")
        tables = await connection.fetch(
            "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind = 'r' and n.nspname <> 'information_schema'"
        )
        assert {"people", "audit", "registry", "approval", "notifier"} <= {row["nspname"] for row in tables}
        for schema, table in tables:
            if (schema, table) in {("pg_catalog", "pg_attribute"), ("pg_catalog", "pg_proc")}:
                continue
            into = io.BytesIO()
            await connection.copy_from_query(f'select t::text from "{schema}"."{table}" t', output=into)
            if has_name(into.getvalue()):
                found.add(f"table {schema}.{table}")
    finally:
        await connection.close()


async def in_kafka(system: System, found: set[str]) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=system.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        cluster = await consumer._client.fetch_all_metadata()
        topics = [topic for topic in cluster.topics() if topic.startswith("hallmark.")]
        places = [TopicPartition(topic, n) for topic in topics for n in cluster.partitions_for_topic(topic) or ()]
        ends = await consumer.end_offsets(places)
        left = {place: end for place, end in ends.items() if end > 0}
        assert {"hallmark.registry.events", "hallmark.audit.events"} <= {place.topic for place in left}
        consumer.assign(list(left))
        for place in left:
            consumer.seek(place, 0)
        read = 0
        while left:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                read += len(records)
                for record in records:
                    said = [record.key or b"", record.value or b"", *(value for _, value in record.headers)]
                    if any(map(has_name, said)):
                        found.add(f"topic {place.topic}")
                if records[-1].offset + 1 >= left.get(place, 0):
                    left.pop(place, None)
        assert read > 20
    finally:
        await consumer.stop()


def in_store(system: System, found: set[str]) -> None:
    assert system.stack is not None
    assert system.stack.infra is not None
    infra = system.stack.infra.infra
    store = s3.client(infra.s3_endpoint, infra.s3_access_key, infra.s3_secret_key)
    names = 0
    for bucket in store.list_buckets():
        for item in store.list_objects(bucket.name, recursive=True):
            names += 1
            answer = store.get_object(bucket.name, str(item.object_name))
            data = answer.read()
            answer.close()
            if has_name(str(item.object_name).encode()) or any(map(has_name, parts(data))):
                found.add(f"object {bucket.name}/{item.object_name}")
    assert names > 5


def parts(data: bytes) -> Iterator[bytes]:
    """The bytes themselves, and what is packed in them."""
    yield data
    if data[:4] == b"PAR1":
        for row in pq.read_table(io.BytesIO(data)).to_pylist():
            yield from (value if isinstance(value, bytes) else str(value).encode() for value in row.values())
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from parts(archive.read(name))


# -- the tests -------------------------------------------------------------------------------------------------------


def test_the_name_was_in_the_vault_only_and_then_nowhere(erased: Erased) -> None:
    wal = {"file/postgres/pg_wal"}  # PostgreSQL's own, until it is recycled: the README says so
    assert erased.before - wal - {"file/postgres/base"} == {"table people.name"}
    assert erased.after <= wal


def test_every_proof_still_verifies(erased: Erased, tmp_path: Path) -> None:
    system = erased.system
    (tmp_path / "keys").write_text("\n".join(system.aud.verifier_keys()))
    (tmp_path / "old").write_text(erased.old_note)
    made = hallmark(system, "audit", "export", str(tmp_path / "log.ndjson"), group="auditors")
    assert made.returncode == 0, made.stderr
    said = hallmark(
        system,
        *("audit", "verify", str(tmp_path / "log.ndjson"), "--since", str(tmp_path / "old")),
        *("--key", system.aud.verifier_key()),
        group="auditors",
    )
    assert said.returncode == 0, said.stdout + said.stderr
    for name, data in (("kept", erased.version_evidence), ("fresh", evidence(system))):
        (tmp_path / f"{name}.zip").write_bytes(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (tmp_path / "verify_bundle.py").write_bytes(archive.read("verify_bundle.py"))
        command = [sys.executable, "-I", "verify_bundle.py", f"{name}.zip", "--key", "keys"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(asked(system, "aud", "auditors", "/v1/log/verify"))["ok"] is True


def test_a_foreign_verifier_agrees_that_the_log_only_grew(erased: Erased) -> None:
    system = erased.system
    proof = json.loads(asked(system, "aud", "auditors", f"/v1/log/consistency?from={erased.old_size}"))
    older = base64.b64decode(proof["from_root"])
    hashes = [base64.b64decode(node) for node in proof["proof"]]
    read = go_check(proof["checkpoint"], [system.aud.verifier_key()], (), [(erased.old_size, older, hashes)])
    assert read["size"] == proof["to"] > erased.old_size


def test_nobody_resolves_the_pseudonym_and_who_comes_back_is_new(erased: Erased) -> None:
    with pytest.raises(HallmarkError) as gone:
        erased.system.aud.identity(erased.pseudonym)
    assert gone.value.code == "no-such-person"
    assert erased.system.aud.production("churn").requested_by == erased.pseudonym, "the log is as it was"
