#!/bin/bash
# Searches by coverage for input that a decoder does not survive: `scripts/fuzz.sh SECONDS [TARGET…]`.
# libFuzzer on the stable compiler: no sanitizer, since nothing of ours is unsafe; what is looked for is
# panics, overflows, hangs and memory. What is found is written to fuzz/found; what is worth replaying
# for ever belongs into fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
shift || true
[ $# -gt 0 ] || set -- $(ls corpus)

machine=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing"
# With a target named, build scripts and macros are built without these flags.
RUSTFLAGS="$flags" cargo build --release --locked --target "$machine"
fuzzer=target/$machine/release/farhelm-fuzzer
FARHELM_SEEDS=target/seeds "$fuzzer"

status=0
for target in "$@"; do
	mkdir -p "target/corpus/$target" found
	log=target/$target.log
	FARHELM_FUZZ=$target "$fuzzer" "target/corpus/$target" "corpus/$target" "target/seeds/$target" \
		-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
		-artifact_prefix="found/$target-" >"$log" 2>&1 || status=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
	peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
	covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
	echo "$target: ${runs:-?} runs, coverage ${covered:-?}, peak ${peak:-?} MB; $(grep -c 'Test unit written' "$log" || true) found"
	grep -m3 -E 'panicked at|ERROR: libFuzzer|Test unit written' -A1 "$log" || true
done
exit "$status"
