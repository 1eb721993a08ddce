#!/usr/bin/env bash
# publish.sh TOPIC THREAD_ID FAN_OUT_ID FILE
# Publishes each line of FILE (nanoseconds, a tab, text) as a task of one fan-out, all of them or none, with kcat.
set -euo pipefail
export LC_ALL=C # ${#text} has to count bytes

if (($# != 4)); then
    echo "usage: $0 TOPIC THREAD_ID FAN_OUT_ID FILE" >&2
    exit 2
fi
topic=$1 thread_id=$2 fan_out_id=$3 file=$4
size=$(($(wc -l <"$file")))

# msgpack in its longest forms: a byte for the type, then a number of fixed width, big-endian. Any reader takes them.
raw() { printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"; } # the bytes that these hex digits stand for
number() { raw "$(printf "%0$2x" "$1")"; }            # in so many hex digits
map() { printf '\xdf' && number "$1" 8; }             # so many keys follow, and after each its value
text() { printf '\xdb' && number ${#1} 8 && printf '%s' "$1"; }
bytes() { printf '\xc6' && number $((${#1} / 2)) 8 && raw "$1"; } # given in hex digits
int() {
    # Beyond int64 printf wraps around or stops at the end, either of them with status 0.
    [[ $(printf '%d' "$1") == "$1" ]] || { echo "$1 is no integer of 64 bits" >&2 && exit 1; }
    printf '\xd3' && number "$1" 16
}

task() { # task_id index nanoseconds text
    map 7
    text v && int 1
    text task_id && text "$1"
    text thread_id && text "$thread_id"
    text fan_out && map 3
    text id && text "$fan_out_id"
    text size && int "$size"
    text fold && text sum_lines
    text index && int "$2"
    text node && text count_line
    text arg && map 3
    text text && text "$4"
    text at_ns && int "$3"
    text sha256 && bytes "$(printf '%s' "$4" | sha256sum | cut -c 1-64)"
}

# What ends a key and what ends a record must occur in none of them: random bits.
random() { od -An -N 16 -tx1 /dev/urandom | tr -d ' \n'; }
key_end=$(random) record_end=$(random)

records() {
    local index=0 at line task_id
    while IFS=$'\t' read -r at line; do
        task_id=$fan_out_id.$index # an id of our own, the same each time
        printf '%s' "$task_id$key_end"
        task "$task_id" "$index" "$at" "$line"
        printf '%s' "$record_end"
        index=$((index + 1))
    done <"$file"
}

# All records first, then kcat: it commits when its input ends, even if what made the input broke off.
input=$(mktemp)
trap 'rm -f "$input"' EXIT
records >"$input"

# Headers are the same for all records of a call, so there is no ce_id.
kcat -P -b "${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}" -t "$topic" -l -D "$record_end" -K "$key_end" \
    -X "transactional.id=fanfold-$fan_out_id" \
    -H ce_specversion=1.0 \
    -H ce_source=fanfold-kcat-example \
    -H ce_type=fanfold.task.v1 \
    -H "content-type=application/vnd.fanfold.task+msgpack; version=1" \
    -H "fanfold-thread-id=$thread_id" \
    -H "fanfold-fan-out-id=$fan_out_id" \
    -H fanfold-node=count_line \
    -H fanfold-run=1 \
    ${TRACEPARENT:+-H "traceparent=$TRACEPARENT"} \
    "$input"
echo "published $size tasks of fan-out $fan_out_id to $topic"
