"""/live, /ready and /metrics over plain HTTP, from the standard library: three paths need no framework."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Check = Callable[[], str | None]
CLIENT_TIMEOUT_S = 10.0
"""A connection on which nothing is asked is closed after this."""
CLOSE_POLL_S = 0.1


class HealthServer:
    """Serves until closed, on a thread of its own, so that a busy event loop is seen and not hidden.

    Args:
        port: 0: any free one; `self.port` says which.
        live: None if the process works, else why not (then a supervisor restarts it).
        ready: None if it can take work, else why not (it is waited for, not restarted).

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, *, live: Check, ready: Check) -> None:
        checks = {"/live": live, "/ready": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif path in checks:
                    why_not = _asked(checks[path])
                    text = (why_not or "ok") + "\n"
                    self._answer(200 if why_not is None else 503, text.encode(), "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"try /live, /ready or /metrics\n", "text/plain; charset=utf-8")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass  # a probe every second is no event

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(CLOSE_POLL_S,), name="fanfold-health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _asked(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        return f"the check itself failed: {type(error).__name__}: {error}"
