#!/usr/bin/env bash
# Symbolic proofs of the market's arithmetic (test/Symbolic.t.sol) by halmos, in an environment of its own (.tools/halmos).
# Fails on a counterexample, on a proof that the solver does not finish, and where nothing was proven.
# Fetches halmos on the first run. Needs `npm ci` in contracts/ before. Further arguments go to halmos.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$(cd .. && pwd)"
venv="$root/.tools/halmos"
lock="$PWD/tools/halmos.lock"

if ! cmp -s "$lock" "$venv/.lock"; then
    "$root/.venv/bin/uv" venv --quiet --clear --python "$root/.venv/bin/python" "$venv"
    "$root/.venv/bin/uv" pip sync --quiet --python "$venv/bin/python" --require-hashes "$lock"
    cp "$lock" "$venv/.lock"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
forge="$(PYTHONPATH=tools "$root/.venv/bin/python" -c 'import forge; print(forge.find_forge())')"
mkdir "$work/test"
cp foundry.toml "$work"
printf "\n[lint]\nlint_on_build = false\n" >> "$work/foundry.toml"
cp -r src tools "$work"
cp test/Symbolic.t.sol "$work/test"
ln -s "$PWD/node_modules" "$work/node_modules"
"$forge" build --quiet --root "$work" --ast --extra-output storageLayout --extra-output metadata
PATH="$(dirname "$forge"):$venv/bin:$PATH" "$venv/bin/halmos" --root "$work" --contract SymbolicTest --function testFuzz_ \
    --solver z3 --solver-timeout-assertion 300s "$@"
