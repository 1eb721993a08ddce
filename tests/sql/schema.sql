-- The migrated database, read back from its catalogs. Generated: see test_schema.py. Not run by anything.

create table fanfold.dead_letter (
    dead_letter_id bigint not null generated always as identity,
    group_id text collate "C" not null,
    cluster_id text collate "C" not null,
    topic text collate "C" not null,
    topic_id text collate "C" not null,
    partition integer not null,
    record_offset bigint not null,
    thread_id text collate "C",
    fan_out_id text collate "C",
    task_id text collate "C",
    code text not null,
    error text not null,
    key bytea,
    value bytea,
    headers bytea,
    created_at timestamp with time zone not null default now(),
    resolved_at timestamp with time zone,
    resolution text,
    constraint dead_letter_check CHECK (((resolved_at IS NULL) = (resolution IS NULL))),
    constraint dead_letter_group_id_cluster_id_topic_id_partition_record_o_key UNIQUE (group_id, cluster_id, topic_id, partition, record_offset),
    constraint dead_letter_pkey PRIMARY KEY (dead_letter_id),
    constraint dead_letter_resolution_check CHECK ((resolution = ANY (ARRAY['redriven'::text, 'dropped'::text])))
);
create index dead_letter_created on fanfold.dead_letter using btree (created_at);
create index dead_letter_task on fanfold.dead_letter using btree (fan_out_id, task_id);

create table fanfold.deadline (
    fan_out_id text collate "C" not null,
    due_at timestamp with time zone not null,
    constraint deadline_pkey PRIMARY KEY (fan_out_id)
);
create index deadline_due on fanfold.deadline using btree (due_at);

create table fanfold.fan_out (
    fan_out_id text collate "C" not null,
    thread_id text collate "C" not null,
    size integer not null,
    remaining integer not null,
    failed integer not null default 0,
    run integer not null default 1,
    base jsonb not null,
    fold text collate "C",
    quorum integer,
    max_failures integer,
    deadline_ms bigint,
    on_deadline text collate "C",
    topic text collate "C",
    created_at timestamp with time zone not null default now(),
    completed_at timestamp with time zone,
    folded_at timestamp with time zone,
    cancelled_at timestamp with time zone,
    cancelled_by text collate "C",
    constraint fan_out_cancelled_by_check CHECK ((cancelled_by = ANY (ARRAY['caller'::text, 'failures'::text, 'deadline'::text]))),
    constraint fan_out_check CHECK (((remaining >= 0) AND (remaining <= size))),
    constraint fan_out_check1 CHECK (((failed >= 0) AND (failed <= size))),
    constraint fan_out_check2 CHECK (((quorum >= 1) AND (quorum <= size))),
    constraint fan_out_check3 CHECK (((cancelled_at IS NULL) = (cancelled_by IS NULL))),
    constraint fan_out_check4 CHECK (((size > 0) OR (cancelled_at IS NOT NULL))),
    constraint fan_out_max_failures_check CHECK ((max_failures >= 0)),
    constraint fan_out_on_deadline_check CHECK ((on_deadline = 'fold'::text)),
    constraint fan_out_pkey PRIMARY KEY (fan_out_id),
    constraint fan_out_size_check CHECK (((size >= 0) AND (size <= 100000)))
) with (fillfactor=50);
create index fan_out_created on fanfold.fan_out using btree (created_at);
create index fan_out_thread on fanfold.fan_out using btree (thread_id);

create unlogged table fanfold.life (
    only_row boolean not null default true,
    life_id uuid not null default gen_random_uuid(),
    constraint life_only_row_check CHECK (only_row),
    constraint life_pkey PRIMARY KEY (only_row)
);

create table fanfold.migration (
    kind text not null,
    name text not null,
    sha256 text not null,
    release text not null,
    applied_at timestamp with time zone not null default now(),
    constraint migration_pkey PRIMARY KEY (kind, name)
);

