#!/usr/bin/env bash
# A Ray cluster on this machine alone: a head, N workers of one CPU each, one training job, and nothing left after it.
#
#   launch/local-cluster.sh [WORKERS] [CONFIG.yaml] [key=value ...]
#
#   launch/local-cluster.sh                                   the digits, two workers, one stage on each
#   launch/local-cluster.sh 4 configs/mnist_dtp_adam.yaml parallel.in_flight=4 train.epochs=1
#
# WORKERS is 2 and CONFIG.yaml is configs/digits_dtp.yaml by default; parallel.stages is WORKERS unless it is given.
# Exit code: 0 the job succeeded, 1 it failed or the cluster did not start, 2 a wrong call, 124 the time limit.
#
# Variables:
#   DTP_DIST_TIME_LIMIT   seconds that the job may take (3600)
#   DTP_DIST_START_LIMIT  seconds that a node may take to start; five tries (25)
#   DTP_DIST_BIN          folder with ray, python and dtp-dist (.venv/bin here where it has ray, else from PATH)
#   DTP_DIST_ENTRYPOINT   a shell command to submit instead of the training
#
# Nodes have loopback addresses (127.0.0.2 and up), the dashboard listens on 127.0.0.1, and every call needs a token
# made for this cluster alone. (Ray's own gRPC ports listen on all interfaces unless a node is at 127.0.0.1, which it
# allows for one-node clusters only; without the token they answer nothing.)
# It ends only what it started: other Ray clusters of this machine stay as they are. GPUs stay out of it: their place
# is parallel.runtime=ray without a cluster, or one node per machine. Linux only.
set -euo pipefail

die() {
    echo "local-cluster: $2" >&2
    exit "$1"
}

here=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

workers=2
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    workers=$1
    shift
fi
((workers >= 1 && workers <= 200)) || die 2 "WORKERS is 1 to 200"
config=$root/configs/digits_dtp.yaml
if [[ ${1:-} == *.yaml ]]; then
    config=$1
    shift
