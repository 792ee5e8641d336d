-- What must exist before the migrations: the database, its roles and the extension that counts statements.
-- For psql, as a superuser, connected to any database; to be run any number of times.
-- pg_stat_statements must be among the server's shared_preload_libraries.

\set ON_ERROR_STOP on

-- app owns the database. unprotected has the same rights under another name, so that what an unprotected copy of the
-- service asks is counted apart. loadtest reads everybody's statistics and resets them.
SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['app', 'unprotected', 'loadtest']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

GRANT app TO unprotected;
GRANT pg_read_all_stats TO loadtest;

SELECT 'CREATE DATABASE app OWNER app' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'app')
\gexec

ALTER DATABASE app OWNER TO app;

\connect app

ALTER SCHEMA public OWNER TO app;

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO loadtest;
