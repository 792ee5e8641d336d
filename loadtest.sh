#!/usr/bin/env bash
# The load test against a running stack, from the virtual environment or from the app's container,
# whichever there is. All flags go to `python -m app loadtest`; see ./loadtest.sh --help.
set -euo pipefail

here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"

# Files to write are named relative to where the caller stands.
absolute() {
	case $1 in
	/*) printf '%s\n' "$1" ;;
	*) printf '%s\n' "$here/$1" ;;
	esac
}

args=()
outputs=() # flag, then the host's file, in pairs
while [ $# -gt 0 ]; do
	case $1 in
	--json | --html)
		if [ $# -lt 2 ]; then
			echo "loadtest: $1 needs a file" >&2
			exit 2
		fi
		outputs+=("$1" "$(absolute "$2")")
		shift 2
		;;
	--json=* | --html=*)
		outputs+=("${1%%=*}" "$(absolute "${1#*=}")")
		shift
		;;
	*)
		args+=("$1")
		shift
		;;
	esac
done

# "${x[@]+"${x[@]}"}" and not "${x[@]}": to bash 3.2, which macOS has, an empty array is an unset one.

if [ -x .venv/bin/python ] && .venv/bin/python -c 'import httptools, typer, uvloop' 2>/dev/null; then
	exec .venv/bin/python -m app loadtest "${args[@]+"${args[@]}"}" "${outputs[@]+"${outputs[@]}"}"
fi

help() {
	echo 'Usage: ./loadtest.sh [FLAG]...'
	echo 'Sends stampedes and spread reads to a running app, and counts what reached its database.'
	echo 'The flags are in docs/loadtest.md; with a .venv (make setup) or a running stack, --help lists them.'
}

if ! command -v docker >/dev/null 2>&1 || [ -z "$(docker compose ps --status running -q app 2>/dev/null)" ]; then
	for arg in "${args[@]+"${args[@]}"}"; do
		if [ "$arg" = --help ]; then
			help
			exit 0
		fi
	done
	echo 'loadtest: there is no .venv and no running app container here: run "make setup", or' \
		'"docker compose up --build -d"' >&2
	exit 2
fi

# The container's file system is read-only but for /tmp, which `docker cp` does not see: files come out through cat.
terminal=(-T)
if [ -t 0 ] && [ -t 1 ]; then
	terminal=() # with a terminal, Ctrl-C reaches the load test
fi
scratch=/tmp/loadtest.$$
inside=()
i=0
while [ $i -lt ${#outputs[@]} ]; do
	inside+=("${outputs[$i]}" "$scratch.$i")
	i=$((i + 2))
done

status=0
docker compose exec "${terminal[@]+"${terminal[@]}"}" app \
	python -m app loadtest "${args[@]+"${args[@]}"}" "${inside[@]+"${inside[@]}"}" || status=$?

i=0
while [ $i -lt ${#outputs[@]} ]; do
	file=${outputs[$((i + 1))]}
	if docker compose exec -T app test -f "$scratch.$i" </dev/null; then
		mkdir -p "$(dirname "$file")"
		docker compose exec -T app cat "$scratch.$i" </dev/null >"$file.part"
		mv "$file.part" "$file"
		docker compose exec -T app rm -f "$scratch.$i" </dev/null
	fi
	i=$((i + 2))
done
exit "$status"
