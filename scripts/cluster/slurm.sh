#!/usr/bin/env bash
# A real Slurm of one node, this machine, for trying out sweeps and for `make test-slurm`.
#
#   scripts/cluster/slurm.sh start     install Slurm and munge where absent (Debian; needs root), start them;
#                                      status 3 if they cannot be installed
#   scripts/cluster/slurm.sh stop      stop them and remove what they wrote
#
# Everything is in FOLDER (default /tmp/anchorloss-slurm), on ports of its own: a Slurm or munge that this machine has
# already is left alone. Say `export SLURM_CONF=/tmp/anchorloss-slurm/slurm.conf` before sinfo, squeue or train.py.
# Two partitions: jobs of `urgent` pre-empt jobs of `spare` (the default), which Slurm then requeues.
set -euo pipefail

FOLDER=${FOLDER:-/tmp/anchorloss-slurm}
export SLURM_CONF=$FOLDER/slurm.conf

install_packages() {
    for program in slurmctld slurmd munged; do
        command -v "$program" >/dev/null || missing=yes
    done
    [ -n "${missing:-}" ] || return 0
    echo "installing slurm-wlm and munge"
    if ! { apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; }; then
        echo "slurm-wlm and munge cannot be installed here: that takes Debian and root" >&2
        exit 3
    fi
}

write_config() {
    local node memory
    node=$(hostname -s)
    # What slurmd finds itself, less a little: it may not be less than configured when it starts again.
    memory=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024 * 9 / 10))
    cat >"$SLURM_CONF" <<EOF
ClusterName=anchorloss
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# A requeued job waits for the credential of its last start to expire.
AuthInfo=socket=$FOLDER/munge.socket,cred_expire=5
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
# No cgroups and no systemd: this runs in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1
JobRequeue=1
KillWait=15
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory
PartitionName=spare Nodes=$node Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes=$node PriorityTier=10 PreemptMode=OFF
EOF
}

is_running() {
    # The number may belong to another program by now.
    [ -f "$FOLDER/$1.pid" ] && [ "$(cat "/proc/$(cat "$FOLDER/$1.pid")/comm" 2>/dev/null)" = "$1" ]
}

start() {
    if is_running slurmctld && is_running slurmd && is_running munged; then
        echo "already running; export SLURM_CONF=$SLURM_CONF"
        return
    fi
    install_packages
    stop
    mkdir -p -m 755 "$FOLDER" "$FOLDER/state" "$FOLDER/spool"
    write_config
    mungekey --create --keyfile="$FOLDER/munge.key"
    munged --force --key-file="$FOLDER/munge.key" --socket="$FOLDER/munge.socket" --pid-file="$FOLDER/munged.pid" \
        --log-file="$FOLDER/munged.log" --seed-file="$FOLDER/munged.seed"
    slurmctld
    slurmd
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --format=%T 2>/dev/null | sort -u)" = idle ]; then
            echo "running; export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    tail -n 5 "$FOLDER"/*.log >&2
    echo "Slurm did not start; its logs are in $FOLDER" >&2
    exit 1
}

stop() {
    local daemon process
    if is_running slurmctld; then
        scancel --user="$(id -un)"
        sleep 0.5
    fi
    for daemon in slurmd slurmctld munged; do
        is_running "$daemon" || continue
        process=$(cat "$FOLDER/$daemon.pid")
        kill "$process"
        while [ -d "/proc/$process" ]; do sleep 0.1; done
    done
    rm -rf "$FOLDER"
}

case "${1:-}" in
start | stop) "$1" ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
