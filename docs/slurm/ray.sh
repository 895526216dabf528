#!/bin/bash
# Runs one cleanctl command on a Ray cluster of the nodes of this job, which ends with it.
#
#     export CLEANCTL_STORE=/shared/me/photos.zarr
#     sbatch --nodes=4 ray.sh cleanctl embed /shared/data/photos
#
# `--engine ray` and the cluster's address are added to the command. A job that died or ran out of time: submit it
# again; what is embedded is not embedded again.
#SBATCH --job-name=cleanctl-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch --nodes=N ray.sh cleanctl embed SOURCE [options]" >&2
    exit 2
fi
export RAY_USAGE_STATS_ENABLED=0
# A secret of this job: nobody else can use its cluster. Without one Ray takes ~/.ray/auth_token on the first node only.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
port=${RAY_PORT:-6379}
size=(--num-cpus="${SLURM_CPUS_PER_TASK:-$(nproc)}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

on() { # a step of one process on the node $1
    local node=$1
    shift
    exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "$@"
}

steps=()
driver=
stopped=
stop() { # the command finishes its batches, and says what remains
    stopped=yes
    [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true
}
end() {
    [ ${#steps[@]} -eq 0 ] || kill "${steps[@]}" 2>/dev/null || true
    wait
}
trap end EXIT
trap stop TERM INT

address=$(on "${nodes[0]}" hostname --ip-address)
address=${address%% *}
on "${nodes[0]}" ray start --head --block --include-dashboard=false --node-ip-address="$address" --port="$port" \
    "${size[@]}" &
steps+=($!)
for ((left = 120; left > 0; left--)); do
    ! (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null || break
    [ -z "$stopped" ] || exit 143
    sleep 1
done
for node in "${nodes[@]:1}"; do # those that are late join the work when they are there
    on "$node" ray start --block --address="$address:$port" "${size[@]}" &
    steps+=($!)
done

[ -z "$stopped" ] || exit 143
"$@" --engine ray --ray-address "$address:$port" &
driver=$!
[ -z "$stopped" ] || stop # a signal came before its number was known
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal came while it was waited for
    code=0
    wait "$driver" || code=$?
done
exit "$code"
