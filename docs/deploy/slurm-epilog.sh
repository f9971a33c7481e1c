#!/bin/sh
# Slurm Epilog: the job has ended on this node. Never fails the job.
PATH=/opt/wattledger/bin:$PATH
export WATTLEDGER_SPOOL="${WATTLEDGER_SPOOL:-/var/lib/wattledger/spool}"
said=$(timeout 10 wattledger job end 2>&1) || logger -t wattledger "epilog of job $SLURM_JOB_ID: $said"
exit 0
