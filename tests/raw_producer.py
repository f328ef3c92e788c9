"""A record that confluent_kafka cannot produce: librdkafka, which it has loaded, takes a header's name as bytes.

C varargs with tags (`rdkafka.h`, `rd_kafka_vtype_t`): TOPIC 1, VALUE 4, KEY 5, MSGFLAGS 7, HEADER 9, END 0.
"""

from __future__ import annotations

import ctypes

from confluent_kafka import cimpl

PRODUCER = 0
COPY = 2
ERROR_BYTES = 512

_library = ctypes.CDLL(cimpl.__file__)
_library.rd_kafka_conf_new.restype = _library.rd_kafka_new.restype = ctypes.c_void_p
_library.rd_kafka_producev.argtypes = [ctypes.c_void_p]  # the others are varargs, which some machines pass otherwise


def produce_with_header(bootstrap: str, topic: str, value: bytes, key: bytes, *, name: bytes, content: bytes) -> None:
    """Produce a record with one header and wait until it is stored."""
    config, error = ctypes.c_void_p(_library.rd_kafka_conf_new()), ctypes.create_string_buffer(ERROR_BYTES)
    _library.rd_kafka_conf_set(config, b"bootstrap.servers", bootstrap.encode(), error, ERROR_BYTES)
    producer = ctypes.c_void_p(_library.rd_kafka_new(PRODUCER, config, error, ERROR_BYTES))
    assert producer.value, error.value
    tagged = [
        *(1, topic.encode()),
        *(4, value, ctypes.c_size_t(len(value))),
        *(5, key, ctypes.c_size_t(len(key))),
        *(7, COPY),
        *(9, name, content, ctypes.c_ssize_t(len(content))),
    ]
    assert _library.rd_kafka_producev(producer, *tagged, 0) == 0
    assert _library.rd_kafka_flush(producer, 30_000) == 0
    _library.rd_kafka_destroy(producer)
