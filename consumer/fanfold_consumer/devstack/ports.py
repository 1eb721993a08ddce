"""Free loopback ports that stay free until the server has bound them."""

from __future__ import annotations

import os
import random
import socket
import threading

from fanfold_consumer.devstack.errors import DevStackError

LOOPBACK = "127.0.0.1"

# Below the range from which operating systems take the local port of an outgoing connection (32768 and up on
# Linux, 49152 elsewhere). A port from that range may be taken by any client between our look and the bind.
_PORTS = range(15_000, 32_000)
_TRIES_MAX = 200

_lock = threading.Lock()
_given: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on and that this process has not given out before."""
    # Seeded per process: two test runs on one machine must not walk through the ports in the same order.
    rng = random.Random(os.urandom(8))
    for _ in range(_TRIES_MAX):
        port = rng.choice(_PORTS)
        with _lock:
            if port in _given or not _is_free(port):
                continue
            _given.add(port)
            return port
    raise DevStackError(
        f"no free port on {LOOPBACK} between {_PORTS.start} and {_PORTS.stop - 1} after {_TRIES_MAX} tries. "
        "Stop servers that are no longer needed, or pass a port."
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too, so a port whose last connection lingers in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
