# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by the other parts of the run
# The engine, the images and the stack: brought up, and taken down again.
ENGINE_STARTED=
STACK_STARTED=
PULL=()

HTTP=http://127.0.0.1:${HOST_HTTP_PORT:-8080}
UNPROTECTED=http://127.0.0.1:${HOST_UNPROTECTED_PORT:-8081}
PROMETHEUS=http://127.0.0.1:${HOST_PROMETHEUS_PORT:-9090}
GRAFANA=http://127.0.0.1:${HOST_GRAFANA_PORT:-3000}
LOOM_PORT=${HOST_LOOM_PORT:-9999}
INSPECTOR=http://127.0.0.1:${HOST_INSPECTOR_PORT:-9998}
GRPC_PORT=${HOST_GRPC_PORT:-50051}
DATABASE_URL=postgresql://loadtest:app@127.0.0.1:${HOST_POSTGRES_PORT:-5432}/app
REDIS_URL=redis://127.0.0.1:${HOST_REDIS_PORT:-6379}/0

compose_run() { docker compose "$@" </dev/null; }

start_engine() {
  if docker version >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
    say 'an engine is running'
    return 0
  fi
  [ -x "$STANDINS/start-engine.sh" ] || { say 'no Docker engine with Compose v2 answers'; return 1; }
  docker version >/dev/null 2>&1 || ENGINE_STARTED=1
  "$STANDINS/start-engine.sh"
}

stop_engine() {
  local pid
  pid=$(cat /run/docker.pid 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || return 0
  timeout 30 tail --pid "$pid" -f /dev/null || say 'the engine did not end'
}

# The images are those that .env pins; where no registry is reached, local ones are built under the same names.
make_images() {
  local image=''
  [ -x "$STANDINS/build.sh" ] || return 0
  # shellcheck source=.env
  image=$(set -a && source "$ROOT/.env" && echo "python=$PYTHON_IMAGE postgres=$POSTGRES_IMAGE redis=$REDIS_IMAGE" \
    "prometheus=$PROMETHEUS_IMAGE grafana=$GRAFANA_IMAGE")
  # shellcheck disable=SC2086 # five words
  "$STANDINS/build.sh" $image
  PULL=(--pull never)
}

stack_up() {
  compose_run --profile compare down -v --remove-orphans >/dev/null 2>&1
  STACK_STARTED=1
  check 'compose config is valid' compose_run --profile compare --profile tracing config --quiet
  check 'docker compose up --build: every service healthy' compose_run up -d --build "${PULL[@]}" --wait --wait-timeout 180
}

# container SERVICE [INDEX]: its id.
container() { compose_run ps -a -q --index "${2:-1}" "$1" 2>/dev/null || compose_run ps -a -q "$1"; }

state() { docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' "$(container "$1")"; }

left_behind() {
  docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
  docker volume ls -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
  docker network ls -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
}

# stack_down STATUS: on failure shows the logs that matter first.
stack_down() {
  local status=$1 bad=0
  if [ -n "$STACK_STARTED" ]; then
    if ((status != 0)); then
      section 'what the containers said'
      compose_run --profile compare ps -a || true
      compose_run --profile compare logs --no-color --tail 60 || true
    fi
    compose_run --profile compare down -v --remove-orphans >"$WORK/down.log" 2>&1 || { cat "$WORK/down.log"; bad=1; }
    docker image rm -f "$COMPOSE_PROJECT_NAME-app" >/dev/null 2>&1 || true
    if [ -n "$(left_behind)" ]; then
      say 'down -v left something behind'
      left_behind
      bad=1
    fi
    if ((bad)); then FAILED=$((FAILED + 1)); else PASSED=$((PASSED + 1)); fi
    say "down -v: $( ((bad)) && echo failed || echo ok)"
  fi
  if [ -n "$ENGINE_STARTED" ]; then stop_engine; fi
  return "$bad"
}
