# shellcheck shell=bash
# Redis crashed, cut off and hung, and the app told to end: each under load, none with a failed request. And the
# scenarios, which break a stack of their own.

FAULT_LOAD=(--concurrency 40 --ids 60 --duration 12)

# under_load FUNCTION: runs it two seconds into a load that must not fail a single request.
under_load() {
  local load
  timeout 120 ./loadtest.sh --url "$HTTP" --database-url "$DATABASE_URL" --redis-url "$REDIS_URL" "${FAULT_LOAD[@]}" \
    --json "$WORK/fault.json" >"$WORK/load.log" 2>&1 </dev/null &
  load=$!
  sleep 2
  "$@"
  if ! wait "$load"; then
    cat "$WORK/load.log"
    return 1
  fi
  json '"note: %(requests)d requests, %(errors)d errors, p99 %(p99_ms).0f ms, max %(max_ms).0f ms" % d' <"$WORK/fault.json"
  within 20 redis_is_used_again
}

redis_is_used_again() {
  request 200 "$HTTP/metrics"
  body_has '^breaker_state\{name="redis"\} 0'
  request 200 "$HTTP/template-details?id=5"
  request 200 "$HTTP/template-details?id=5"
  head_has '^x-cache: l1'
}

crash_redis() {
  local id before
  id=$(container redis)
  before=$(docker inspect -f '{{.RestartCount}}' "$id")
  kill -9 "$(docker inspect -f '{{.State.Pid}}' "$id")"
  within 10 restarted "$id" "$before"
}

restarted() {
  [ "$(docker inspect -f '{{.RestartCount}} {{.State.Running}}' "$1")" = "$(($2 + 1)) true" ]
}

cut_redis_off() {
  local id network=${COMPOSE_PROJECT_NAME}_default
  id=$(container redis)
  docker network disconnect "$network" "$id"
  sleep 4
  docker network connect --alias redis "$network" "$id"
}

hang_redis() {
  docker pause "$(container redis)"
  sleep 4
  docker unpause "$(container redis)"
}

# The load comes from inside the network, where a closed port refuses a connection instead of accepting and dropping it.
drain_app() {
  local drain exit_code
  compose_run up -d --no-build "${PULL[@]}" --scale replica=1 --wait --wait-timeout 60
  docker compose exec -T replica python - app 8080 <"$HERE/drain.py" >"$WORK/drain.log" 2>&1 &
  drain=$!
  within 10 grep -q 'under way' "$WORK/drain.log"
  compose_run kill -s TERM app
  wait "$drain" || { cat "$WORK/drain.log"; return 1; }
  sed -n 's/^drained/note: drained/p' "$WORK/drain.log"
  exit_code=$(docker wait "$(container app)")
  [ "$exit_code" = 0 ] || { echo "exit status $exit_code"; return 1; }
  compose_run up -d --no-build "${PULL[@]}" --scale replica=0 --wait --wait-timeout 60
  request 200 "$HTTP/ready"
}

# scenario NAME [FLAG]...: its promises, but for those about time, which the rest of the machine may break, and with them
# the count of loads of a key that a replica makes for itself where Redis does not answer in time.
scenario() {
  local status=0
  .venv/bin/python -m app scenario "$1" --compose --out "$WORK/out" "${@:2}" || status=$?
  [ "$status" -le 1 ] || return "$status"
  json '"" if not [p for p in d["promises"] if not p["ok"] and not p["measured"].endswith(" ms") and "any one key" not in p["what"]] else 1 / 0' \
    <"$WORK/out/scenario-$1.json" >/dev/null
  json '"note: %d of %d promises kept" % (sum(p["ok"] for p in d["promises"]), len(d["promises"]))' <"$WORK/out/scenario-$1.json"
  [ -z "$(docker ps -aq --filter name=stampede-scenario-)$(docker volume ls -q --filter name=stampede-scenario-)" ] ||
    { echo 'it left something behind'; return 1; }
}

scenario_checks() {
  check 'scenario redis-outage --compose' scenario redis-outage --duration 6 --replicas 2 --rate 100
  check 'scenario postgres-outage --compose' scenario postgres-outage --duration 6 --replicas 2 --rate 100
  check 'scenario replica-crash --compose' scenario replica-crash --duration 3 --replicas 2 --rate 50
}

fault_checks() {
  check 'Redis crashes (SIGKILL) and is restarted: no failed request' under_load crash_redis
  check 'Redis is cut off the network and comes back: no failed request' under_load cut_redis_off
  check 'Redis hangs and goes on: no failed request' under_load hang_redis
  check 'SIGTERM: /ready turns first, every request in flight is answered, exit status 0' drain_app
}

no_traceback() {
  compose_run --profile compare logs --no-color >"$WORK/all.log" 2>&1
  if grep -n -A 20 'Traceback (most recent call last)' "$WORK/all.log"; then return 1; fi
}

nothing_ran_out_of_memory() {
  local ids
  ids=$(compose_run --profile compare ps -a -q)
  # shellcheck disable=SC2086 # a list of ids
  if docker inspect -f '{{.Name}} {{.State.OOMKilled}}' $ids | grep true; then return 1; fi
  docker image inspect -f 'note: the image has {{.Size}} bytes' "$COMPOSE_PROJECT_NAME-app"
}

closing_checks() {
  check 'no log has a traceback' no_traceback
  check 'no container ran out of memory' nothing_ran_out_of_memory
}
