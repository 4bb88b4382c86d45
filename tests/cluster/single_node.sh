#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests: munge, slurmctld, slurmd, without cgroups and accounting. As root.
#
#     tests/cluster/single_node.sh start     # after: apt-get install -y slurmctld slurmd slurm-client munge
#     tests/cluster/single_node.sh stop
set -euo pipefail
DIR="${SLURM_TEST_DIR:-/tmp/rnem-slurm}"
export SLURM_CONF="$DIR/slurm.conf"

start() {
    for tool in munged slurmctld slurmd sinfo; do
        command -v "$tool" >/dev/null || { echo "error: $tool is missing: apt-get install -y slurmctld slurmd slurm-client munge" >&2; exit 2; }
    done
    mkdir -p "$DIR"/{state,spool,log} /run/munge
    chown munge:munge /run/munge /etc/munge /var/log/munge /var/lib/munge
    if ! munge -n >/dev/null 2>&1; then
        if [ ! -s /etc/munge/munge.key ]; then
            dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
        fi
        chown munge:munge /etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
        setpriv --reuid munge --regid munge --clear-groups munged --pid-file "$DIR/munged.pid"
    fi
    host="$(hostname -s)"
    cat >"$SLURM_CONF" <<CONF
ClusterName=rnem
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=3600
ReturnToService=2
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    # Snakemake takes SLURM_CONF from the jobs' environment, so that srun looks in the usual place.
    [ -e /etc/slurm/slurm.conf ] || ln -sfn "$SLURM_CONF" /etc/slurm/slurm.conf
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 120); do
        if [ "$(sinfo -h -o %t 2>/dev/null)" = idle ]; then
            echo "one node is idle; SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    echo "error: the node did not come up; see $DIR/log" >&2
    exit 1
}

stop() {
    if [ "$(readlink /etc/slurm/slurm.conf)" = "$SLURM_CONF" ]; then
        rm /etc/slurm/slurm.conf
    fi
    for daemon in slurmd slurmctld munged; do
        if [ -s "$DIR/$daemon.pid" ]; then
            kill "$(cat "$DIR/$daemon.pid")" 2>/dev/null || true
        fi
    done
}

case "${1:-}" in
    start | stop) "$1" ;;
    *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
