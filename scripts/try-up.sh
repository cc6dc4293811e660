#!/usr/bin/env bash
# README's first command as a newcomer types it, in a state folder of its own: a session comes up, its
# agent asks, and what was approved is on the disk.
set -euo pipefail
cd "$(dirname "$0")/.."

FARHELM_HOME=$(mktemp -d)
export FARHELM_HOME
farhelm=target/release/farhelm
end() {
    "$farhelm" down >/dev/null 2>&1 || true
    rm -rf "$FARHELM_HOME"
}
trap end EXIT

fail() { printf 'try-up: error: %s\n' "$*" >&2; exit 1; }

# Waits up to half a minute until a command succeeds.
until_ok() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "in vain: $*"
}

approve() {
    local id
    until_ok sh -c "$farhelm approvals | grep -q '^?'"
    id=$("$farhelm" approvals | sed -n 's/^? \([0-9a-f]*\).*/\1/p' | head -n 1)
    "$farhelm" approve "$id"
}

make --no-print-directory up ARGS='--headless --prompt fix-the-lamp' </dev/null | tee "$FARHELM_HOME/out"
grep -q 'pair a device within 10 minutes' "$FARHELM_HOME/out" || fail 'no pairing link'
approve
until_ok grep -q 'short short long' demo/work/lamp.sh
approve
until_ok sh -c "$farhelm ls | grep -q idle"
port=$(cat "$FARHELM_HOME/relay.port")
node -e "
fetch('http://localhost:$port/').then(async (r) => {
  const page = await r.text();
  if (!r.ok || !page.includes('<script')) throw new Error('the web app is not served: ' + page.slice(0, 200));
}).catch((error) => { console.error(error); process.exit(1); })" || fail 'the web app is not served'
echo 'try-up: 1 passed, 0 failed'
