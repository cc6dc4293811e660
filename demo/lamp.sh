#!/bin/sh
# Prints the lighthouse's signal: two short, one long.
for flash in short short; do
    printf '%s ' "$flash"
done
echo
