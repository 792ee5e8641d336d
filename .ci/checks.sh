# shellcheck shell=bash
# What a client, a load test and Prometheus see of the running stack.

# request STATUS CURL-ARGUMENT...: leaves the answer in $WORK/head and $WORK/body.
request() {
  local expected=$1 got
  shift
  got=$(curl -sS --max-time 10 -o "$WORK/body" -D "$WORK/head" -w '%{http_code}' "$@")
  if [ "$got" != "$expected" ]; then
    echo "$* answered $got, not $expected:"
    cat "$WORK/head" "$WORK/body"
    return 1
  fi
}

# head_has PATTERN / body_has PATTERN: of the last answer.
head_has() { grep -qiE "$1" "$WORK/head" || { echo "no header $1 in:"; cat "$WORK/head"; return 1; }; }
body_has() { grep -qE "$1" "$WORK/body" || { echo "no $1 in:"; head -c 2000 "$WORK/body"; return 1; }; }

# json EXPRESSION <FILE: what the Python expression says of the document `d`.
json() { python3 -c 'import json, sys; d = json.load(sys.stdin); r = eval(sys.argv[1]); print(r) if r is not None else None' "$1"; }

# promql QUERY: one value a line.
promql() {
  curl -fsS --max-time 10 "$PROMETHEUS/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys; [print(s["value"][1]) for s in json.load(sys.stdin)["data"]["result"]]'
}

# promql_is QUERY VALUE: for `within`.
promql_is() {
  local got
  got=$(promql "$1")
  [ "$got" = "$2" ] || { echo "$1 is '$got', not $2"; return 1; }
}

template_is_answered() {
  request 200 "$HTTP/template-details?id=1"
  for header in 'content-type: application/json' 'etag: ' 'age: [0-9]+' 'cache-control: ' 'x-cache: (l1|l2|origin|shared|stale)'; do
    head_has "^$header"
  done
  json '[d[k] for k in ("id", "name", "body", "version", "updated_at")] and None' <"$WORK/body"
}

second_read_is_a_hit() {
  request 200 "$HTTP/template-details?id=2"
  request 200 "$HTTP/template-details?id=2"
  head_has '^x-cache: l1'
}

# Past the service: the database itself announces it.
change_in_the_database_is_seen() {
  request 200 "$HTTP/template-details?id=4"
  compose_run exec -T postgres psql -q -U postgres -d app -c "UPDATE templates SET body = 'by psql' WHERE id = 4"
  within 2 seen_from_the_database
}

seen_from_the_database() {
  request 200 "$HTTP/template-details?id=4"
  body_has 'by psql'
}

etag() { sed -n 's/^[Ee][Tt][Aa][Gg]: *\([^\r]*\).*/\1/p' "$WORK/head"; }

etag_gives_304() {
  request 200 "$HTTP/template-details?id=1"
  request 304 -H "If-None-Match: $(etag)" "$HTTP/template-details?id=1"
  request 200 --head "$HTTP/template-details?id=1"
}

bad_ids_are_refused() {
  local query
  for query in '' 'id=' 'id=abc' 'id=-1' 'id=0' 'id=1.5' 'id=1&id=2' 'id=9223372036854775808'; do
    request 400 "$HTTP/template-details?$query"
    head_has '^content-type: application/problem\+json'
  done
}

unknown_id_is_404() {
  request 404 "$HTTP/template-details?id=987654321"
  head_has '^content-type: application/problem\+json'
}

wrong_method_is_405() {
  request 405 -X PATCH "$HTTP/template-details?id=1"
  head_has '^allow: .*GET'
}

write_is_seen() {
  local tag
  request 200 "$HTTP/template-details?id=3"
  tag=$(etag)
  local put=(-X PUT -H 'Content-Type: application/json' -d '{"name": "written", "body": "by the compose checks"}')
  request 200 "${put[@]}" -H "If-Match: $tag" "$HTTP/template-details?id=3"
  request 412 "${put[@]}" -H "If-Match: $tag" "$HTTP/template-details?id=3"
  request 200 "$HTTP/template-details?id=3"
  body_has 'by the compose checks'
}

list_is_paginated() {
  request 200 "$HTTP/templates?limit=3"
  body_has '"id": ?1\b'
  request 200 "$HTTP/templates?after=3&limit=3"
  body_has '"id": ?4\b'
}

probes_and_docs_answer() {
  request 200 "$HTTP/live"
  request 200 "$HTTP/ready"
  request 200 "$HTTP/docs"
}

