"""The claim store over a folder and over memory: what is put comes back, and what is anything else is refused."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from fanfold_producer import ClaimCheckBroken, ClaimStore, ClaimStoreNeeded, ClaimStoreRefused, ClaimStoreUnavailable
from fanfold_producer.claim_store import GETS_AT_ONCE, Swept, at_once, fill_in, needed
from fanfold_schemas import ClaimCheck, claim_check_for, object_key, pack_value

pytest.importorskip("obstore", reason="claim stores need the extra claim-check (obstore)")

VALUE = {"text": "é" * 300_000, "numbers": list(range(1000))}
DATA = pack_value(VALUE)
CHECK = claim_check_for(DATA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def store(folder: Path) -> ClaimStore:
    return ClaimStore.open(folder.as_uri())


def put(store: ClaimStore, fan_out_id: str = "f1", data: bytes = DATA) -> ClaimCheck:
    return asyncio.run(store.put(fan_out_id, data))


def get(store: ClaimStore, check: ClaimCheck = CHECK, fan_out_id: str = "f1") -> Any:
    return asyncio.run(store.get(fan_out_id, check))


def object_file(folder: Path, fan_out_id: str = "f1", check: ClaimCheck = CHECK) -> Path:
    return folder / object_key(fan_out_id, check)


class TestPutAndGet:
    def test_what_was_put_comes_back(self, store: ClaimStore) -> None:
        assert put(store) == CHECK
        assert get(store) == VALUE

    def test_putting_it_again_changes_nothing_but_makes_it_young(self, store: ClaimStore, folder: Path) -> None:
        put(store)
        os.utime(object_file(folder), (1, 1))
        assert put(store) == CHECK
        assert object_file(folder).stat().st_mtime > 1
        assert object_file(folder).read_bytes() == DATA
        assert [path.name for path in folder.rglob("*") if path.is_file()] == [CHECK.sha256]

    def test_an_object_of_another_fan_out_is_not_found(self, store: ClaimStore) -> None:
        put(store, "f2")
        with pytest.raises(ClaimCheckBroken, match="has no object f1/"):
            get(store)

    @pytest.mark.parametrize("fan_out_id", ["..", ".", "a:b..c", "x" * 200])
    def test_no_id_leads_out_of_the_folder(self, store: ClaimStore, folder: Path, fan_out_id: str) -> None:
        put(store, fan_out_id)
        assert get(store, fan_out_id=fan_out_id) == VALUE
        assert len(list(folder.iterdir())) == 1
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_put_all_puts_each_value_once(self, store: ClaimStore) -> None:
        values = {claim_check_for(pack_value(n)): n for n in range(20)}
        asyncio.run(store.put_all("f1", values))
        assert [get(store, check) for check in values] == list(range(20))

    def test_blocking_callers_may_be_on_an_event_loop(self, store: ClaimStore) -> None:
        async def on_a_loop() -> None:
            store.put_all_blocking("f1", {CHECK: VALUE})

        before = threading.active_count()
        asyncio.run(on_a_loop())
        assert get(store) == VALUE
        assert threading.active_count() <= before + 1, "its worker ends with the call"

    def test_an_arg_that_changes_while_it_is_put_is_noticed(self, store: ClaimStore) -> None:
        with pytest.raises(RuntimeError, match="was changed"):
            asyncio.run(store.put_all("f1", {CHECK: {"other": 1}}))


class TestWhatIsNotWhatWasPut:
    def broken(self, store: ClaimStore, check: ClaimCheck = CHECK) -> str:
        with pytest.raises(ClaimCheckBroken) as caught:
            get(store, check)
        return str(caught.value)

    def test_a_missing_object_is_named_with_what_may_have_happened(self, store: ClaimStore) -> None:
        assert "was pruned" in self.broken(store)

    def test_one_changed_bit_is_found_by_the_hash(self, store: ClaimStore, folder: Path) -> None:
        put(store)
        changed = bytearray(DATA)
        changed[1000] ^= 1
        object_file(folder).write_bytes(changed)
        assert "other bytes" in self.broken(store)

    def test_a_truncated_object_is_found_before_it_is_read(self, store: ClaimStore, folder: Path) -> None:
        put(store)
        object_file(folder).write_bytes(DATA[:-1])
        assert f"has {len(DATA) - 1} bytes" in self.broken(store)

    def test_an_object_larger_than_stated_is_not_read(self, store: ClaimStore, folder: Path) -> None:
        put(store)
        with object_file(folder).open("r+b") as file:
            file.truncate(2**40)  # a hole: it takes no room, and reading it would never end
        assert f"has {2**40} bytes" in self.broken(store)

    def test_an_empty_object_is_refused(self, store: ClaimStore, folder: Path) -> None:
        put(store)
        object_file(folder).write_bytes(b"")
        assert "has 0 bytes" in self.broken(store)

    @pytest.mark.parametrize(
        "data", [b"\xc1", b"\x92\x01", pack_value(float("nan")), pack_value("\0"), b"\xd4\x01\x00"]
    )
    def test_bytes_that_are_no_value_are_refused_though_their_hash_is_right(
        self, store: ClaimStore, data: bytes
    ) -> None:
        assert "is no value" in self.broken(store, put(store, data=data))

    def test_a_folder_in_the_place_of_an_object_is_no_value(self, store: ClaimStore, folder: Path) -> None:
        object_file(folder).mkdir(parents=True)
        with pytest.raises((ClaimCheckBroken, ClaimStoreUnavailable)):
            get(store)


class _Stream:
    """An object whose store says one size and sends another."""

    def __init__(self, size: int, chunks: Sequence[bytes]) -> None:
        self.meta = {"size": size}
        self._chunks = chunks
        self.sent = 0

    async def get_async(self, _key: str) -> _Stream:
        return self

    async def stream(self) -> Any:
        for chunk in self._chunks:
            self.sent += 1
            yield chunk


def test_a_store_that_sends_more_than_it_said_is_not_listened_to_further() -> None:
    lying = _Stream(10, [b"x" * 8] * 1000)
    with pytest.raises(ClaimCheckBroken, match="goes on after"):
        get(ClaimStore(cast(Any, lying)), ClaimCheck(CHECK.sha256, 10))
    assert lying.sent == 2


def test_a_store_that_sends_less_than_it_said_is_asked_again_later() -> None:
    with pytest.raises(ClaimStoreUnavailable, match="broke off"):
        get(ClaimStore(cast(Any, _Stream(10, [b"x"]))), ClaimCheck(CHECK.sha256, 10))


class TestOpening:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "bucket",
            "http://127.0.0.1:1/x",
            "https://bucket",
            "ftp://x/y",
            "memory:///",
            "s3:",
            "s3://",
            "file://x/y",
        ],
    )
    def test_what_is_no_claim_store_is_refused(self, url: str) -> None:
        with pytest.raises(ClaimStoreRefused):
            ClaimStore.open(url)

    @pytest.mark.parametrize("url", ["s3://key:hunter2@bucket/x", "https://key:hunter2@host/x"])
    def test_credentials_in_the_url_are_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(ClaimStoreRefused, match="environment") as caught:
            ClaimStore.open(url)
        assert "hunter2" not in str(caught.value)

    def test_the_message_for_a_wrong_scheme_has_the_forms_that_are_right(self) -> None:
        with pytest.raises(ClaimStoreRefused, match="s3://bucket/prefix"):
            ClaimStore.open("http://127.0.0.1:1/x")

    @pytest.mark.parametrize("bytes_min", [-1, 64 * 1024 * 1024 + 1])
    def test_a_threshold_that_means_nothing_is_refused(self, folder: Path, bytes_min: int) -> None:
        with pytest.raises(ClaimStoreRefused, match="claim_check_bytes_min"):
            ClaimStore.open(folder.as_uri(), bytes_min=bytes_min)

    def test_without_obstore_the_extra_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "obstore.store", None)
        with pytest.raises(ClaimStoreRefused, match=r"fanfold\[claim-check\]"):
            ClaimStore.open(folder.as_uri())

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ClaimStoreRefused, match="cannot be opened"):
            ClaimStore.open((tmp_path / "file" / "claims").as_uri())

    def test_a_claim_check_without_a_store_says_what_to_name(self) -> None:
        with pytest.raises(ClaimStoreNeeded, match="FANFOLD_CLAIM_STORE"):
            needed(None, CHECK)


class TestSweep:
    BEFORE = datetime.now(UTC) - timedelta(days=30)

    @pytest.fixture
    def swept(self, store: ClaimStore, folder: Path) -> tuple[ClaimStore, Path]:
        """Two old objects each of f1 and f2, a young one of f3, and what is not ours."""
        for fan_out_id in ("f1", "f2"):
            for data in (b"\x01", b"\x02"):
                os.utime(object_file(folder, fan_out_id, put(store, fan_out_id, data)), (1, 1))
        put(store, "f3", b"\x01")
        for name in ("README", "f9/notes", "f9/deeper/" + "0" * 64):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("mine")
            os.utime(folder / name, (1, 1))
        return store, folder

    def sweep(self, store: ClaimStore, there: set[str], **options: Any) -> Swept:
        async def existing(fan_out_ids: Sequence[str]) -> set[str]:
            assert len(fan_out_ids) == len(set(fan_out_ids)) > 0
            return there & set(fan_out_ids)

        return asyncio.run(store.sweep(self.BEFORE, existing, **options))

    def files(self, folder: Path) -> set[str]:
        return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}

    def test_old_objects_of_fan_outs_that_are_gone_go_and_nothing_else(self, swept: tuple[ClaimStore, Path]) -> None:
        store, folder = swept
        assert self.sweep(store, {"f1"}) == Swept(2, 2)
        assert self.files(folder) == {"f1", "f3", "README", "f9"}
        assert len(list((folder / "f1").iterdir())) == 2
        assert not (folder / "f2").exists()

    def test_sweeping_again_finds_nothing(self, swept: tuple[ClaimStore, Path]) -> None:
        store, _ = swept
        self.sweep(store, {"f1"})
        assert self.sweep(store, {"f1"}) == Swept(0, 0)

    def test_counting_deletes_nothing(self, swept: tuple[ClaimStore, Path]) -> None:
        store, folder = swept
        assert self.sweep(store, set(), delete=False) == Swept(4, 4)
        assert self.files(folder) == {"f1", "f2", "f3", "README", "f9"}

    def test_a_store_of_many_pages_is_swept_to_its_end(
        self, swept: tuple[ClaimStore, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fanfold_producer.claim_store.PAGE_OBJECTS", 1)
        assert self.sweep(swept[0], set()) == Swept(4, 4)

    def test_an_answer_that_fails_deletes_nothing(self, swept: tuple[ClaimStore, Path]) -> None:
        store, folder = swept

        async def existing(_: Sequence[str]) -> set[str]:
            raise ConnectionError("Postgres is away")

        with pytest.raises(ConnectionError):
            asyncio.run(store.sweep(self.BEFORE, existing))
        assert self.files(folder) == {"f1", "f2", "f3", "README", "f9"}

    def test_two_sweeps_at_once_do_not_disturb_each_other(self, swept: tuple[ClaimStore, Path]) -> None:
        store, folder = swept

        async def existing(_: Sequence[str]) -> set[str]:
            for path in (folder / "f1").iterdir():  # the other one was quicker
                path.unlink()
            return set()

        asyncio.run(store.sweep(self.BEFORE, existing))
        assert self.files(folder) == {"f3", "README", "f9"}


def test_values_are_fetched_a_few_at_once_and_stand_in_order() -> None:
    running, most = 0, 0

    async def fetch(check: ClaimCheck) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return check.bytes

    values: list[Any] = ["a", *(ClaimCheck("0" * 64, n) for n in range(1, 40)), None]
    asyncio.run(fill_in(values, fetch))
    assert values == ["a", *range(1, 40), None]
    assert most == GETS_AT_ONCE


def test_after_an_error_nothing_goes_on_behind_the_callers_back() -> None:
    began: set[int] = set()
    ended: set[int] = set()

    async def work(n: int) -> None:
        if n == 1:
            raise ConnectionError
        began.add(n)
        try:
            await asyncio.Event().wait()
        finally:
            ended.add(n)

    async def scenario() -> None:
        with pytest.raises(ConnectionError):
            await at_once(range(10), work, 3)
        assert began == ended
        assert 9 not in began

    asyncio.run(scenario())
