#!/usr/bin/env bash
# Installs what building and testing need beyond Rust and Node. Asks the system first and installs
# only what is missing, so that a second run takes no time.
#
#   scripts/setup.sh        everything: system packages, the web app's packages
#   scripts/setup.sh web    the web app's packages only
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

node_is_new_enough() {
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
}

check_tools() {
    has cargo || fail "cargo is not installed; install Rust from https://rustup.rs"
    has node && has npm || fail "node and npm are not installed; install Node 20.19 or newer from https://nodejs.org"
    node_is_new_enough || fail "node $(node --version) is too old; install Node 20.19 or newer from https://nodejs.org"
}

# Prints the Debian packages of what is missing.
missing_packages() {
    has cc || echo gcc libc6-dev
    has git || echo git
    [ -x /usr/bin/chromium ] || echo chromium
    has flock || echo util-linux
    has ip || echo iproute2
    # Clocks of other machines; a test without it says that it is skipped.
    has faketime || ! has apt-get || echo faketime
    # What a developer's machine need not get for one test, which says when it is skipped.
    [ -z "${CI:-}" ] || has systemctl || echo systemd
    [ -z "${CI:-}" ] || has nginx || [ -x /usr/sbin/nginx ] || echo nginx-light
}

install_packages() {
    local packages as_root=()
    packages=$(missing_packages | xargs)
    [ -n "$packages" ] || return 0
    has apt-get || fail "missing: $packages; there is no apt-get here, please install them by other means"
    if [ "$(id -u)" -ne 0 ]; then
        has sudo && sudo -n true 2>/dev/null ||
            fail "missing: $packages; not root, and sudo asks for a password. Run: sudo apt-get install $packages"
        as_root=(sudo)
    fi
    say "installing $packages"
    # shellcheck disable=SC2086 # several packages, none with a space
    if ! apt_install $packages; then
        "${as_root[@]}" apt-get update -qq
        apt_install $packages || fail "apt-get could not install $packages"
    fi
}

apt_install() {
    # RUNLEVEL keeps what is installed from being started as a service.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null </dev/null
}

# npm writes node_modules/.package-lock.json last; it is older than the lock file when that changed.
install_web() {
    local stamp=web/node_modules/.package-lock.json
    if [ -e "$stamp" ] && [ ! web/package-lock.json -nt "$stamp" ] && [ ! web/package.json -nt "$stamp" ]; then
        return 0
    fi
    say "installing the web app's packages"
    # `npm ci` wants every platform's optional package in the lock file, also those that a registry
    # does not have; this takes the same versions from the lock file and leaves it as it is.
    (cd web && npm install --no-save --no-audit --no-fund --loglevel=error </dev/null)
    touch "$stamp"
}

check_tools
[ "${1:-}" = web ] || install_packages
install_web
