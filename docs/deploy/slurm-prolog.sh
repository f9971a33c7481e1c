#!/bin/sh
# Slurm Prolog: a job begins on this node. Never fails the job.
PATH=/opt/wattledger/bin:$PATH
export WATTLEDGER_SPOOL="${WATTLEDGER_SPOOL:-/var/lib/wattledger/spool}"
said=$(timeout 10 wattledger job begin 2>&1) || logger -t wattledger "prolog of job $SLURM_JOB_ID: $said"
exit 0
