-- existing_fan_outs: which of these fan-outs there are. What lies in the claim store for any other belongs to nobody.
-- Locks    none. A fan-out that is not there may still come, with its first result: only old objects are judged by this.
create or replace function fanfold.existing_fan_outs(p_fan_out_ids text[]) returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(f.fan_out_id), '{}') from fanfold.fan_out f where f.fan_out_id = any (p_fan_out_ids)
$$;
