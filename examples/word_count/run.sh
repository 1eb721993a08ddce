#!/usr/bin/env bash
# Needs servers: run `fanfold dev` in another terminal and export here what it prints (or set DATABASE_URL and
# KAFKA_BOOTSTRAP_SERVERS to your own).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fanfold migrate
fanfold publish lines.jsonl --topic words.v1 --create-topic 4 --thread words-1 --node count_words --fold merge_counts

fanfold consume --handlers tasks --group words --topic words.v1 --log-level warning &
member=$!
trap 'kill "$member"; wait "$member"' EXIT

# The same file with the same options is the same fan-out: nothing is done twice, and --wait brings its result.
fanfold publish lines.jsonl --topic words.v1 --thread words-1 --node count_words --fold merge_counts --wait --timeout 60

fanfold status --group words
fanfold replay --group words --topic words.v1 --to-earliest --fence --execute
