#!/bin/sh
# Breaks promises on purpose, in a throw-away copy, and sees that the simulation notices each.
# `crates/sim/mutants.patch` holds the wrong behaviours; the variable MUTANT switches one on.
# Arguments: the mutants to try; all of them without any. SEEDS: the plans to try (1-2000, as many as the tests).
set -eu
cd "$(dirname "$0")/.."
copy=target/mutants
seeds=${SEEDS:-1-2000}

rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z | grep -zv '^web/' | tar --null -T - -cf - | tar -C "$copy" -xf -
mkdir -p "$copy/web/dist" "$copy/web/src"
(cd "$copy" && patch -s -p1 < crates/sim/mutants.patch)

binary=$(cd "$copy" && CARGO_TARGET_DIR="$PWD/../mutants-target" cargo test --locked --no-run -p farhelm-sim \
    --test simulation --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*simulation-[^"]*\)".*/\1/p' | tail -1)
[ -n "$binary" ] || { echo "the mutants do not build"; exit 1; }

if [ $# -gt 0 ]; then
    mutants=$*
else
    mutants=$(grep -o 'name == "[a-z-]*"' crates/sim/mutants.patch | cut -d'"' -f2 | sort -u)
fi

unnoticed=0
for mutant in $mutants; do
    if MUTANT=$mutant SEEDS=$seeds RUST_BACKTRACE=0 "$binary" long >"$copy/$mutant.log" 2>&1; then
        echo "$mutant: NOT NOTICED in plans $seeds"
        unnoticed=1
    else
        echo "$mutant: $(grep -m1 -o 'SEED=[0-9]*' "$copy/$mutant.log") $(grep -m1 -A1 'SEED=' "$copy/$mutant.log" | tail -1 | sed 's/^ *//')"
    fi
done
exit $unnoticed