create table fanfold.outbox (
    outbox_id bigint not null generated always as identity,
    due_at timestamp with time zone not null default now(),
    topic text collate "C" not null,
    key bytea,
    value bytea,
    headers bytea,
    fan_out_id text collate "C",
    run integer,
    created_at timestamp with time zone not null default now(),
    constraint outbox_check CHECK (((value IS NULL) = (fan_out_id IS NOT NULL))),
    constraint outbox_pkey PRIMARY KEY (outbox_id)
);
create index outbox_due on fanfold.outbox using btree (due_at, outbox_id);

create table fanfold.partition_progress (
    progress_id bigint not null,
    group_id text collate "C" not null,
    cluster_id text collate "C" not null,
    topic text collate "C" not null,
    topic_id text collate "C" not null,
    partition integer not null,
    epoch bigint not null default 0,
    owner uuid,
    timeline text collate "C" not null default ''::text,
    next_offset bigint,
    islands int8multirange not null default '{}'::int8multirange  -- lz4, or external without it,
    commit_seq bigint not null default 0,
    claimed_at timestamp with time zone,
    seen_at timestamp with time zone,
    stopped text collate "C",
    stopped_because text,
    constraint partition_progress_check CHECK (((stopped IS NULL) = (stopped_because IS NULL))),
    constraint partition_progress_group_id_cluster_id_topic_id_partition_key UNIQUE (group_id, cluster_id, topic_id, partition),
    constraint partition_progress_partition_check CHECK ((partition >= 0)),
    constraint partition_progress_pkey PRIMARY KEY (progress_id),
    constraint partition_progress_stopped_check CHECK ((stopped = ANY (ARRAY['gone'::text, 'unreadable'::text])))
) with (fillfactor=10);
create index partition_progress_topic on fanfold.partition_progress using btree (topic, partition);

create table fanfold.result (
    thread_id text collate "C" not null,
    task_id text collate "C" not null,
    fan_out_id text collate "C" not null,
    index integer not null,
    run integer not null,
    status text collate "C" not null,
    arg_hash bigint not null,
    payload bytea  -- lz4, or external without it,
    committed_at timestamp with time zone not null default now(),
    constraint result_index_check CHECK ((index >= '-1'::integer)),
    constraint result_pkey PRIMARY KEY (thread_id, task_id),
    constraint result_run_check CHECK ((run >= 1)),
    constraint result_status_check CHECK ((status = ANY (ARRAY['done'::text, 'failed'::text, 'pending'::text])))
) with (toast_tuple_target=8160);
create unique index result_index on fanfold.result using btree (fan_out_id, index);

create table fanfold.thread (
    thread_id text collate "C" not null,
    clock jsonb not null default '{}'::jsonb,
    created_at timestamp with time zone not null default now(),
    constraint thread_pkey PRIMARY KEY (thread_id)
);

create function fanfold.ack_outbox(
    p_outbox_id bigint[])
returns void
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.admit_results(
    p_fan_out_id text[],
    p_fan_thread_id text[],
    p_fan integer[],
    p_task_id text[],
    p_index integer[],
    p_run integer[],
    p_failed boolean[])
returns boolean[]
language sql stable security definer
-- search_path=pg_catalog, pg_temp; internal

create function fanfold.advance_clocks(
    p_thread_id text[],
    p_base jsonb[],
    p_state "char"[])
returns "char"[]
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; internal

create function fanfold.advance_thread(
    p_thread_id text,
    p_clock jsonb)
returns jsonb
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.audit_fan_outs(
    p_fan_out_ids text[])
returns TABLE(fan_out_id text, thread_id text, size integer, remaining integer, failed integer, run integer, base jsonb, fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text, topic text, complete boolean, ended_by text, done integer, failed_results integer, pending integer, misplaced integer, indexes text, fold_run integer, folds_queued integer)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_generic_plan; for the worker

create function fanfold.audit_outbox(
    p_topic text,
    p_key bytea[],
    p_text text[])
