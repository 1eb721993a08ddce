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
    -- From PostgreSQL 16 on, whoever creates a role is a member who may hand it out, but may not act as it.
    if not pg_catalog.pg_has_role(current_user, 'fanfold_owner', case
        when pg_catalog.current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end) then
        execute pg_catalog.format('grant fanfold_owner to %I', current_user);
    end if;
    -- "if not exists" wants the privilege to create one even if it does exist.
    if pg_catalog.to_regnamespace('fanfold') is null then
        create schema fanfold authorization fanfold_owner;
    end if;
end $$;
