#!/usr/bin/env bash
# Installs the coding agents that the real-agent tests drive, at exact versions, into a folder of
# their own: no agent, configuration or login of this machine is used or touched.
#
#   scripts/agents.sh                 node claude opencode gemini
#   scripts/agents.sh codex-acp …     the ones named (and node)
#   scripts/agents.sh --list          what there is
#
# FARHELM_AGENT_CACHE  where to put them (default: .cache/agents in the repository)
#
# Each agent lives in <cache>/<name>/ with its own package.json; <cache>/<name>/.installed holds
# what is there and makes the next run instant. crates/model/src/agents.rs knows this layout.
set -euo pipefail

cd "$(dirname "$0")/.."
cache=${FARHELM_AGENT_CACHE:-$PWD/.cache/agents}

# name, packages (the first one's version is checked), the program to ask for `--version`
agent() {
    case $1 in
        node)       packages="node@22.23.3";                      program=node/bin/node ;;
        claude)     packages="@anthropic-ai/claude-code@2.1.330"; program=.bin/claude ;;
        opencode)   packages="opencode-ai@1.18.33";               program=.bin/opencode ;;
        gemini)     packages="@google/gemini-cli@0.61.0";         program=.bin/gemini ;;
        claude-acp) packages="@agentclientprotocol/claude-agent-acp@0.101.0"; program=.bin/claude-agent-acp ;;
        codex-acp)  packages="@openai/codex@0.169.0 @agentclientprotocol/codex-acp@2.6.0"; program=.bin/codex ;;
        *) fail "no agent is called '$1'; there are: $all" ;;
    esac
}
default="claude opencode gemini"
all="node $default claude-acp codex-acp"

say() { printf 'agents: %s\n' "$*"; }
fail() { printf 'agents: error: %s\n' "$*" >&2; exit 1; }

# npm of this machine in a clean room: its own HOME and cache, so that an agent's install script
# finds nobody's files; the user's .npmrc stays in force, for it may name a mirror or a proxy.
# Node 22 comes first in PATH: with an older Node npm silently picks older agents that fit it.
install() { # name packages...
    local folder=$cache/$1 log=$cache/$1.log
    shift
    rm -rf "$folder"
    mkdir -p "$folder" "$cache/.home"
    printf '{"private":true}\n' >"$folder/package.json"
    (
        cd "$folder"
        export npm_config_userconfig="${npm_config_userconfig:-${HOME:-}/.npmrc}"
        export npm_config_cache="$cache/.npm" npm_config_update_notifier=false
        export HOME="$cache/.home" PATH="$cache/node/node_modules/node/bin:$PATH"
        npm install --no-audit --no-fund --save-exact --foreground-scripts --ignore-scripts=false "$@"
    ) >"$log" 2>&1 </dev/null
}

# Prints the version that the installed program reports of itself.
version() { # name program
    local home
    home=$(mktemp -d)
    env -i HOME="$home" PATH="$cache/node/node_modules/node/bin:/usr/local/bin:/usr/bin:/bin" \
        DISABLE_AUTOUPDATER=1 OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 \
        timeout 120 "$cache/$1/node_modules/$2" --version </dev/null 2>/dev/null || true
    rm -rf "$home"
}

ensure() { # name
    agent "$1"
    local stamp=$cache/$1/.installed wanted=${packages%% *} found attempt
    wanted=${wanted##*@}
    [ "$(cat "$stamp" 2>/dev/null)" = "$packages" ] && return
    for attempt in 1 2; do
        say "$1: installing $packages"
        # shellcheck disable=SC2086 # several packages, none with a space
        if install "$1" $packages; then
            found=$(version "$1" "$program")
            if [[ " ${found//$'\n'/ } " == *[\ v]"$wanted"\ * ]]; then
                say "$1: $wanted"
                rm -f "$cache/$1.log"
                printf '%s\n' "$packages" >"$stamp"
                return
            fi
            say "$1: wanted version $wanted, but it says '${found:-nothing}'"
        else
            say "$1: npm failed (attempt $attempt): $(grep -m1 'npm error' "$cache/$1.log" || echo 'no reason given')"
        fi
    done
    fail "could not install $1 ($packages); npm's output is in $cache/$1.log"
}

[ "${1:-}" = --list ] && { echo "$all"; exit; }
command -v npm >/dev/null || fail "npm is not installed; the agents come from npm (Debian: apt install npm)"
for name in "$@"; do agent "$name"; done
mkdir -p "$cache"

# One run at a time: two test binaries may both ask for the agents.
exec 9>"$cache/.lock"
command -v flock >/dev/null && flock 9

ensure node
[ $# -gt 0 ] || set -- $default
for name in "$@"; do
    [ "$name" = node ] || ensure "$name"
done

# The downloads are of no more use: what is installed stays.
rm -rf "$cache/.npm"
