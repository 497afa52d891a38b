#!/usr/bin/env bash
# Static analysis of the contracts by slither, in an environment of its own (.tools/slither): its dependencies disagree with ours.
# Fails on any finding of high or medium weight; what is accepted stands as `slither-disable` with its reason in the source.
# Fetches slither on the first run. Needs `npm ci` in contracts/ before. Further arguments go to slither.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$(cd .. && pwd)"
venv="$root/.tools/slither"
lock="$PWD/tools/slither.lock"

if ! cmp -s "$lock" "$venv/.lock"; then
    "$root/.venv/bin/uv" venv --quiet --clear --python "$root/.venv/bin/python" "$venv"
    "$root/.venv/bin/uv" pip sync --quiet --python "$venv/bin/python" --require-hashes "$lock"
    cp "$lock" "$venv/.lock"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
forge="$(PYTHONPATH=tools "$root/.venv/bin/python" -c 'import forge; print(forge.find_forge())')"
"$forge" build --quiet --build-info --skip test --force --out "$work/out" --cache-path "$work/cache"
PATH="$(dirname "$forge"):$PATH" "$venv/bin/slither" . --ignore-compile --foundry-out-directory "$work/out" \
    --filter-paths "node_modules|src/generated|test/" --exclude-informational --exclude-optimization --exclude-low \
    --fail-medium "$@"
