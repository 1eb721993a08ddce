-- Roles are of the cluster, not of the database: another database's migration may be creating them right now.
do $$
declare
    v_role text;
begin
    foreach v_role in array array['fanfold_owner', 'fanfold_worker'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
            begin
                execute pg_catalog.format('create role %I nologin', v_role);
            exception when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;
    if not pg_catalog.pg_has_role(current_user, 'fanfold_owner', 'member') then
        execute pg_catalog.format('grant fanfold_owner to %I', current_user);
    end if;
end $$;
create schema if not exists fanfold authorization fanfold_owner;