returns boolean[]
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.audit_tasks(
    p_cluster_id text,
    p_topic_id text,
    p_groups text[],
    p_partition integer[],
    p_offset bigint[],
    p_thread_id text[],
    p_fan_out_id text[],
    p_task_id text[],
    p_index integer[],
    p_arg_hash bigint[])
returns TABLE(status text, run integer, matches boolean, committed_at timestamp with time zone, holder text, letter_sha256 bytea[], explained boolean)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_generic_plan; for the worker

create function fanfold.begin_group(
    p_group_id text,
    p_cluster_id text,
    p_topic text,
    p_topic_id text,
    p_next_offset bigint[])
returns void
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.begin_life(
)
returns boolean
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.cancel_fan_out(
    p_fan_out_id text,
    p_thread_id text DEFAULT NULL::text)
returns text
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.cancel_thread(
    p_thread_id text,
    OUT clock jsonb,
    OUT fan_out_ids text[])
returns record
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.check_tasks(
    p_fan_out_id text[],
    p_fan_thread_id text[],
    p_fan_base jsonb[],
    p_fan integer[],
    p_task_id text[],
    p_index integer[],
    p_run integer[],
    p_arg_hash bigint[])
returns text[]
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_generic_plan; enable_seqscan=off; for the worker

create function fanfold.claim_outbox(
    p_limit integer,
    p_lease_ms integer)
returns TABLE(outbox_id bigint, topic text, key bytea, value bytea, headers bytea, fan_out_id text, run integer, thread_id text, size integer, base jsonb, fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text)
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_custom_plan; for the worker

create function fanfold.claim_partition(
    p_group_id text,
    p_cluster_id text,
    p_topic text,
    p_topic_id text,
    p_partition integer,
    p_owner uuid,
    OUT progress_id bigint,
    OUT epoch bigint,
    OUT next_offset bigint,
    OUT islands text,
    OUT commit_seq bigint,
    OUT previous_topic_id text,
    OUT stopped_because text)
returns record
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.clock_makes_stale(
    p_clock jsonb,
    p_base jsonb)
returns boolean
language sql immutable
-- no settings; internal

create function fanfold.commit_result(
    p_thread_id text,
    p_fan_out_id text,
    p_size integer,
    p_task_id text,
    p_index integer,
    p_payload bytea,
    p_base jsonb DEFAULT '{}'::jsonb,
    p_fold text DEFAULT NULL::text,
    p_quorum integer DEFAULT NULL::integer,
    p_deadline_ms bigint DEFAULT NULL::bigint,
    p_topic text DEFAULT NULL::text,
    p_run integer DEFAULT 1,
    p_failed boolean DEFAULT false,
    p_arg_hash bigint DEFAULT 0,
    p_max_failures integer DEFAULT NULL::integer,
    p_on_deadline text DEFAULT NULL::text,
    OUT outcome text,
    OUT completed boolean)
returns record
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.commit_results(
    p_owner uuid,
    p_progress_id bigint[],
    p_epoch bigint[],
    p_commit_seq bigint[],
    p_next_offset bigint[],
    p_islands text[],
    p_fan_out_id text[],
    p_fan_thread_id text[],
    p_fan_size integer[],
    p_fan_base jsonb[],
    p_fan_fold text[],
    p_fan_quorum integer[],
    p_fan_max_failures integer[],
    p_fan_deadline_ms bigint[],
    p_fan_on_deadline text[],
    p_fan_topic text[],
    p_fan integer[],
    p_task_id text[],
    p_index integer[],
    p_run integer[],
    p_failed boolean[],
    p_arg_hash bigint[],
    p_payload bytea[],
    p_dead_progress_id bigint[],
    p_dead_offset bigint[],
    p_dead_task_id text[],
    p_dead_thread_id text[],
    p_dead_fan_out_id text[],
    p_dead_code text[],
    p_dead_error text[],
    p_dead_key bytea[],
    p_dead_value bytea[],
    p_dead_headers bytea[],
    p_out_result integer[],
    p_out_topic text[],
    p_out_key bytea[],
    p_out_value bytea[],
    p_out_headers bytea[],
    p_out_delay_ms integer[],
    p_lease_ms integer,
    p_wait_ms integer DEFAULT NULL::integer,
    p_spent_outbox_id bigint[] DEFAULT '{}'::bigint[],
    OUT outcomes text[],
    OUT completed_fan_out_ids text[],
    OUT completed_runs integer[],
    OUT completed_outbox_ids bigint[],
    OUT outbox_ids bigint[],
    OUT commit_seqs bigint[])
