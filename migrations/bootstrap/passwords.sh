#!/bin/bash
# For /docker-entrypoint-initdb.d of the postgres container, to be run after roles.sql (files there run in the order of
# their names: mount the two as 1-roles.sql and 2-passwords.sh). Gives the roles the superuser's password.
set -euo pipefail

: "${POSTGRES_PASSWORD:?must be set}"
export POSTGRES_PASSWORD # psql reads it from there, so that it shows in no process list

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname app <<'SQL'
\getenv password POSTGRES_PASSWORD
ALTER ROLE app PASSWORD :'password';
ALTER ROLE unprotected PASSWORD :'password';
ALTER ROLE loadtest PASSWORD :'password';
SQL
