"""What is in a record, or in the text of a handler's error, is in no line that a member logs and in no metric."""

from __future__ import annotations

import urllib.request

import ormsgpack
from psycopg.conninfo import conninfo_to_dict

from fanfold_producer import Record
from tests.support.kafka import Topic
from tests.support.rig import Rig

# In no id: those are names, and logged.
MARKER = "payload-4711-payload"


def test_payloads_of_everything_that_can_go_wrong_are_in_no_log_and_no_metric(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, log_level="debug", health_port=0)
    port = member.await_event("health.started")["port"]
    sent = [
        Record(topic.name, MARKER.encode(), b"\xc1" + MARKER.encode(), ((MARKER, MARKER.encode()),)),
        Record(topic.name, MARKER.encode(), ormsgpack.packb({"v": 1, MARKER: MARKER}), ()),
        Record(topic.name, MARKER.encode(), ormsgpack.packb({"v": MARKER}), ()),
    ]
    rig.write(sent)
    # Its error is `invalid literal for int() with base 10: '...'`, in every attempt.
    rig.publish(topic, [("slow", {"n": MARKER, "s": 0})])
    # Arguments that are not what the handlers declare.
    rig.publish(topic, [("square", MARKER), ("hold", MARKER)], thread_id="t2")
    # The same tasks again, with another argument.
    first = rig.build(topic, [("slow", {"n": 1, "s": 0, "x": MARKER})], fan_out_id="contradicted", thread_id="t3")
    rig.write(first.records)
    assert rig.handle(first).result(30) == [1]
    again = rig.build(topic, [("slow", {"n": 2, "s": 0, "x": MARKER})], fan_out_id="contradicted", thread_id="t3")
    rig.write(again.records)
    codes = sorted(letter.code for letter in rig.await_dead_letters(7))
    assert codes == ["E_ARG", "E_ARG", "E_CONFLICT", "E_FRAME", "E_HANDLER", "E_SCHEMA", "E_SCHEMA"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    assert "E_CONFLICT" in metrics
    assert MARKER not in metrics
    password = conninfo_to_dict(rig.database.worker_dsn).get("password")
    assert member.stop() == 0
    assert "E_CONFLICT" in member.log()
    assert MARKER not in member.log()
    assert not password or str(password) not in metrics + member.log()