returns record
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_generic_plan; enable_seqscan=off; for the worker

create procedure fanfold.commit_results_early(
    IN uuid,
    IN bigint[],
    IN bigint[],
    IN bigint[],
    IN bigint[],
    IN text[],
    IN text[],
    IN text[],
    IN integer[],
    IN jsonb[],
    IN text[],
    IN integer[],
    IN integer[],
    IN bigint[],
    IN text[],
    IN text[],
    IN integer[],
    IN text[],
    IN integer[],
    IN integer[],
    IN boolean[],
    IN bigint[],
    IN bytea[],
    IN bigint[],
    IN bigint[],
    IN text[],
    IN text[],
    IN text[],
    IN text[],
    IN text[],
    IN bytea[],
    IN bytea[],
    IN bytea[],
    IN integer[],
    IN text[],
    IN bytea[],
    IN bytea[],
    IN bytea[],
    IN integer[],
    IN integer,
    IN integer,
    IN bigint[],
    OUT outcomes text[],
    OUT completed_fan_out_ids text[],
    OUT completed_runs integer[],
    OUT completed_outbox_ids bigint[],
    OUT outbox_ids bigint[],
    OUT commit_seqs bigint[])
language plpgsql volatile
-- no settings; for the worker

create function fanfold.count_dead_letters(
    p_ids bigint[],
    p_topic text,
    p_group_id text,
    p_thread_id text,
    p_fan_out_id text,
    p_task_id text,
    p_codes text[],
    p_since timestamp with time zone,
    p_until timestamp with time zone,
    p_unresolved boolean)
returns TABLE(code text, letters bigint, newest_id bigint)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_custom_plan; for the worker

create function fanfold.enqueue(
    p_topic text[],
    p_key bytea[],
    p_value bytea[],
    p_headers bytea[],
    p_delay_ms integer[])
returns void
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.existing_fan_outs(
    p_fan_out_ids text[])
returns text[]
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.expire_fan_outs(
    p_limit integer)
returns TABLE(fan_out_id text, folds boolean)
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.judge_dead_letters(
    p_ids bigint[])
returns TABLE(dead_letter_id bigint, resolution text, newer_id bigint, ended_by text, fan_out_run integer, complete boolean, refused integer, status text, run integer, index integer, arg_hash bigint)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_custom_plan; for the worker

create function fanfold.list_dead_letters(
    p_ids bigint[],
    p_topic text,
    p_group_id text,
    p_thread_id text,
    p_fan_out_id text,
    p_task_id text,
    p_codes text[],
    p_since timestamp with time zone,
    p_until timestamp with time zone,
    p_unresolved boolean,
    p_with_bytes boolean,
    p_after bigint,
    p_limit integer)
returns TABLE(dead_letter_id bigint, group_id text, cluster_id text, topic text, topic_id text, partition integer, record_offset bigint, thread_id text, fan_out_id text, task_id text, code text, error text, value_bytes integer, key bytea, value bytea, headers bytea, created_at timestamp with time zone, resolved_at timestamp with time zone, resolution text)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_custom_plan; for the worker

create function fanfold.list_fan_outs(
    p_fan_out_ids text[],
    p_thread_id text,
    p_state text,
    p_limit integer)
returns TABLE(fan_out_id text, thread_id text, size integer, remaining integer, failed integer, run integer, base jsonb, fold text, quorum integer, max_failures integer, deadline_ms bigint, on_deadline text, topic text, state text, ended_by text, created_at timestamp with time zone, completed_at timestamp with time zone, folded_at timestamp with time zone)
language plpgsql stable security definer
-- search_path=pg_catalog, pg_temp; plan_cache_mode=force_custom_plan; for the worker

