#!/bin/bash
# Embeds images by a job array: each job takes one shard of the rows. A job after it checks and joins the shards.
#
#     export CLEANCTL_STORE=/shared/me/photos.zarr
#     job=$(sbatch --parsable --array=0-7 embed_array.sh /shared/data/photos)
#     sbatch --dependency=afterok:$job embed_array.sh /shared/data/photos
#
# Arguments are those of `cleanctl embed`, the same for both. A job that died or ran out of time: submit the same array
# again; what is embedded is not embedded again.
#SBATCH --job-name=cleanctl-embed
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch --array=0-7 embed_array.sh SOURCE [options of cleanctl embed]" >&2
    exit 2
fi
# exec: the signal before the time limit reaches cleanctl itself, which then finishes its batch and ends.
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    exec cleanctl embed "$@" --finish
fi
index=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}))
exec cleanctl embed "$@" --shard "$index/$SLURM_ARRAY_TASK_COUNT"
