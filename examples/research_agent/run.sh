#!/usr/bin/env bash
# Needs servers, as examples/word_count/run.sh does, and pip install 'fanfold[langgraph]'.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fanfold migrate
python ask.py prepare

fanfold consume --graph agent:builder --group research --topic research.v1 --log-level warning &
member=$!
trap 'kill "$member"; wait "$member"' EXIT

python ask.py
