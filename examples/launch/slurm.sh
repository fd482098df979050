#!/bin/bash
# Several tasks at once on Slurm: Ray's head on the first node, a worker on each other one, one run on each GPU.
#   sbatch examples/launch/slurm.sh tasks/a tasks/b tasks/c
# The checkout, its .venv and ./runs stand on a disk that all nodes mount under the same path.
# One large model on all GPUs of one node instead: a job of one node, without Ray, that ends with
#   nesylora run tasks/a --set processes=8
#SBATCH --job-name=nesylora
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
set -euo pipefail
source .venv/bin/activate

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head:6379" RAY_USAGE_STATS_ENABLED=0
# Without a token anybody in the network may run code on the cluster. ~/.ray stands on the shared home.
[ -f ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null
export RAY_AUTH_MODE=token OMP_NUM_THREADS=4
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"   # which srun does not take over by itself, since Slurm 22.05

srun --nodes=1 --ntasks=1 -w "$head" --overlap \
    ray start --head --port=6379 --num-gpus="$SLURM_GPUS_ON_NODE" --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
        ray start --address="$RAY_ADDRESS" --num-gpus="$SLURM_GPUS_ON_NODE" --block &
    sleep 20
fi

nesylora doctor --cluster                          # ends here if a node has other versions, or does not see ./runs
nesylora run --on ray --runs "$PWD/runs" "$@" &    # the longest task first; prints how to go on if it is cut off
run=$!
trap 'kill -TERM "$run"' TERM                      # five minutes before the end, to this shell only (--signal above)
wait "$run" || wait "$run"                         # the signal ends the first wait
