"""The claim store over a real S3 API: what a folder cannot show."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from fanfold_producer import ClaimCheckBroken, ClaimStore, ClaimStoreUnavailable
from fanfold_producer.claim_store import Swept
from fanfold_schemas import ClaimCheck, claim_check_for, object_key, pack_value
from tests.support.s3 import BUCKET, S3Server, s3_available

pytest.importorskip("obstore", reason="claim stores need the extra claim-check (obstore)")
if (_MISSING := s3_available()) is not None:
    pytest.skip(_MISSING, allow_module_level=True)

URL = f"s3://{BUCKET}/some/prefix"
VALUE = "0123456789" * 100_000
DATA = pack_value(VALUE)
CHECK = claim_check_for(DATA)
FAN_OUT = "a.b:c-1"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ClaimStore:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return ClaimStore.open(URL)


def put(store: ClaimStore, data: bytes = DATA, fan_out_id: str = FAN_OUT) -> ClaimCheck:
    return asyncio.run(store.put(fan_out_id, data))


def write(store: ClaimStore, server: S3Server, data: bytes) -> None:
    """Put other bytes in the place of the object, behind the server's back."""
    put(store)
    path = server.data / BUCKET / "some" / "prefix" / object_key(FAN_OUT, CHECK)
    assert path.is_file()
    path.write_bytes(data)


def test_what_was_put_comes_back_under_keys_that_need_escaping(store: ClaimStore) -> None:
    assert put(store) == CHECK
    assert asyncio.run(store.get(FAN_OUT, CHECK)) == VALUE
    assert put(store) == CHECK


def test_a_missing_object_is_told_from_a_store_that_is_away(store: ClaimStore) -> None:
    with pytest.raises(ClaimCheckBroken, match="has no object"):
        asyncio.run(store.get("other", CHECK))


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", DATA[:-1] + b"x"], ids=["none", "less", "more", "other"])
def test_an_object_that_is_not_what_was_put_is_refused(store: ClaimStore, server: S3Server, data: bytes) -> None:
    write(store, server, data)
    with pytest.raises(ClaimCheckBroken):
        asyncio.run(store.get(FAN_OUT, CHECK))


def test_a_bucket_that_is_not_there_is_no_tasks_fault(store: ClaimStore) -> None:
    gone = ClaimStore.open("s3://no-such-bucket")
    for asking in (gone.get(FAN_OUT, CHECK), gone.put(FAN_OUT, DATA), gone.probe()):
        with pytest.raises(ClaimStoreUnavailable, match="NoSuchBucket"):
            asyncio.run(asking)
    asyncio.run(store.probe())


def test_refused_credentials_are_no_tasks_fault_and_are_not_in_the_message(
    store: ClaimStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    refused = ClaimStore.open(URL)
    with pytest.raises(ClaimStoreUnavailable, match="403") as caught:
        asyncio.run(refused.get(FAN_OUT, CHECK))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_http_must_be_allowed(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ClaimStoreUnavailable):
        asyncio.run(ClaimStore.open(URL).probe())


def test_a_server_that_dies_and_comes_back_is_unavailable_meanwhile_and_keeps_what_was_put(
    store: ClaimStore, server: S3Server
) -> None:
    put(store)
    server.kill()
    try:
        for asking in (store.get(FAN_OUT, CHECK), store.put(FAN_OUT, DATA), store.probe()):
            with pytest.raises(ClaimStoreUnavailable):
                asyncio.run(asking)
    finally:
        server.start()
    assert asyncio.run(store.get(FAN_OUT, CHECK)) == VALUE


def test_a_sweep_deletes_old_objects_of_fan_outs_that_are_gone_below_its_prefix(
    store: ClaimStore, server: S3Server
) -> None:
    checks = [put(store, pack_value(n), fan_out_id) for fan_out_id in ("gone", FAN_OUT) for n in range(30)]
    beside = ClaimStore.open(f"s3://{BUCKET}/other")
    put(beside, pack_value(1), "gone")
    for path in (server.data / BUCKET).rglob("gone/*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))

    async def existing(fan_out_ids: Sequence[str]) -> set[str]:
        return {FAN_OUT} & set(fan_out_ids)

    before = datetime.now(UTC) - timedelta(days=1)
    size = sum(check.bytes for check in checks[:30])
    assert asyncio.run(store.sweep(before, existing)) == Swept(30, size)
    assert asyncio.run(store.sweep(before, existing)) == Swept(0, 0)
    assert asyncio.run(beside.get("gone", claim_check_for(pack_value(1)))) == 1
    assert asyncio.run(store.get(FAN_OUT, checks[-1])) == 29
