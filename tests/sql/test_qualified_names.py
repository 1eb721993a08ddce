"""No SQL of ours can be led to somebody else's table, function or operator by a search path.

Read from the files: every table is qualified; functions are qualified or, where the search path is pinned to pg_catalog
with the temporary schema last, built in. What that pin does for operators too is tested in test_role_attacks.py.
"""

from __future__ import annotations

from importlib import resources

import psycopg
import pytest

from fanfold_sql.migrate import Script, scripts
from tests.sql.names_in import calls, relations
from tests.sql.test_roles import UNPINNED
from tests.support.database import Server

_PIN = "set search_path = pg_catalog, pg_temp"
_PROCEDURES = [script for script in scripts() if script.kind == "procedure"]
_ALL = [script.name for script in scripts()]


def _text(name: str) -> str:
    return next(script.text for script in scripts() if script.name == name)


@pytest.fixture(scope="module")
def built_in(postgres_server: Server) -> set[str]:
    with psycopg.connect(postgres_server.dsn) as connection:
        rows = connection.execute("select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace")
        return {row[0] for row in rows}


@pytest.mark.parametrize("script", [pytest.param(script, id=script.name) for script in _PROCEDURES])
def test_a_procedure_calls_only_what_is_qualified_or_built_in(script: Script, built_in: set[str]) -> None:
    named = calls(script.text)
    assert f"fanfold.{script.name}" in named
    unqualified = {name for name in named if "." not in name}
    if script.name in UNPINNED:
        assert unqualified == set()
    else:
        assert _PIN in script.text
        assert unqualified - built_in == set()
    assert {name.partition(".")[0] for name in named - unqualified} <= {"fanfold", "pg_catalog"}


@pytest.mark.parametrize("name", _ALL)
def test_every_table_is_qualified(name: str) -> None:
    assert {relation for relation in relations(_text(name)) if not relation.startswith("fanfold.")} == set()


@pytest.mark.parametrize("name", ["roles_before.sql", "roles_after.sql"])
def test_the_scripts_that_a_superuser_may_run_call_only_what_is_qualified(name: str) -> None:
    text = resources.files("fanfold_sql").joinpath(name).read_text(encoding="utf-8")
    assert {call for call in calls(text) if "." not in call} == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select lower(x) from fanfold.a", {"lower"}),
        ("select coalesce(x, '') -- lower(x)", set()),
        ("select 'lower(x)'", set()),
        ("from unnest(p) with ordinality as r (a, b)", {"unnest"}),
        ("x = any (p) and (y or z)", set()),
        ("perform public.f(1)", {"public.f"}),
    ],
)  # fmt: skip
def test_a_call_is_seen(text: str, found: set[str]) -> None:
    assert calls(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select x from a join b on true left join fanfold.c c on true", {"a", "b", "fanfold.c"}),
        ("insert into a (x) select 1 on conflict (x) do update set x = 2", {"a"}),
        ("delete from a; update b set x = 1", {"a", "b"}),
        ("with a as (select 1) select x from a where x is distinct from y for update skip locked", set()),
        ("select * from unnest(p) u", set()),
    ],
)  # fmt: skip
def test_a_table_is_seen(text: str, found: set[str]) -> None:
    assert relations(text) == found