# Two seconds of it: what it is told first, and a sample.
live_page_shows_samples() {
  request 200 "$HTTP/"
  head_has "^content-security-policy: default-src 'none'; script-src 'self'"
  curl -sS -N --max-time 4 "$HTTP/events" >"$WORK/body" 2>"$WORK/head" || [ $? -eq 28 ]
  body_has '^event: hello'
  body_has '"links": ?\[\{"title": ?"Grafana"'
  body_has '^data: \{"at":[0-9.]+,"apps":\{"app":\{"mode":"full","up":true'
}

live_page_allows_nothing_here() {
  request 403 -X POST -H 'Content-Type: application/json' -d '{}' "$HTTP/actions/redis_away"
  head_has '^content-type: application/problem\+json'
}

metrics_are_there() {
  local name
  request 200 "$HTTP/metrics"
  for name in http_request_total http_request_duration_seconds_bucket http_in_flight_requests cache_hits_total \
    cache_misses_total db_hits_total singleflight_shared_total cache_least_loads_total 'breaker_state\{name="redis"\}' \
    'breaker_state\{name="postgres"\}' 'cache_listen_up 1' 'cache_wakeups_up 1' 'cache_lease_total\{end="won"\}' \
    'cache_stale_served_total\{cause="error"\}' bulkhead_in_use 'app_info\{mode="full"'; do
    body_has "^$name"
  done
}

alert_rules_are_loaded() {
  curl -fsS --max-time 10 "$PROMETHEUS/api/v1/rules" >"$WORK/rules"
  [ "$(json 'sum(len(group["rules"]) for group in d["data"]["groups"])' <"$WORK/rules")" -ge 6 ]
  json '[rule["lastError"] for group in d["data"]["groups"] for rule in group["rules"] if rule.get("lastError")] or None' \
    <"$WORK/rules" | (! grep .)
}

# A call by way of Loom is answered, and the inspector has it, decoded.
loom_shows_a_call() {
  .venv/bin/python -m app get 6 --target "127.0.0.1:$LOOM_PORT" >/dev/null
  within 5 loom_has_the_call
  request 200 "$INSPECTOR/"
  head_has '^content-security-policy: '
  request 200 "$INSPECTOR/ready"
  within 15 promql_is 'up{job="loom"}' 1
}

loom_has_the_call() {
  local call
  request 200 "$INSPECTOR/api/calls"
  call=$(json 'next(c["id"] for c in d["calls"] if c["method"].endswith("/GetTemplateDetails") and c["statusName"] == "OK")' <"$WORK/body")
  request 200 "$INSPECTOR/api/calls/$call"
  body_has '"id": ?"6"'
}

# On the published port, by reflection's and health's own protocols, then the call itself.
grpc_answers() {
  .venv/bin/python - "127.0.0.1:$GRPC_PORT" <<'PYTHON'
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from app.proto.template.v1 import template_pb2, template_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING, health
    assert "template.v1.TemplateService" in ProtoReflectionDescriptorDatabase(channel).get_services()
    request = template_pb2.GetTemplateDetailsRequest(id=1)
    answer = template_pb2_grpc.TemplateServiceStub(channel).GetTemplateDetails(request, timeout=5)
    assert answer.template.id == 1, answer
PYTHON
}

