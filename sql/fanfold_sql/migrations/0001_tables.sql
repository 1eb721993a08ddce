-- Tables of the reducer. Nobody but the procedures writes here: the worker role can execute those and nothing else.

create table fanfold.thread (
    thread_id text collate "C" primary key,
    -- The vector clock {branch: counter}. It moves when a newer base arrives, never with a sibling's result.
    clock jsonb not null default '{}',
    created_at timestamptz not null default now()
);

create table fanfold.fan_out (
    fan_out_id text collate "C" primary key,
    thread_id text collate "C" not null,
    -- 0: cancelled before anybody saw one of its tasks, so that its real size is not known.
    size integer not null check (size between 0 and 100000),
    -- size minus the results that are done or failed; counted down, never scanned. The check is the last line of
    -- defence: a second count of one result would break it instead of firing a barrier early.
    remaining integer not null check (remaining between 0 and size),
    failed integer not null default 0 check (failed between 0 and size),
    run integer not null default 1,
    base jsonb not null,
    fold text collate "C",
    quorum integer check (quorum between 1 and size),
    -- More failures than this end it. None: as many as there are.
    max_failures integer check (max_failures >= 0),
    deadline_ms bigint,
    -- What its deadline does: fold what there is; none: it fails.
    on_deadline text collate "C" check (on_deadline = 'fold'),
    -- Where the fold task is published: the topic its tasks came from. None without Kafka.
    topic text collate "C",
    created_at timestamptz not null default now(),
    completed_at timestamptz,
    folded_at timestamptz,
    -- From then on no result and no fold of it is taken. By a caller or its deadline: for good. By too many failures:
    -- until it is reopened.
    cancelled_at timestamptz,
    cancelled_by text collate "C" check (cancelled_by in ('caller', 'failures', 'deadline')),
    check ((cancelled_at is null) = (cancelled_by is null)),
    check (size > 0 or cancelled_at is not null)
) with (fillfactor = 50);
-- None of these columns ever changes, so counting down stays a heap-only update.
create index fan_out_thread on fanfold.fan_out (thread_id);
create index fan_out_created on fanfold.fan_out (created_at);

-- Fan-outs whose deadline is still to be acted on. Apart from fan_out, where an index that forgets those that are
-- complete would end heap-only updates.
create table fanfold.deadline (
    fan_out_id text collate "C" primary key,
    due_at timestamptz not null
);
create index deadline_due on fanfold.deadline (due_at);

create table fanfold.result (
    thread_id text collate "C" not null,
    task_id text collate "C" not null,
    fan_out_id text collate "C" not null,
    index integer not null check (index >= -1),
    run integer not null check (run >= 1),
    status text collate "C" not null check (status in ('done', 'failed', 'pending')),
    -- Fingerprint of (node, arg): the same task_id with another one is a conflict, not a duplicate.
    arg_hash bigint not null,
    payload bytea,
    committed_at timestamptz not null default now(),
    -- Guarantee 1 as a constraint: one row, hence one effect, for a task of a thread.
    primary key (thread_id, task_id)
);
-- Each index of a fan-out counts once, whatever task_ids a producer makes up, so nobody can fire a barrier early.
create unique index result_index on fanfold.result (fan_out_id, index);
-- Payloads are often 1 to 4 KiB: keep those in line, and do not spend the default compressor's time on larger ones.
alter table fanfold.result set (toast_tuple_target = 8160);
do $$
begin
    alter table fanfold.result alter column payload set compression lz4;
exception when feature_not_supported then
    alter table fanfold.result alter column payload set storage external;
end $$;

create table fanfold.partition_progress (
    -- Derived from the key below. A number from a sequence could be given out again after a failover, and a commit for
    -- one partition would then land on another.
    progress_id bigint primary key,
    group_id text collate "C" not null,
    -- Offsets mean nothing outside the topic they were counted in: they are bound to the cluster and the topic's id.
    cluster_id text collate "C" not null,
    topic text collate "C" not null,
    topic_id text collate "C" not null,
    partition integer not null check (partition >= 0),
    epoch bigint not null default 0,
    owner uuid,
    -- On which history of the database it was claimed, and in which life of its server; see timeline.sql.
    timeline text collate "C" not null default '',
    -- The next offset to read; none: nothing was finished yet. Islands are finished offsets above it.
    next_offset bigint,
    islands int8multirange not null default '{}',
    commit_seq bigint not null default 0,
    claimed_at timestamptz,
    seen_at timestamptz,
    -- Why nobody reads on: the log no longer has the next offset (gone), or a batch in it is damaged (unreadable).
    stopped text collate "C" check (stopped in ('gone', 'unreadable')),
    stopped_because text,
    check ((stopped is null) = (stopped_because is null)),
    unique (group_id, cluster_id, topic_id, partition)
) with (fillfactor = 10);
create index partition_progress_topic on fanfold.partition_progress (topic, partition);
-- With thousands of long tasks in flight there are hundreds of islands, written anew in each commit: compressing them
-- takes four times as long as all the rest of that.
alter table fanfold.partition_progress alter column islands set storage external;

-- One row that says which life of the server's memory this is, if anybody uses early lock release. It goes with every
-- recovery from a crash, restore and promotion, as what is not logged does, and stays over a clean restart.
create unlogged table fanfold.life (
    only_row boolean primary key default true check (only_row),
    life_id uuid not null default gen_random_uuid()
);

create table fanfold.outbox (
    outbox_id bigint generated always as identity primary key,
    -- A row is invisible until then: a delay for a retry, a lease while somebody publishes it.
    due_at timestamptz not null default now(),
    topic text collate "C" not null,
    key bytea,
    value bytea,
    headers bytea,
    -- A fold task is not stored but made from its fan-out when it is published.
    fan_out_id text collate "C",
    run integer,
    created_at timestamptz not null default now(),
    check ((value is null) = (fan_out_id is not null))
);
create index outbox_due on fanfold.outbox (due_at, outbox_id);

create table fanfold.dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    group_id text collate "C" not null,
    cluster_id text collate "C" not null,
    topic text collate "C" not null,
    topic_id text collate "C" not null,
    partition integer not null,
    record_offset bigint not null,
    -- Known only when the record could be decoded.
    thread_id text collate "C",
    fan_out_id text collate "C",
    task_id text collate "C",
    code text not null,
    error text not null,
    -- The record as it was, to the byte; headers as a msgpack array of [name, value].
    key bytea,
    value bytea,
    headers bytea,
    created_at timestamptz not null default now(),
    -- What an operator did about it. The row stays until it is pruned, or nothing would say what became of the record.
    resolved_at timestamptz,
    resolution text check (resolution in ('redriven', 'dropped')),
    check ((resolved_at is null) = (resolution is null)),
    -- A commit that is sent again parks nothing twice.
    unique (group_id, cluster_id, topic_id, partition, record_offset)
);
create index dead_letter_created on fanfold.dead_letter (created_at);
create index dead_letter_task on fanfold.dead_letter (fan_out_id, task_id);
