"""Which dead letters to go through, in pieces that fit into memory with the bytes of their records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from fanfold_consumer.replay.requeue import persist
from fanfold_sql import DeadLetterFilter, Store, StoredDeadLetter

PAGE = 500
CHUNK_LETTERS_MAX = 100
CHUNK_BYTES_MAX = 8 * 1024 * 1024


async def chunks(
    store: Store, where: DeadLetterFilter, *, limit: int | None = None
) -> AsyncIterator[list[StoredDeadLetter]]:
    """The letters that pass `where`, oldest first, without their bytes; `limit` of them at most.

    None that were parked after the first look: what is redriven and dies again at once would be redriven for ever.
    """
    newest = max((count.newest_id for count in await persist(store.count_dead_letters, where)), default=0)
    after, left = 0, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = await persist(lambda after=after, size=size: store.list_dead_letters(where, after=after, limit=size))
        page = [letter for letter in page if letter.dead_letter_id <= newest]
        if not page:
            return
        for chunk in _cut(page):
            yield chunk
        after = page[-1].dead_letter_id
        left = None if left is None else left - len(page)


def _cut(letters: Iterable[StoredDeadLetter]) -> Iterator[list[StoredDeadLetter]]:
    chunk: list[StoredDeadLetter] = []
    size = 0
    for letter in letters:
        value_bytes = letter.value_bytes or 0
        if chunk and (len(chunk) == CHUNK_LETTERS_MAX or size + value_bytes > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += value_bytes
    if chunk:
        yield chunk
