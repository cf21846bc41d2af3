# Starts one process of a slot: joins its cgroup, sets limits, records itself, then becomes it.
# usage: launcher.sh RECORD BOOT_ID CGROUP OPEN_FILES PROCESSES DIRECTORY COMMAND [DROP...]
# An empty argument leaves its step out. DROP is a command that runs the rest as the app's user.
# Standard input is shell text that exports the app's own environment. It is read after the drop,
# because the app could otherwise choose what root runs (PATH, LD_PRELOAD).

record=$1 boot_id=$2 cgroup=$3 open_files=$4 processes=$5 directory=$6 command=$7
shift 7

fail() {
    echo "autopilot: $1" >&2
    exit 126
}

umask 022
[ -z "$cgroup" ] || echo $$ >"$cgroup/cgroup.procs" || fail "cannot join the cgroup $cgroup"
[ -z "$open_files" ] || ulimit -n "$open_files" || fail "cannot set limits.open_files"
# dash spells it -p, bash -u.
[ -z "$processes" ] || ulimit -p "$processes" 2>/dev/null || ulimit -u "$processes" ||
    fail "cannot set limits.processes"

# Written by the process itself, so that no daemon that dies between spawn and record loses it.
# Field 22 is the start time; the name in field 2 is that of sh, one word.
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ started _ </proc/$$/stat
printf '%s %s %s\n' "$$" "$started" "$boot_id" >"$record.tmp" && mv -f "$record.tmp" "$record" ||
    fail "cannot record the process in $record"

# The directory is entered as the app's user: a link planted there leads only where it may go.
# cd exports OLDPWD, which no app is promised.
stage='. /proc/self/fd/0 && exec </dev/null && cd -- "$1" && unset OLDPWD && exec /bin/sh -c "$2"'
[ $# -eq 0 ] || exec "$@" /bin/sh -c "$stage" sh "$directory" "$command"
set -- "$directory" "$command"
unset -f fail
eval "$stage"
