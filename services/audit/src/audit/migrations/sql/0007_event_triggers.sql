create event trigger audit_guard_command on ddl_command_end execute function audit_guard.on_command();
create event trigger audit_guard_drop on sql_drop execute function audit_guard.on_drop();
create event trigger audit_guard_rewrite on table_rewrite execute function audit_guard.on_rewrite();
alter event trigger audit_guard_command enable always;
alter event trigger audit_guard_drop enable always;
alter event trigger audit_guard_rewrite enable always;
