"""The migrated database as text, from the catalogs: the same on every PostgreSQL from 14 on, and without pg_dump."""

from __future__ import annotations

from typing import Any

import psycopg

_TABLES = """
    select c.oid, c.relname, c.relpersistence = 'u', coalesce(array_to_string(c.reloptions, ', '), '')
    from pg_class c where c.relnamespace = 'fanfold'::regnamespace and c.relkind in ('r', 'p')
    order by c.relname"""

_COLUMNS = """
    select a.attname, format_type(a.atttypid, a.atttypmod),
        case when co.collname <> 'default' then co.collname end,
        a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid),
        -- Which of the two it is depends on what the server was built with.
        a.attcompression = 'l' or a.attstorage = 'e' and t.typstorage = 'x'
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    left join pg_collation co on co.oid = a.attcollation
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
    order by a.attnum"""

# From PostgreSQL 18 on NOT NULL is a constraint too; the columns say it already.
_CONSTRAINTS = """
    select conname, pg_get_constraintdef(oid) from pg_constraint
    where conrelid = %s and contype <> 'n' order by conname"""

_INDEXES = """
    select pg_get_indexdef(i.indexrelid) from pg_index i
    where i.indrelid = %s and not exists (select from pg_constraint c where c.conindid = i.indexrelid)
    order by 1"""

_FUNCTIONS = """
    select case p.prokind when 'p' then 'procedure' else 'function' end, p.proname, pg_get_function_arguments(p.oid),
        coalesce(E'\nreturns ' || pg_get_function_result(p.oid), ''), l.lanname,
        case p.provolatile when 'v' then 'volatile' when 's' then 'stable' else 'immutable' end,
        p.prosecdef, coalesce(array_to_string(p.proconfig, '; '), ''),
        has_function_privilege('fanfold_worker', p.oid, 'execute')
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'fanfold'::regnamespace
    order by p.proname, 2"""

_OTHERS = """
    select relkind::text, relname from pg_class
    where relnamespace = 'fanfold'::regnamespace and relkind not in ('r', 'p', 'i', 'I', 'S', 't')
    union all select 'trigger', tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'fanfold'::regnamespace and not tgisinternal
    union all select 'type', typname from pg_type
    where typnamespace = 'fanfold'::regnamespace and typtype in ('d', 'e', 'r', 'm')
    order by 1, 2"""


def schema_text(connection: psycopg.Connection[Any]) -> str:
    """Tables, indexes, functions and grants of the schema `fanfold`, in a fixed order."""
    blocks = []
    for oid, name, unlogged, options in connection.execute(_TABLES).fetchall():
        lines = [_column(*row) for row in connection.execute(_COLUMNS, (oid,)).fetchall()]
        lines += [f"constraint {row[0]} {row[1]}" for row in connection.execute(_CONSTRAINTS, (oid,)).fetchall()]
        body = ",\n".join(f"    {line}" for line in lines)
        tail = f" with ({options})" if options else ""
        indexes = "".join(f"\n{row[0].lower()};" for row in connection.execute(_INDEXES, (oid,)).fetchall())
        blocks.append(f"create {'unlogged ' if unlogged else ''}table fanfold.{name} (\n{body}\n){tail};{indexes}")
    for kind, name, arguments, returns, language, volatility, definer, settings, worker in connection.execute(
        _FUNCTIONS
    ).fetchall():
        arguments = ",\n".join(f"    {argument}" for argument in arguments.split(", ")) if arguments else ""
        blocks.append(
            f"create {kind} fanfold.{name}(\n{arguments}){returns}\n"
            f"language {language} {volatility}{' security definer' if definer else ''}\n"
            f"-- {settings or 'no settings'}; {'for the worker' if worker else 'internal'}"
        )
    blocks += [f"-- {kind} {name}" for kind, name in connection.execute(_OTHERS).fetchall()]
    return "\n\n".join(blocks) + "\n"


def _column(
    name: str, kind: str, collation: str | None, not_null: bool, identity: str, default: str | None, fast: bool
) -> str:
    text = f"{name} {kind}"
    if collation:
        text += f' collate "{collation}"'
    if not_null:
        text += " not null"
    if identity:
        text += f" generated {'always' if identity == 'a' else 'by default'} as identity"
    if default is not None:
        text += f" default {default}"
    return text + ("  -- lz4, or external without it" if fast else "")
