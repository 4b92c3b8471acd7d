#!/bin/sh
# A SLURM cluster of one node on this machine, for one command: slurm.sh COMMAND...
# Everything of it lies in a temporary folder: no service, no file in /etc, no accounting. When the command
# has ended its daemons are stopped; the folder with their logs stays if the command failed.
set -eu

[ "$(id -u)" = 0 ] || { echo "error: the daemons of SLURM need root; run: sudo make slurm" >&2; exit 1; }
missing=""
command -v slurmctld >/dev/null 2>&1 && command -v slurmd >/dev/null 2>&1 || missing="slurm-wlm"
command -v munged >/dev/null 2>&1 || missing="$missing munge"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || { echo "error: missing$missing; install them first" >&2; exit 1; }
    echo "installing $missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

cluster=$(mktemp -d /tmp/vla-slurm.XXXXXX)
chmod 755 "$cluster"  # munge insists that everyone can reach its socket
mkdir -m 700 "$cluster/state" "$cluster/spool" "$cluster/munge"
mkdir -m 755 "$cluster/socket"
export SLURM_CONF="$cluster/slurm.conf"
host=$(hostname -s)
cores=$(getconf _NPROCESSORS_ONLN)  # not nproc, which heeds OMP_NUM_THREADS

stop() {
    for daemon in slurmd slurmctld munged; do  # by the numbers that they wrote down
        if [ -s "$cluster/$daemon.pid" ]; then
            pid=$(cat "$cluster/$daemon.pid")
            kill "$pid" 2>/dev/null || true
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                kill -0 "$pid" 2>/dev/null || break
                sleep 0.5
            done
        fi
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# linuxproc and task/none need no cgroups: it works in a container too. Jobs are killed 10 s after SIGTERM.
cat > "$SLURM_CONF" <<CONF
ClusterName=vla
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${VLA_SLURMCTLD_PORT:-36817}
SlurmdPort=${VLA_SLURMD_PORT:-36818}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/socket/munge
CredType=cred/munge
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

dd if=/dev/urandom of="$cluster/munge/key" bs=128 count=1 2>/dev/null
chmod 600 "$cluster/munge/key"
munged --force --key-file="$cluster/munge/key" --socket="$cluster/socket/munge" \
    --pid-file="$cluster/munged.pid" --log-file="$cluster/munge/log" --seed-file="$cluster/munge/seed"
slurmctld
slurmd -N "$host"

tries=0
until sinfo --noheader --states=idle 2>/dev/null | grep -q "$host"; do
    tries=$((tries + 1))
    if [ "$tries" = 60 ]; then
        echo "error: the node does not come up; see $cluster/slurmctld.log and slurmd.log" >&2
        exit 1
    fi
    sleep 0.5
done
echo "a cluster of one node: $(sinfo --version), $cores cores, in $cluster"
"$@"
stop
trap - EXIT
rm -rf "$cluster"
