-- commit_results: store finished tasks, their fan-outs' countdown and their partitions' progress, or nothing.
--
-- Steps    1 fence  2 lock  3 clock  4 upsert  5 count down  6 complete  7 progress; DESIGN and ARCHITECTURE say why.
-- Locks    the partitions' rows by progress_id, then one advisory lock per thread by key: sorted, so that two batches
--          cannot deadlock. Both last to the end of the transaction, so call it as a statement of its own.
-- Args     parallel arrays, one group each for partitions, fan-outs, results, dead letters and outbox records:
--            p_commit_seq    the last one this owner saw acknowledged, per partition
--            p_fan           per result: 1-based position of its fan-out in p_fan_out_id
--            p_wait_ms       how long to wait for each thread that others commit to; 0: not at all; null: for ever
--            p_out_result    per outbox record: 1-based position of the result it depends on; 0: written in any case
--            p_out_delay_ms  per outbox record: not before so long from now; 0: it is the caller's to publish
--            p_spent_outbox_id  rows that this call takes out: of folds that ran in place, whose results or next attempts it has
--          p_progress_id may be empty: the store without Kafka. Fan-outs without a result of theirs are opened, no more.
-- Returns  outcomes        one word per result in input order; null when all were applied (the usual case)
--          completed_*     the fan-outs that this call completed, with the outbox row of their fold (null: no fold)
--          commit_seqs     per partition the new one, to be given with its next commit
--          outbox_ids      per outbox record its row, null when its result was not applied
--          New outbox rows without a delay are leased to the caller for p_lease_ms: it publishes and acknowledges them
--          without a claim.
-- Raises   ZF001 fenced    a newer owner holds a partition (detail: progress_ids). Drop its work.
--          ZF002 rewound   the database is behind what it acknowledged, or may be: a partition was claimed on an earlier
--                          timeline or before a crash (detail: progress_ids). Claim again and seek.
--          ZF003 conflict  a result contradicts a stored one (detail: positions of results). Park those, commit the rest.
--          ZF004 isolation not READ COMMITTED: a snapshot older than the lock would miss what committed meanwhile.
--          ZF005 progress  next_offset would go back. A fault of the caller; nothing was stored.
--          ZF006 busy      p_wait_ms is 0 and others are committing to some threads (detail: thread_ids). Commit the rest.
--          55P03           p_wait_ms was not enough. Nothing was stored; a call with 0 says whose thread it is.
--          40001 retry     a cancel under a wrong thread crossed this call. Nothing was stored; the same call again will do.
-- Retry    safe: identical arguments return 'duplicate' and change nothing but commit_seq. Outbox records that depend on
--          no result (copies of dead letters) are written again, as at-least-once delivery allows.
create or replace function fanfold.commit_results(
    p_owner uuid,
    p_progress_id bigint[], p_epoch bigint[], p_commit_seq bigint[], p_next_offset bigint[], p_islands text[],
    p_fan_out_id text[], p_fan_thread_id text[], p_fan_size integer[], p_fan_base jsonb[], p_fan_fold text[],
    p_fan_quorum integer[], p_fan_max_failures integer[], p_fan_deadline_ms bigint[], p_fan_on_deadline text[],
    p_fan_topic text[],
    p_fan integer[], p_task_id text[], p_index integer[], p_run integer[], p_failed boolean[], p_arg_hash bigint[],
    p_payload bytea[],
    p_dead_progress_id bigint[], p_dead_offset bigint[], p_dead_task_id text[], p_dead_thread_id text[],
    p_dead_fan_out_id text[], p_dead_code text[], p_dead_error text[], p_dead_key bytea[], p_dead_value bytea[],
    p_dead_headers bytea[],
    p_out_result integer[], p_out_topic text[], p_out_key bytea[], p_out_value bytea[], p_out_headers bytea[],
    p_out_delay_ms integer[], p_lease_ms integer, p_wait_ms integer default null, p_spent_outbox_id bigint[] default '{}',
    out outcomes text[], out completed_fan_out_ids text[], out completed_runs integer[],
    out completed_outbox_ids bigint[], out outbox_ids bigint[], out commit_seqs bigint[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
-- A plan is made while the tables are small and kept: one that scans them would cost more with every row to come.
set enable_seqscan = off
as $$
declare
    -- State of each fan-out: 'k' known, 'n' new, 's' stale, 'c' cancelled, 'u' known to a fold only, 'x'
    -- contradicts what is stored.
    v_state "char"[];
    v_moves boolean;
    v_opened integer;
    v_limited boolean;
    v_admit boolean[];
    v_stored integer;
    v_new_thread_id text[];
    v_new_task_id text[];
    v_count_fan_out_id text[];
    v_count_new integer[];
    v_count_failed integer[];
    v_bad bigint[];
    v_rewound bigint[];
    v_lock_timeout text;
    v_busy text[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'commit_results needs READ COMMITTED, not %', current_setting('transaction_isolation')
            using errcode = 'ZF004',
            hint = 'Call it outside an explicit transaction, or begin one with isolation level read committed.';
    end if;

    -- 1. Fence. The row lock orders us against claim_partition; a plain read would let a commit and a claim cross.
    if cardinality(p_progress_id) > 0 then
        with held as materialized (
            select p.progress_id, p.epoch, p.owner, p.timeline, p.commit_seq
            from fanfold.partition_progress p
            where p.progress_id = any (p_progress_id)
            order by p.progress_id
            for update)
        select
            -- "is not true", so that a caller without an owner is nobody, not the holder of a partition that has none.
            array_agg(i.progress_id) filter (where h.epoch > i.epoch or h.epoch = i.epoch and (h.owner = p_owner) is not true),
            -- A claim of an earlier timeline is void: what its member was told since (of a duplicate, say) may be lost.
            array_agg(i.progress_id) filter (where h.progress_id is null or h.epoch < i.epoch or h.epoch = i.epoch and h.owner = p_owner and (h.commit_seq < i.commit_seq or h.timeline <> (select fanfold.timeline())))
        into v_bad, v_rewound
        from unnest(p_progress_id, p_epoch, p_commit_seq) as i (progress_id, epoch, commit_seq)
        left join held h on h.progress_id = i.progress_id;
        if v_bad is not null then
            raise exception 'fenced: % of % partitions have a newer owner', cardinality(v_bad), cardinality(p_progress_id)
                using errcode = 'ZF001', detail = to_json(v_bad)::text,
                hint = 'Drop their work: it is done again where they are now.';
        end if;
        if v_rewound is not null then
            raise exception 'rewound: % of % partitions are behind what was acknowledged', cardinality(v_rewound), cardinality(p_progress_id)
                using errcode = 'ZF002', detail = to_json(v_rewound)::text,
                hint = 'Claim them again and seek: the database lost commits, as in a failover.';
        end if;
    end if;

    -- 2. Lock, in a statement of its own: the snapshot of every later statement is taken after the last grant.
    if p_wait_ms = 0 then
        select array_agg(k.thread_id) into v_busy
        from (select distinct t as thread_id from unnest(p_fan_thread_id) t) k
        where not pg_try_advisory_xact_lock(hashtextextended(k.thread_id, 4207));
        if v_busy is not null then
            raise exception 'busy: others are committing to % of the threads', cardinality(v_busy)
                using errcode = 'ZF006', detail = to_json(v_busy)::text,
                hint = 'Commit the other threads, and come again for these.';
        end if;
    else
        if p_wait_ms is not null then
            v_lock_timeout := current_setting('lock_timeout');
            perform set_config('lock_timeout', p_wait_ms::text, true);
        end if;
        perform pg_advisory_xact_lock(k.key)
        from (select distinct hashtextextended(t, 4207) as key from unnest(p_fan_thread_id) t order by 1) k;
        if p_wait_ms is not null then
            perform set_config('lock_timeout', v_lock_timeout, true);
        end if;
    end if;

    -- 3. Clock. One look per fan-out, none per result.
    select
        array_agg(s.state order by s.no),
        bool_or(s.moves and s.state in ('k', 'n')),
        bool_or(s.limited)
    into v_state, v_moves, v_limited
    from (
        select h.no, h.quorum is not null or f.completed_at is not null and f.remaining > 0 as limited, t.clock is null or not t.clock @> h.base as moves, (case
            -- The usual answer needs no call, which would cost more than the rest of this row.
            when t.clock is not null and not t.clock @> h.base and fanfold.clock_makes_stale(t.clock, h.base) then 's'
            when f.fan_out_id is null then 'n'
            when f.cancelled_at is not null then 'c'
            when (f.thread_id, f.size, f.base, f.fold, f.quorum, f.max_failures, f.deadline_ms, f.on_deadline)
                is distinct from (h.thread_id, h.size, h.base, h.fold, h.quorum, h.max_failures, h.deadline_ms, h.on_deadline)
                then 'x'
            else 'k' end)::"char" as state
        from unnest(p_fan_out_id, p_fan_thread_id, p_fan_size, p_fan_base, p_fan_fold, p_fan_quorum, p_fan_max_failures,
            p_fan_deadline_ms, p_fan_on_deadline) with ordinality
            as h (fan_out_id, thread_id, size, base, fold, quorum, max_failures, deadline_ms, on_deadline, no)
        left join fanfold.thread t on t.thread_id = h.thread_id
        left join fanfold.fan_out f on f.fan_out_id = h.fan_out_id) s;
    if 'n' = any (v_state) and 0 > any (p_index) then
        -- A fold of an unknown fan-out is a stale one: it opens nothing (it would be a fan-out nobody published) and
        -- moves no clock.
        select array_agg(case when h.state = 'n' and o.fan is null then 'u' else h.state end order by h.no)
        into v_state
        from unnest(v_state) with ordinality as h (state, no)
        left join (
            select distinct r.fan from unnest(p_fan, p_index) as r (fan, index) where r.index >= 0) o on o.fan = h.no;
    end if;
    if v_moves then
        v_state := fanfold.advance_clocks(p_fan_thread_id, p_fan_base, v_state);
    end if;
    if 'n' = any (v_state) then
        -- Opened by its first result, or ahead of it for the sake of its deadline.
        with opened as (
            insert into fanfold.fan_out (fan_out_id, thread_id, size, remaining, base, fold, quorum, max_failures,
                deadline_ms, on_deadline, topic)
            select h.fan_out_id, h.thread_id, h.size, h.size, h.base, h.fold, h.quorum, h.max_failures, h.deadline_ms,
                h.on_deadline, h.topic
            from unnest(p_fan_out_id, p_fan_thread_id, p_fan_size, p_fan_base, p_fan_fold, p_fan_quorum,
                p_fan_max_failures, p_fan_deadline_ms, p_fan_on_deadline, p_fan_topic, v_state)
                as h (fan_out_id, thread_id, size, base, fold, quorum, max_failures, deadline_ms, on_deadline, topic, state)
            where h.state = 'n'
            on conflict do nothing
            returning fan_out_id, deadline_ms),
        due as (
            -- One of before its fan-out was pruned may still be there. Beyond the year 9999 is never.
            insert into fanfold.deadline (fan_out_id, due_at)
            select o.fan_out_id, to_timestamp(least(o.deadline_ms, 253402300799000) / 1000.0)
            from opened o where o.deadline_ms is not null
            on conflict (fan_out_id) do update set due_at = excluded.due_at)
        select count(*) into v_opened from opened;
        if v_opened < cardinality(array_positions(v_state, 'n')) then
            if exists (
                select from unnest(p_fan_out_id, v_state) as h (fan_out_id, state)
                join fanfold.fan_out f on f.fan_out_id = h.fan_out_id
                where h.state = 'n' and f.cancelled_at is not null) then
                -- By a caller that named another thread, so our lock did not stop it; and our clock has moved already.
                raise exception 'a fan-out of this batch was cancelled under another thread meanwhile'
                    using errcode = '40001', hint = 'Call it again: the results are refused then, and no clock moves.';
            end if;
            -- Opened under this id meanwhile: by an earlier entry of this batch, or under another thread, whose lock is
            -- not ours. Counting into it without comparing would count into somebody else's barrier.
            select array_agg(case
                when h.state = 'n' and (f.thread_id, f.size, f.base, f.fold, f.quorum, f.max_failures, f.deadline_ms,
                    f.on_deadline) is distinct from (h.thread_id, h.size, h.base, h.fold, h.quorum, h.max_failures,
                    h.deadline_ms, h.on_deadline) then 'x'
                else h.state end order by h.no)
            into v_state
            from unnest(p_fan_out_id, p_fan_thread_id, p_fan_size, p_fan_base, p_fan_fold, p_fan_quorum,
                p_fan_max_failures, p_fan_deadline_ms, p_fan_on_deadline, v_state) with ordinality
                as h (fan_out_id, thread_id, size, base, fold, quorum, max_failures, deadline_ms, on_deadline, state, no)
            left join fanfold.fan_out f on f.fan_out_id = h.fan_out_id;
        end if;
    end if;
    if v_limited then
        v_admit := fanfold.admit_results(p_fan_out_id, p_fan_thread_id, p_fan, p_task_id, p_index, p_run, p_failed);
    end if;

    -- 4. Upsert keyed by task_id. This step stores what is new; what is not is settled below.
    begin
        -- Nearly always all of them are, and then a plain insert costs half of one with "on conflict", which looks into
        -- every index twice. Nobody else can insert these rows while we hold their threads' locks.
        insert into fanfold.result (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)
        select p_fan_thread_id[r.fan], r.task_id, p_fan_out_id[r.fan], r.index, r.run,
            case when r.failed then 'failed' else 'done' end, r.arg_hash, r.payload
        from unnest(p_fan, p_task_id, p_index, p_run, p_failed, p_arg_hash, p_payload) with ordinality
            as r (fan, task_id, index, run, failed, arg_hash, payload, no)
        where v_state[r.fan] in ('k', 'n') and r.index >= 0 and r.index < p_fan_size[r.fan]
            and (v_admit is null or v_admit[r.no]);
        get diagnostics v_stored = row_count;
        -- All that it tried is stored: there is no need to ask what was.
        select coalesce(array_agg(p_fan_out_id[c.fan]), '{}'), coalesce(array_agg(c.new), '{}'),
            coalesce(array_agg(c.failed), '{}')
        into v_count_fan_out_id, v_count_new, v_count_failed
        from (
            select r.fan, count(*)::integer as new, (count(*) filter (where r.failed))::integer as failed
            from unnest(p_fan, p_index, p_failed) with ordinality as r (fan, index, failed, no)
            where v_state[r.fan] in ('k', 'n') and r.index >= 0 and r.index < p_fan_size[r.fan]
                and (v_admit is null or v_admit[r.no])
            group by r.fan) c;
    exception when unique_violation then
        with stored as (
            insert into fanfold.result (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)
            select p_fan_thread_id[r.fan], r.task_id, p_fan_out_id[r.fan], r.index, r.run,
                case when r.failed then 'failed' else 'done' end, r.arg_hash, r.payload
            from unnest(p_fan, p_task_id, p_index, p_run, p_failed, p_arg_hash, p_payload) with ordinality
                as r (fan, task_id, index, run, failed, arg_hash, payload, no)
            where v_state[r.fan] in ('k', 'n') and r.index >= 0 and r.index < p_fan_size[r.fan]
                and (v_admit is null or v_admit[r.no])
            on conflict do nothing
            returning thread_id, task_id, fan_out_id, status)
        select coalesce(array_agg(s.thread_id), '{}'), coalesce(array_agg(s.task_id), '{}'),
            coalesce(array_agg(s.fan_out_id), '{}'), coalesce(array_agg((s.status = 'failed')::integer), '{}')
        into v_new_thread_id, v_new_task_id, v_count_fan_out_id, v_count_failed
        from stored s;
        v_stored := cardinality(v_new_task_id);
        v_count_new := array_fill(1, array[v_stored]);
    end;
    if v_stored < cardinality(p_task_id) then
        select s.outcomes, v_count_fan_out_id || s.count_fan_out_ids, v_count_new || s.count_new,
            v_count_failed || s.count_failed
        into outcomes, v_count_fan_out_id, v_count_new, v_count_failed
        from fanfold.settle_results(p_fan_out_id, p_fan_thread_id, p_fan_size, v_state, p_fan, p_task_id, p_index,
            p_run, p_failed, p_arg_hash, p_payload, v_admit, v_new_thread_id, v_new_task_id) s;
        if 'conflict' = any (outcomes) then
            raise exception 'conflict: % of % results contradict what is stored',
                (select count(*) from unnest(outcomes) o where o = 'conflict'), cardinality(p_task_id)
                using errcode = 'ZF003', detail = (
                    select json_agg(o.no order by o.no)::text
                    from unnest(outcomes) with ordinality as o (outcome, no) where o.outcome = 'conflict'),
                hint = 'The same task_id with another arg or index, or a fan-out that differs from its first task.';
        end if;
        if 'applied' = all (outcomes) then
            outcomes := null;
        end if;
    end if;

    -- 5. Count down, by what was really new. 6. Complete: the call that counts the last one queues the fold, once. Or
    -- end: the call that counts one failure too many, unless it also reaches the quorum.
    with delta as (
        select d.fan_out_id, sum(d.new)::integer as new, sum(d.failed)::integer as failed
        from unnest(v_count_fan_out_id, v_count_new, v_count_failed) as d (fan_out_id, new, failed)
        group by 1),
    ending as (
        select d.*, f.completed_at is not null as completed, q.reached,
            f.completed_at is null and not q.reached and f.failed + d.failed > f.max_failures as ends
        from delta d
        join fanfold.fan_out f on f.fan_out_id = d.fan_out_id
        cross join lateral (
            select coalesce(f.size - f.remaining + d.new - f.failed - d.failed >= f.quorum, false) as reached) q),
    counted as (
        update fanfold.fan_out f
        set remaining = f.remaining - e.new,
            failed = f.failed + e.failed,
            completed_at = coalesce(f.completed_at, case
                when e.reached or f.remaining = e.new and e.ends is not true then clock_timestamp() end),
            cancelled_at = case when e.ends then clock_timestamp() end,
            cancelled_by = case when e.ends then 'failures' end
        from ending e
        where f.fan_out_id = e.fan_out_id
        returning f.fan_out_id, f.run, f.fold, f.topic, not e.completed and f.completed_at is not null as completes),
    queued as (
        insert into fanfold.outbox (outbox_id, topic, fan_out_id, run, due_at) overriding system value
        select fanfold.next_outbox_id(), c.topic, c.fan_out_id, c.run, now() + make_interval(secs => p_lease_ms / 1000.0)
        from counted c where c.completes and c.fold is not null and c.topic is not null
        returning fan_out_id, outbox_id)
    select coalesce(array_agg(c.fan_out_id order by c.fan_out_id), '{}'),
        coalesce(array_agg(c.run order by c.fan_out_id), '{}'),
        coalesce(array_agg(q.outbox_id order by c.fan_out_id), '{}')
    into completed_fan_out_ids, completed_runs, completed_outbox_ids
    from counted c left join queued q on q.fan_out_id = c.fan_out_id
    where c.completes;

    outbox_ids := '{}';
    if cardinality(p_out_result) > 0 then
        with picked as (
            select o.*, outcomes is null or o.result = 0 or outcomes[o.result] = 'applied' as wanted
            from unnest(p_out_result, p_out_topic, p_out_key, p_out_value, p_out_headers, p_out_delay_ms) with ordinality
                as o (result, topic, key, value, headers, delay_ms, no)),
        numbered as materialized (
            select p.*, case when p.wanted then fanfold.next_outbox_id() end as outbox_id from picked p),
        queued as (
            insert into fanfold.outbox (outbox_id, topic, key, value, headers, due_at) overriding system value
            select n.outbox_id, n.topic, n.key, n.value, n.headers,
                now() + make_interval(secs => coalesce(nullif(n.delay_ms, 0), p_lease_ms) / 1000.0)
            from numbered n where n.wanted)
        select array_agg(n.outbox_id order by n.no) into outbox_ids from numbered n;
    end if;

    if cardinality(p_spent_outbox_id) > 0 then
        -- In this transaction: a database that lost it still has the row, and nobody takes it out there.
        delete from fanfold.outbox o where o.outbox_id = any (p_spent_outbox_id);
    end if;

    -- 7. Progress, and the dead letters that go with it.
    if cardinality(p_dead_progress_id) > 0 then
        if not p_dead_progress_id <@ p_progress_id then
            raise exception 'a dead letter of a partition whose progress is not part of this commit'
                using errcode = '22023', hint = 'Both move together, or a fenced owner could park records.';
        end if;
        insert into fanfold.dead_letter (group_id, cluster_id, topic, topic_id, partition, record_offset, thread_id,
            fan_out_id, task_id, code, error, key, value, headers)
        select p.group_id, p.cluster_id, p.topic, p.topic_id, p.partition, d.record_offset, d.thread_id, d.fan_out_id,
            d.task_id, d.code, d.error, d.key, d.value, d.headers
        from unnest(p_dead_progress_id, p_dead_offset, p_dead_task_id, p_dead_thread_id, p_dead_fan_out_id, p_dead_code,
            p_dead_error, p_dead_key, p_dead_value, p_dead_headers) with ordinality
            as d (progress_id, record_offset, task_id, thread_id, fan_out_id, code, error, key, value, headers, no)
        join fanfold.partition_progress p on p.progress_id = d.progress_id
        order by d.no
        on conflict do nothing;
    end if;
    commit_seqs := '{}';
    if cardinality(p_progress_id) > 0 then
        with moved as (
            update fanfold.partition_progress p
            set next_offset = i.next_offset, islands = i.islands::int8multirange, commit_seq = p.commit_seq + 1,
                seen_at = now()
            from unnest(p_progress_id, p_next_offset, p_islands) as i (progress_id, next_offset, islands)
            where p.progress_id = i.progress_id and (p.next_offset is null or i.next_offset >= p.next_offset)
            returning p.progress_id, p.commit_seq)
        select array_agg(m.commit_seq order by i.no)
        into commit_seqs
        from unnest(p_progress_id) with ordinality as i (progress_id, no)
        left join moved m on m.progress_id = i.progress_id;
        if array_position(commit_seqs, null) is not null then
            raise exception 'progress of partition % would go back', p_progress_id[array_position(commit_seqs, null)]
                using errcode = 'ZF005', hint = 'To read again from an earlier offset, reset the partition.';
        end if;
    elsif outcomes is not null then
        -- What wrote nothing waits for nothing, and what is answered may rest on a commit that is visible and not on disk.
        perform pg_logical_emit_message(true, 'fanfold', '');
    end if;
end $$;
