#!/bin/bash
# One image a task: sbatch --array=0-$(($(wc -l <scenes.txt) - 1)) slurm_array.sh scenes.txt labels forest
#SBATCH --job-name=tilepipe
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=04:00:00
# A task that is preempted is put into the queue again and goes on where it was.
#SBATCH --requeue
#SBATCH --signal=TERM@60
set -euo pipefail

list=$1 output=$2 model=$3
mapfile -t images <"$list"
image=${images[$SLURM_ARRAY_TASK_ID]}
name=$(basename "$image")
mkdir -p "$output"
# SLURM tells the limit on memory to the processes of a task, and tilepipe keeps within half of it.
exec tilepipe segment "$image" "$output/${name%.*}.labels.tif" -m "$model" --progress plain
