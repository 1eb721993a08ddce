-- begin_life: make sure that the server's memory has a life, which a crash ends. Called for early lock release only, because
-- all claims of before are void from here on; without that, nothing is seen that a crash can take back.
--
-- Returns  whether there was none.
-- Retry    safe.
create or replace function fanfold.begin_life()
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from fanfold.life) then
        return false;
    end if;
    insert into fanfold.life default values on conflict do nothing;
    return found;
end $$;