app_has_few_rights() {
  compose_run exec -T app python -c '
import os, pathlib
assert os.getuid() == os.getgid() == 10001, os.getuid()
try:
    pathlib.Path("/app/written").touch()
except OSError as error:
    assert error.errno == 30, error
else:
    raise SystemExit("the root file system can be written")
status = dict(line.split(":\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\t" in line)
assert int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"].strip() == "1", status'
  [ "$(compose_run exec -T app cat /proc/1/comm)" = python ]
}

ports_are_on_loopback() {
  local ids
  ids=$(compose_run ps -q)
  # shellcheck disable=SC2086 # a list of ids
  if docker inspect -f '{{range $p, $b := .HostConfig.PortBindings}}{{range $b}}{{.HostIp}} {{$p}}{{"\n"}}{{end}}{{end}}' $ids |
    grep -v '^127\.0\.0\.1 ' | grep -q .; then
    echo 'a port is published beyond loopback'
    return 1
  fi
}

client_checks() {
  check 'GET answers with the template, ETag, Age, Cache-Control and X-Cache' template_is_answered
  check 'a second GET is a cache hit' second_read_is_a_hit
  check 'If-None-Match gives 304, HEAD works' etag_gives_304
  check 'eight kinds of bad id give 400 as problem+json' bad_ids_are_refused
  check 'an unknown id gives 404' unknown_id_is_404
  check 'a wrong method gives 405 with Allow' wrong_method_is_405
  check 'a write is seen by the next read, a stale If-Match gives 412' write_is_seen
  check 'a change made with psql is seen' change_in_the_database_is_seen
  check 'the list is paginated' list_is_paginated
  check '/live, /ready and /docs answer' probes_and_docs_answer
  check 'the live page comes, and its events tell of a second' live_page_shows_samples
  check 'nothing can be done on it here: 403' live_page_allows_nothing_here
  check '/metrics has every metric of the dashboard' metrics_are_there
  check 'Prometheus has the alert rules' alert_rules_are_loaded
  check 'gRPC answers, with health and reflection' grpc_answers
  check 'a call through Loom is answered, and its inspector shows it decoded' loom_shows_a_call
  check 'the app is not root, has no capability and cannot write its file system' app_has_few_rights
  check 'every port is published on loopback only' ports_are_on_loopback
}

LOAD=(--concurrency 50 --waves 6 --ids 60 --spread 600)

# counts_agree FILE: no error, and both counts of the loads equal the least possible.
counts_agree() {
  json 'f"note: {d}"' <"$1"
  json '"" if d["errors"] == 0 and d["db_loads"] == d["db_loads_by_postgres"] == d["least_loads"] else 1 / 0' <"$1" >/dev/null
}

loadtest_by_venv() {
  ./loadtest.sh --url "$HTTP" --database-url "$DATABASE_URL" --redis-url "$REDIS_URL" "${LOAD[@]}" --json "$WORK/venv.json"
  counts_agree "$WORK/venv.json"
}

# A checkout where nothing was set up: the load test has to run inside the app's container.
loadtest_by_docker() {
  mkdir -p "$WORK/checkout"
  git ls-files -z | xargs -0 cp --parents -t "$WORK/checkout"
  (cd "$WORK/checkout" && ./loadtest.sh "${LOAD[@]}" --json "$WORK/docker.json")
  counts_agree "$WORK/docker.json"
}

loadtest_checks() {
  check 'loadtest.sh from a virtual environment: loads are the least possible, by both counts' loadtest_by_venv
  check 'loadtest.sh with Docker alone: the same' loadtest_by_docker
}

scale_up() { compose_run up -d --no-build "${PULL[@]}" --scale replica=2 --wait --wait-timeout 120; }

app_is_unmoved() {
  request 200 "$HTTP/live"
  [ "$(compose_run port app 8080)" = "${HTTP#http://}" ]
}

every_target_is_up() {
  within 60 promql_is 'count(up{job="app"} == 1)' 3
  promql_is 'count(up == 0) or vector(0)' 0
  promql_is 'count(up{job="prometheus"} == 1)' 1
  within 30 promql_is 'count(app_info{job="app"})' 3
}

compare_up() {
  compose_run --profile compare up -d --no-build "${PULL[@]}" --scale replica=2 --wait --wait-timeout 120
  request 200 "$UNPROTECTED/template-details?id=1"
  within 60 promql_is 'count(up{job="app-unprotected"} == 1)' 1
  promql_is 'count(app_info{mode="none"})' 1
}

# The same waves on both; then what the dashboard asks, through Grafana, must tell them apart. The app keeps its caches:
# to empty them within a TTL makes it load again, which counts as a stampede.
both_on_one_chart() {
  compose_run exec -T app-unprotected python -m app loadtest "${LOAD[@]}"
  compose_run exec -T app python -m app loadtest "${LOAD[@]}" --keep-caches
  within 40 told_apart
}

told_apart() { python3 "$HERE/charts.py" "$GRAFANA"; }

scale_down() {
  compose_run up -d --no-build "${PULL[@]}" --scale replica=0 --wait --wait-timeout 60
  within 60 promql_is 'count(up{job="app"})' 1
}

scale_checks() {
  check 'two more replicas start beside the app' scale_up
  check 'the app stays where it was' app_is_unmoved
  check 'Prometheus has every target up and sees all three replicas' every_target_is_up
  check 'the profile compare adds an unprotected app' compare_up
  check 'Grafana shows both on one chart, and the unprotected one stampedes' both_on_one_chart
  check 'scaled down again, Prometheus forgets the replicas' scale_down
}
