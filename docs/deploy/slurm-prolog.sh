#!/bin/sh
# Slurm Prolog: a job begins on this node. Never fails the job.
# As root: the record lies in runs/0, where no user can put one, and names the job's user (SLURM_JOB_UID).
PATH=/opt/wattledger/bin:$PATH
umask 022
export WATTLEDGER_SPOOL="${WATTLEDGER_SPOOL:-/var/lib/wattledger/spool}"
said=$(timeout 10 wattledger job begin 2>&1) || logger -t wattledger "prolog of job $SLURM_JOB_ID: $said"
exit 0