fi
run_dir=$here/runs/local-cluster-$(date +%Y%m%d-%H%M%S)-$$
overrides=(parallel.runtime=ray "parallel.stages=$workers")
for override in "$@"; do
    [[ $override == *=* ]] || die 2 "'$override' is no key=value; usage: $0 [WORKERS] [CONFIG.yaml] [key=value ...]"
    if [[ $override == run_dir=* ]]; then run_dir=${override#run_dir=}; else overrides+=("$override"); fi
done
[[ $run_dir == /* ]] || run_dir=$here/$run_dir

bin=${DTP_DIST_BIN:-}
if [[ -z $bin && -x $root/.venv/bin/ray ]]; then bin=$root/.venv/bin; fi
if [[ -n $bin ]]; then
    [[ -x $bin/ray ]] || die 2 "no 'ray' in DTP_DIST_BIN, $bin"
    PATH=$(cd "$bin" && pwd):$PATH
fi
command -v ray >/dev/null || die 1 "no 'ray' here: pip install -e '${root}[ray]', or name its folder in DTP_DIST_BIN"
python -c 'import aiohttp, opencensus, prometheus_client' 2>/dev/null ||
    die 1 "'ray job submit' needs more than plain ray: pip install 'ray[default]'"

if [[ -n ${DTP_DIST_ENTRYPOINT:-} ]]; then
    entrypoint=(bash -c "$DTP_DIST_ENTRYPOINT")
else
    [[ -f $config ]] || die 2 "no config '$config'"
    entrypoint=(dtp-dist train "$config" "${overrides[@]}" "run_dir=$run_dir")
fi

start_limit=${DTP_DIST_START_LIMIT:-25}
parent=${TMPDIR:-/tmp}
((${#parent} <= 24)) || parent=/tmp # paths of sockets end at 107 bytes
scratch=$(mktemp -d "$parent/dtp.XXXXXX")
mkdir "$scratch/tmp"
nodes=()
submit=

# shellcheck disable=SC2329  # the trap calls it
take_down() {
    local code=$?
    trap - EXIT INT TERM HUP
    set +e
    # Each node is a `ray start --block`: the kernel ends its servers with it. There is nothing to save in them, and
    # asked politely they take half a minute.
    [[ -z $submit ]] || kill -TERM "$submit" 2>/dev/null
    ((${#nodes[@]} == 0)) || kill -KILL "${nodes[@]}" 2>/dev/null
    # Workers and the driver end by themselves when their node is gone; this only sees to it.
    unset RAY_AUTH_TOKEN_PATH # or what looks for it would find itself
    for ((tick = 0; tick < 60; tick++)); do
        mapfile -t left < <(grep -lsz "^RAY_AUTH_TOKEN_PATH=$scratch/token$" /proc/[0-9]*/environ | cut -d/ -f3)
        ((${#left[@]})) || break
        ((tick < 50)) || kill -KILL "${left[@]}" 2>/dev/null
        sleep 0.1
    done
    rm -rf "$scratch"
    exit "$code"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

unset RAY_ADDRESS RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN
export TMPDIR=$scratch/tmp # what is killed leaves its files there
export SPT_NOENV=1         # or Ray's agents write their names over the environment by which they are found
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$scratch/token RAY_USAGE_STATS_ENABLED=0 CUDA_VISIBLE_DEVICES=
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

# start NAME [OPTION ...]: one node, in the background, ended by the kernel if this shell is killed.
# Each node has a loopback address of its own, so that Ray and dtp_dist see as many hosts as a cluster has.
start() {
    local name=$1
    shift
    setpriv --pdeathsig KILL ray start --block --node-ip-address="127.0.0.$((2 + ${#nodes[@]}))" \
        --node-name="$name" --temp-dir="$scratch/$name" --num-gpus=0 --object-store-memory=100000000 \
        --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 \
        "$@" >"$scratch/$name.log" 2>&1 </dev/null &
    nodes+=($!)
    disown # no word from the shell when it ends
}

# A node writes this file once it has joined.
joined() { [[ -s $scratch/$1/ray_current_cluster ]]; }

# add NAME [OPTION ...]: start a node and wait until it has joined; again where it has not: on a busy machine one
# start of Ray in ten stalls (its first question to the head gets no answer), and the next one takes seconds.
add() {
    local name=$1 attempt deadline
    for attempt in 1 2 3 4 5; do
        start "$@"
        deadline=$((SECONDS + start_limit))
        while ((SECONDS < deadline)) && kill -0 "${nodes[-1]}" 2>/dev/null; do
            if joined "$name"; then return; fi
            sleep 0.2
        done
        echo "local-cluster: the node '$name' did not start (attempt $attempt)" >&2
        kill -KILL "${nodes[-1]}" 2>/dev/null || true
        unset 'nodes[-1]'
        rm -rf "${scratch:?}/$name"
    done
    tail -n 20 "$scratch/$name.log" >&2
    die 1 "the node '$name' did not start"
}

free_ports='
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in sockets])'
read -r dashboard client < <(python -c "$free_ports")
add head --head --port=0 --num-cpus=0 --include-dashboard=true \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --ray-client-server-port="$client"
address=$(<"$scratch/head/ray_current_cluster")
for ((index = 1; index <= workers; index++)); do
    add "w$index" --address="$address" --num-cpus=1
done
echo "local-cluster: a head and $workers worker(s) at $address, dashboard at http://127.0.0.1:$dashboard"

# The job may run anywhere on this machine, so it is told where this was called.
# shellcheck disable=SC2016  # "$0" and "$@" are for the inner shell
setpriv --pdeathsig TERM timeout --kill-after=10 "${DTP_DIST_TIME_LIMIT:-3600}" \
    ray job submit --address="http://127.0.0.1:$dashboard" -- \
    bash -c 'cd "$0" && exec "$@"' "$here" "${entrypoint[@]}" &
submit=$!
code=0
wait "$submit" || code=$?
if ((code == 124)); then echo "local-cluster: the time limit of ${DTP_DIST_TIME_LIMIT:-3600} s is over" >&2; fi
if [[ -d $run_dir ]]; then echo "local-cluster: the run is in $run_dir"; fi
exit "$code"
