"""The log of a partition as a stopped broker left it on its disk, to be damaged as disks, people and crashes do.

A segment is a row of batches (KIP-98): base offset (8 bytes), length of what follows (4), leader epoch (4), magic (1),
CRC32C of the rest (4), attributes (2), last offset as a distance from the first (4), and more; records begin at 61.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fanfold_consumer.devstack import ApacheKafka

_LENGTH_FROM = 12
_CRC_AT = 17
_CRC_FROM = 21
_LAST_AT = 23
_RECORDS_AT = 61
_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: the bytes [position, end) of its segment, the offsets [first, last]."""

    position: int
    end: int
    first: int
    last: int


class PartitionLog:
    """The only segment of a partition. The broker must be stopped, cleanly: after a crash it would look for damage."""

    def __init__(self, kafka: ApacheKafka, topic: str, partition: int) -> None:
        assert not kafka.running
        self._kafka = kafka
        (self._segment,) = (kafka.data_dir / f"{topic}-{partition}").glob("*.log")

    def batches(self) -> list[Batch]:
        data = self._segment.read_bytes()
        found: list[Batch] = []
        position = 0
        while position + _RECORDS_AT <= len(data):
            first, length = struct.unpack_from(">qi", data, position)
            if length <= 0:  # preallocated
                break
            (distance,) = struct.unpack_from(">i", data, position + _LAST_AT)
            end = position + _LENGTH_FROM + length
            found.append(Batch(position, end, first, first + distance))
            position = end
        return found

    def damage(self, number: int, *, mend_checksum: bool) -> Batch:
        """Turn bits of the records of a batch over, as a disk does; with its checksum made right, as a producer does
        whose compression is broken."""
        batch = self.batches()[number]
        data = bytearray(self._segment.read_bytes())
        for position in range(batch.position + _RECORDS_AT + 4, min(batch.end, batch.position + _RECORDS_AT + 40)):
            data[position] ^= 0xFF
        if mend_checksum:
            checked = bytes(data[batch.position + _CRC_FROM : batch.end])
            struct.pack_into(">I", data, batch.position + _CRC_AT, _crc32c(checked))
        self._segment.write_bytes(data)
        return batch

    def cut_off(self, number: int) -> int:
        """Lose everything from a batch on, as an election of a replica that was behind does. Returns the new end."""
        batch = self.batches()[number]
        with self._segment.open("r+b") as file:
            file.truncate(batch.position)
        for file_of_the_old_log in self._segment.parent.iterdir():
            if file_of_the_old_log.suffix in (".index", ".timeindex", ".snapshot"):
                file_of_the_old_log.unlink()
        # Without these it believes what it wrote about the end of the log.
        for name in (".kafka_cleanshutdown", "recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            (self._kafka.data_dir / name).unlink(missing_ok=True)
        return batch.first


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
