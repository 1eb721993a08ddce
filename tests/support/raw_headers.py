"""Records that the client does not let us write: librdkafka itself takes any bytes for the name of a header."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

from tests.support.kafka import Topic

# rd_kafka_vtype_t
_END, _TOPIC, _PARTITION, _VALUE, _HEADER = 0, 1, 3, 4, 9
_PRODUCER = 0


def send_with_header(topic: Topic, value: bytes, name: bytes, *, partition: int = 0) -> None:
    """Write a record with one header of that name and the value `v`."""
    (library,) = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*")
    kafka = ctypes.CDLL(str(library))
    kafka.rd_kafka_conf_new.restype = ctypes.c_void_p
    kafka.rd_kafka_new.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    config = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    servers = topic.broker.bootstrap.encode()
    assert kafka.rd_kafka_conf_set(config, b"bootstrap.servers", servers, error, 512) == 0, error.value
    client = ctypes.c_void_p(kafka.rd_kafka_new(_PRODUCER, config, error, 512))
    assert client.value is not None, error.value
    fields = (_TOPIC, topic.name.encode(), _PARTITION, partition, _VALUE, value, ctypes.c_size_t(len(value)))
    header = (_HEADER, name, b"v", ctypes.c_ssize_t(1))
    assert kafka.rd_kafka_producev(client, *fields, *header, _END) == 0
    assert kafka.rd_kafka_flush(client, 15_000) == 0
    kafka.rd_kafka_destroy(client)
