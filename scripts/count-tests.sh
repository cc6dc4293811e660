#!/usr/bin/env bash
# Adds up the tests that a log of `make test` tells of: cargo-nextest, cargo, vitest, and the
# end-to-end runner. Prints one line; fails when it finds no test at all.
set -euo pipefail

sed -E 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    # Summary [   1.2s] 12 tests run: 12 passed, 3 skipped
    /^ *Summary \[.*tests? run:/ {
        for (i = 1; i < NF; i++) if ($(i + 1) ~ /^passed/) passed += $i; else if ($(i + 1) ~ /^failed/) failed += $i
    }
    # test result: ok. 12 passed; 0 failed; 0 ignored; …
    /^test result:/ { passed += $4; failed += $6 }
    # Tests  2 failed | 12 passed (14)
    /^ *Tests  / {
        for (i = 1; i < NF; i++) if ($(i + 1) ~ /^passed/) passed += $i; else if ($(i + 1) ~ /^failed/) failed += $i
    }
    END {
        printf "%d tests run: %d passed, %d failed\n", passed + failed, passed, failed
        exit (passed + failed == 0 || failed > 0)
    }'
