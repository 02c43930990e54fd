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
#   DTP_DIST_START_LIMIT  seconds that the nodes together may take to start (90)
#   DTP_DIST_BIN          folder with ray, python and dtp-dist (.venv/bin here where it has ray, else from PATH)
#   DTP_DIST_ENTRYPOINT   a shell command to submit instead of the training
#
# It listens on loopback only, asks for a token made for this cluster alone, and ends only what it started:
# other Ray clusters of this machine stay as they are. GPUs stay out of it (their place is parallel.runtime=ray
# without a cluster, or one node per machine). Linux only.
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
((workers >= 1)) || die 2 "WORKERS is 1 or more"
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
if [[ -n $bin ]]; then PATH=$(cd "$bin" && pwd):$PATH; fi
command -v ray >/dev/null || die 1 "no 'ray' here: pip install 'dtp-dist[ray]', or name its folder in DTP_DIST_BIN"
python -c 'import aiohttp, opencensus, prometheus_client' 2>/dev/null ||
    die 1 "'ray job submit' needs more than plain ray: pip install 'ray[default]'"

if [[ -n ${DTP_DIST_ENTRYPOINT:-} ]]; then
    entrypoint=(bash -c "$DTP_DIST_ENTRYPOINT")
else
    [[ -f $config ]] || die 2 "no config '$config'"
    entrypoint=(dtp-dist train "$config" "${overrides[@]}" "run_dir=$run_dir")
fi

scratch=$(mktemp -d /tmp/dtp.XXXXXX) # short: paths of sockets end at 107 bytes
pids=()

# shellcheck disable=SC2329  # the trap calls it
take_down() {
    local code=$?
    trap - EXIT INT TERM HUP
    set +e
    # Each is a `ray start --block`, and the kernel ends its children with it.
    for signal in TERM KILL; do
        for ((tick = 0; tick < 100; tick++)); do
            alive=()
            for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null && alive+=("$pid"); done
            ((${#alive[@]})) || break 2
            ((tick)) || kill "-$signal" "${alive[@]}" 2>/dev/null
            sleep 0.1
        done
    done
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
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$scratch/token RAY_USAGE_STATS_ENABLED=0 CUDA_VISIBLE_DEVICES=
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

# start NAME [OPTION ...]: one node, in the background, ended by the kernel if this shell is killed.
start() {
    local name=$1
    shift
    setpriv --pdeathsig TERM ray start --block --node-ip-address="127.0.0.$((2 + ${#pids[@]}))" \
        --temp-dir="$scratch/$name" \
        --num-gpus=0 --object-store-memory=100000000 --dashboard-agent-listen-port=0 \
        "$@" >"$scratch/$name.log" 2>&1 </dev/null &
    pids+=($!)
}

# A node writes this file once it has joined.
joined() { [[ -s $scratch/$1/ray_current_cluster ]]; }

await() {
    until joined "$1"; do
        kill -0 "${pids[-1]}" 2>/dev/null || give_up "$1" "ended while starting"
        ((SECONDS < ${DTP_DIST_START_LIMIT:-90})) || give_up "$1" "did not start in time (DTP_DIST_START_LIMIT)"
        sleep 0.2
    done
}

give_up() {
    tail -n 20 "$scratch/$1.log" >&2
    die 1 "the node '$1' $2"
}

free_ports='
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in sockets])'
read -r dashboard client < <(python -c "$free_ports")
start head --head --port=0 --num-cpus=0 --include-dashboard=true \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --ray-client-server-port="$client"
await head
address=$(<"$scratch/head/ray_current_cluster")
for ((index = 1; index <= workers; index++)); do
    start "w$index" --address="$address" --num-cpus=1
    await "w$index"
done
echo "local-cluster: a head and $workers workers at $address, dashboard at http://127.0.0.1:$dashboard"

# The job may run anywhere on this machine, so it is told where this was called.
# shellcheck disable=SC2016  # "$0" and "$@" are for the inner shell
timeout --kill-after=10 "${DTP_DIST_TIME_LIMIT:-3600}" \
    ray job submit --address="http://127.0.0.1:$dashboard" -- \
    bash -c 'cd "$0" && exec "$@"' "$here" "${entrypoint[@]}" &
pids+=($!)
code=0
wait $! || code=$?
if ((code == 124)); then echo "local-cluster: the time limit of ${DTP_DIST_TIME_LIMIT:-3600} s is over" >&2; fi
if [[ -d $run_dir ]]; then echo "local-cluster: the run is in $run_dir"; fi
exit "$code"
