"""Sessions that run the instrumented procedures and stop at every breakpoint until they are let through.

libpq directly, because one thread watches all sessions at once. A session says by a notice where it stopped.
"""

from __future__ import annotations

from enum import Enum

from psycopg import pq
from psycopg.conninfo import make_conninfo

# A gate is an advisory lock that the driver holds while it is shut. It has two keys of 32 bits, so it cannot be a
# thread's, which has one of 64. A session has two gates and meets them in turns, so that the next one is shut long
# before it gets there; whose turn it is says a sequence, which a rollback to a savepoint does not turn back. Without a
# number (while a scenario is prepared) nobody is stopped.
SESSIONS_MAX = 8
INSTALL = f"""
create schema stepping;
{"".join(f"create sequence stepping.turns_{number};" for number in range(1, SESSIONS_MAX + 1))}
grant usage on all sequences in schema stepping to public;
create function stepping.stop(p_label text) returns boolean language plpgsql as $$
declare
    v_session integer := current_setting('stepping.session', true);
    v_gate integer;
begin
    if v_session is not null then
        v_gate := nextval('stepping.turns_' || v_session) % 2;
        raise notice using message = p_label, detail = v_gate;
        perform pg_advisory_lock(v_session, v_gate);
        perform pg_advisory_unlock(v_session, v_gate);
    end if;
    return false;
end $$;
grant usage on schema stepping to public;
"""

# Durability is not what is tested. The plans are those of large tables: an update of several rows locks them in the
# order in which an index finds them, not in that of a scan. Ruled out like this, a plan looks costly enough to compile.
_SETTINGS = (
    "-c synchronous_commit=off -c deadlock_timeout=5ms -c statement_timeout=60s"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
)
_OK = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Failed(Exception):
    """The server refused a statement."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class Connection:
    """One connection without adaptation: statements in, the text of the first column of the first row out."""

    def __init__(self, dsn: str, options: str = "") -> None:
        self.pg = pq.PGconn.connect(make_conninfo(dsn, options=f"{_SETTINGS} {options}").encode())
        if self.pg.status != pq.ConnStatus.OK:
            raise ConnectionError(f"cannot connect: {self.pg.error_message.decode()}")
        self.pg.notice_handler = self._on_notice
        self.pid = self.pg.backend_pid

    def run(self, statements: str) -> str | None:
        """Run statements to the end. Returns what the last one selected.

        Raises:
            Failed: one of them failed; without an explicit transaction, none took effect.
        """
        return text_of(self.pg.exec_(statements.encode()))

    def close(self) -> None:
        self.pg.finish()

    def _on_notice(self, notice: pq.abc.PGresult) -> None:
        """What the server says besides results is not for us."""


def text_of(result: pq.abc.PGresult) -> str | None:
    if result.status not in _OK:
        state = result.error_field(pq.DiagnosticField.SQLSTATE) or b"?????"
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        raise Failed(state.decode(), message.decode())
    value = result.get_value(0, 0) if result.ntuples else None
    return None if value is None else value.decode()


class At(Enum):
    """Where a session stands. It can go on in the first three."""

    REST = "between transactions"
    GATE = "before a statement"
    END = "before the end of its transaction"
    MOVING = "moving, or waiting for a lock"


class Session(Connection):
    """A session that stops at breakpoints. `label`: the statement it stands before."""

    def __init__(self, dsn: str, number: int, control: Connection) -> None:
        super().__init__(dsn, f"-c stepping.session={number}")
        self.number = number
        self.at = At.REST
        self.label = ""
        self.reply: str | None = None
        self.failure: Failed | None = None
        self._control = control
        self._gate = 0
        self._ajar: int | None = None
        control.run(f"select pg_advisory_lock({number}, 0), pg_advisory_lock({number}, 1)")

    def start(self, isolation: str, statement: str) -> None:
        """Begin a transaction and move to its first breakpoint, or through it if it has none."""
        self._shut()
        self.label, self.reply, self.failure = "", None, None
        self._send(f"begin isolation level {isolation}; {statement}")

    def go_on(self) -> None:
        """Run the statement this session stands before, up to the next breakpoint or the end of the call."""
        self._shut(and_open=self._gate)
        self._ajar = self._gate
        self.at = At.MOVING

    def end(self, word: str) -> None:
        """Commit or roll back."""
        self._send(word)

    def receive(self) -> None:
        """Take what the server has sent, without waiting for more."""
        self.pg.consume_input()
        while self.at is At.MOVING and not self.pg.is_busy():
            self._take()

    def give_up(self) -> None:
        """Roll back after a failure, be it one that was asked for by a cancel."""
        while self.pg.get_result() is not None:
            pass
        if self.pg.transaction_status != pq.TransactionStatus.IDLE:
            self.run("rollback")
        self.at, self.failure = At.REST, None

    def _take(self) -> None:
        """Take one result, or the end of them all."""
        result = self.pg.get_result()
        if result is None:
            ended = self.pg.transaction_status == pq.TransactionStatus.IDLE
            self.at = At.REST if ended else At.END
            return
        try:
            self.reply = text_of(result) or self.reply
        except Failed as failure:
            self.failure = failure

    def _shut(self, and_open: int | None = None) -> None:
        """Shut the gate it came through last, and open the one it waits at."""
        calls = [] if self._ajar is None else [f"pg_advisory_lock({self.number}, {self._ajar})"]
        calls += [] if and_open is None else [f"pg_advisory_unlock({self.number}, {and_open})"]
        if calls:
            self._control.run("select " + ", ".join(calls))
        self._ajar = None

    def _send(self, statements: str) -> None:
        self.at = At.MOVING
        self.pg.send_query(statements.encode())

    def _on_notice(self, notice: pq.abc.PGresult) -> None:
        message = notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        self.label = message.decode()
        self._gate = int(notice.error_field(pq.DiagnosticField.MESSAGE_DETAIL) or b"0")
        self.at = At.GATE
