"""The proxy does to bytes what it says, to those it says, and counts what it did."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from fanfold_consumer.devstack import free_port
from fanfold_consumer.devstack.ports import LOOPBACK
from tests.fault.chaos.links import Fault, Link
from tests.support.wait import eventually

_TIMEOUT_S = 5.0
_SILENCE_S = 0.3


class Server(socketserver.ThreadingTCPServer):
    """Replies to each chunk with the same bytes after `re: `, and remembers what it was sent."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.received = bytearray()
        super().__init__((LOOPBACK, 0), _Handler)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server_address[:2]
        return str(host), int(port)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        try:
            while data := self.request.recv(65_536):
                self.server.received += data
                self.request.sendall(b"re: " + data)
        except OSError:
            return


class Client(socket.socket):
    """Of a link."""

    def ask(self, data: bytes) -> bytes:
        """What comes back for it: nothing if the connection ends."""
        try:
            self.sendall(data)
            return self.recv(65_536)
        except ConnectionError:
            return b""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def link(server: Server) -> Iterator[Link]:
    with Link(free_port(), lambda: server.address, random.Random(1)) as link:
        yield link


@pytest.fixture
def client(link: Link) -> Iterator[Client]:
    with _connected(link) as client:
        yield client


def _connected(link: Link) -> Client:
    client = Client(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    client.connect((LOOPBACK, link.port))
    return client


def test_without_a_fault_bytes_pass_as_they_are(client: Client, link: Link) -> None:
    assert client.ask(b"one") == b"re: one"
    assert client.ask(b"two") == b"re: two"
    assert not link.hits


def test_cut_before_a_request_the_server_never_hears_of_it(client: Client, link: Link, server: Server) -> None:
    with link.during(Fault("cut_before_request")):
        assert client.ask(b"one") == b""
    assert not server.received
    assert link.hits == {"cut_before_request": 1}


def test_cut_after_a_request_the_server_has_it_and_the_client_does_not_know(
    client: Client, link: Link, server: Server
) -> None:
    with link.during(Fault("cut_after_request")):
        assert client.ask(b"one") == b""
    assert server.received == b"one"
    assert link.hits == {"cut_after_request": 1}


def test_cut_in_the_middle_of_a_reply_the_client_gets_the_beginning_of_it(client: Client, link: Link) -> None:
    with link.during(Fault("cut_mid_reply")):
        found = client.ask(b"one")
        assert found
        assert len(found) < len(b"re: one")
        assert b"re: one".startswith(found)
        assert client.recv(100) == b""


def test_only_requests_with_the_marker_are_cut(client: Client, link: Link) -> None:
    with link.during(Fault("cut_after_request", marker=b"commit")):
        assert client.ask(b"select") == b"re: select"
        assert client.ask(b"call commit()") == b""


def test_a_chance_of_nothing_cuts_nothing(client: Client, link: Link) -> None:
    with link.during(Fault("cut_before_request", chance=0.0)):
        assert client.ask(b"one") == b"re: one"


def test_a_delay_holds_up_both_directions(client: Client, link: Link) -> None:
    with link.during(Fault("delay", delay_s=0.1)):
        began = time.monotonic()
        assert client.ask(b"one") == b"re: one"
        assert time.monotonic() - began >= 0.2
    assert link.hits == {"delay": 2}


def test_what_vanishes_on_the_way_up_never_arrives_and_the_connection_is_reset_afterwards(
    client: Client, link: Link, server: Server
) -> None:
    with link.during(Fault("one_way_up")):
        client.sendall(b"one")
        eventually(lambda: link.hits["one_way_up"] == 1)
    assert client.ask(b"two") == b""
    assert not server.received


def test_what_vanishes_on_the_way_down_was_heard_by_the_server(client: Client, link: Link, server: Server) -> None:
    with link.during(Fault("one_way_down")):
        client.sendall(b"one")
        eventually(lambda: link.hits["one_way_down"] == 1)
        assert server.received == b"one"
        client.settimeout(_SILENCE_S)
        with pytest.raises(TimeoutError):
            client.recv(100)


def test_while_connections_are_refused_those_that_are_there_go_on(client: Client, link: Link) -> None:
    assert client.ask(b"one") == b"re: one"
    with link.during(Fault("refuse")):
        with _connected(link) as second:
            assert second.ask(b"two") == b""
        assert client.ask(b"three") == b"re: three"
    with _connected(link) as third:
        assert third.ask(b"four") == b"re: four"
    assert link.hits == {"refuse": 1}


def test_cutting_all_resets_every_connection_and_no_later_one(client: Client, link: Link) -> None:
    assert client.ask(b"one") == b"re: one"
    assert link.cut_all() == 1
    assert client.ask(b"two") == b""
    with _connected(link) as second:
        assert second.ask(b"three") == b"re: three"


def test_two_faults_at_once_are_both_there_and_end_one_by_one(client: Client, link: Link) -> None:
    with link.during(Fault("delay", delay_s=0.1)):
        with link.during(Fault("cut_before_request", marker=b"cut")):
            assert client.ask(b"cut") == b""
        with _connected(link) as second:
            assert second.ask(b"cut") == b"re: cut"
    assert link.hits == {"delay": 3, "cut_before_request": 1}


def test_a_server_that_is_away_ends_connections_and_a_target_that_moves_is_followed(server: Server) -> None:
    targets = [(LOOPBACK, free_port()), server.address]
    with Link(free_port(), lambda: targets[0], random.Random(1)) as moving:
        with _connected(moving) as client:
            assert client.ask(b"one") == b""
        targets.pop(0)
        with _connected(moving) as client:
            assert client.ask(b"two") == b"re: two"
