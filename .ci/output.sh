# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by the other parts of the run
# What the run prints, and the count of its checks.
PASSED=0
FAILED=0
COMPOSE_REACHED=

say() { echo "ci: $*"; }

section() { printf '\n=== %s (at %d s)\n' "$1" "$SECONDS"; }

# check SENTENCE COMMAND [ARGUMENT...]: counts it; the first that fails shows its output and ends the run.
# Never call it in a condition: `set -e` would not hold inside COMMAND.
check() {
  local what=$1 from=$SECONDS status
  shift
  set +e
  (
    set -e
    "$@"
  ) >"$WORK/check.log" 2>&1
  status=$?
  set -e
  if ((status == 0)); then
    PASSED=$((PASSED + 1))
    printf '  ok     %s (%d s)\n' "$what" $((SECONDS - from))
    grep '^note: ' "$WORK/check.log" | sed 's/^/         /' || true
    return 0
  fi
  FAILED=$((FAILED + 1))
  printf '  FAILED %s (%d s, exit status %d)\n' "$what" $((SECONDS - from)) "$status"
  sed 's/^/         /' "$WORK/check.log"
  exit 1
}

# within SECONDS COMMAND [ARGUMENT...]: tries until it succeeds; its last output shows why it did not.
within() {
  local deadline=$((SECONDS + $1)) output
  shift
  until output=$("$@" 2>&1); do
    if ((SECONDS >= deadline)); then
      printf 'not within the time: %s\n%s\n' "$*" "$output"
      return 1
    fi
    sleep 0.5
  done
  if [ -n "$output" ]; then echo "$output"; fi
}