create function fanfold.list_partitions(
    p_group_id text,
    p_topic text)
returns TABLE(progress_id bigint, group_id text, cluster_id text, topic text, topic_id text, partition integer, epoch bigint, owner uuid, next_offset bigint, islands text, commit_seq bigint, claimed_at timestamp with time zone, seen_at timestamp with time zone, idle_seconds double precision, stopped text, stopped_because text)
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.list_topic_fan_outs(
    p_topic text,
    p_thread_id text,
    p_after text,
    p_limit integer)
returns SETOF text
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.lock_dead_letters(
    p_ids bigint[])
returns void
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.match_dead_letters(
    p_ids bigint[],
    p_topic text,
    p_group_id text,
    p_thread_id text,
    p_fan_out_id text,
    p_task_id text,
    p_codes text[],
    p_since timestamp with time zone,
    p_until timestamp with time zone,
    p_unresolved boolean)
returns SETOF fanfold.dead_letter
language sql stable
-- no settings; internal

create function fanfold.next_outbox_id(
)
returns bigint
language sql volatile
-- no settings; internal

create function fanfold.outbox_stats(
    OUT waiting bigint,
    OUT oldest_due_seconds double precision)
returns record
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.progress_key(
    p_group_id text,
    p_cluster_id text,
    p_topic_id text,
    p_partition integer)
returns bigint
language sql immutable
-- no settings; internal

create function fanfold.prune(
    p_before timestamp with time zone,
    p_limit integer,
    OUT fan_outs bigint,
    OUT results bigint,
    OUT threads bigint,
    OUT dead_letters bigint)
returns record
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.read_results(
    p_fan_out_id text,
    p_after integer,
    p_limit integer)
returns TABLE(index integer, task_id text, run integer, status text, payload bytea, committed_at timestamp with time zone)
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.read_thread(
    p_thread_id text)
returns TABLE(thread_id text, clock jsonb, created_at timestamp with time zone)
language sql stable security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.release_partitions(
    p_owner uuid,
    p_progress_id bigint[],
    p_epoch bigint[])
returns void
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.renew_outbox(
    p_outbox_id bigint[],
    p_lease_ms integer)
returns void
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.renew_partitions(
    p_owner uuid,
    p_progress_id bigint[],
    p_epoch bigint[],
    p_commit_seq bigint[] DEFAULT NULL::bigint[])
returns TABLE(progress_id bigint, vacant boolean)
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.reopen_fan_out(
    p_fan_out_id text,
    p_task_ids text[])
returns integer
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.reopen_fold(
    p_fan_out_id text)
returns integer
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.reset_partition(
    p_group_id text,
    p_cluster_id text,
    p_topic text,
    p_topic_id text,
    p_partition integer,
    p_epoch bigint,
    p_next_offset bigint)
returns boolean
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.resolve_dead_letters(
    p_ids bigint[],
    p_resolution text)
returns bigint[]
language sql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.settle_results(
    p_fan_out_id text[],
    p_fan_thread_id text[],
    p_fan_size integer[],
    p_state "char"[],
    p_fan integer[],
    p_task_id text[],
    p_index integer[],
    p_run integer[],
    p_failed boolean[],
    p_arg_hash bigint[],
    p_payload bytea[],
    p_admit boolean[],
    p_new_thread_id text[],
    p_new_task_id text[],
    OUT outcomes text[],
    OUT count_fan_out_ids text[],
    OUT count_new integer[],
    OUT count_failed integer[])
returns record
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; internal

create function fanfold.stop_partition(
    p_owner uuid,
    p_progress_id bigint,
    p_epoch bigint,
    p_stopped text,
    p_because text)
returns boolean
language plpgsql volatile security definer
-- search_path=pg_catalog, pg_temp; for the worker

create function fanfold.timeline(
)
returns text
language sql stable
-- no settings; internal
