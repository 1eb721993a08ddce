"""The claim store of a verification: what a claim check would be is said, and nothing is put."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanfold_consumer.replay.verify import DryClaimStore
from fanfold_producer.claim_store import ClaimStore
from fanfold_schemas import encode_payload
from fanfold_schemas.claim_check import claim_check_for


def test_nothing_is_put_and_the_claim_check_is_that_of_the_value(tmp_path: Path) -> None:
    store = DryClaimStore.open(tmp_path.as_uri())
    value = {"n": 1}
    check = claim_check_for(encode_payload(value))

    assert asyncio.run(store.put("f1", encode_payload(value))) == check
    asyncio.run(store.put_all("f1", {check: value}))

    assert list(tmp_path.rglob("*")) == []


def test_what_members_put_is_fetched(tmp_path: Path) -> None:
    check = asyncio.run(ClaimStore.open(tmp_path.as_uri()).put("f1", encode_payload([1, 2])))
    assert asyncio.run(DryClaimStore.open(tmp_path.as_uri()).get("f1", check)) == [1, 2]
