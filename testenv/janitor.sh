#!/bin/sh
# janitor.sh PREFIX DIR OWNER: wait until the owner closes our standard input,
# which it does by asking or by dying in whatever way, then remove everything
# that bears its name: processes in network namespaces PREFIX-*, the namespaces,
# the control groups PREFIX-*, the mounts under DIR, and DIR.
#
# It is the only code that cleans up, so that the way of a crash is the way of
# every day.
set -u
trap '' INT TERM HUP PIPE
prefix=$1 dir=$2 owner=$3

case $prefix in portreeve-[0-9]*) ;; *) echo "janitor: not ours: $prefix" >&2; exit 2 ;; esac
case $dir in */"$prefix"-*) ;; *) echo "janitor: not ours: $dir" >&2; exit 2 ;; esac

cat >/dev/null

# Another janitor may be at the same work, when somebody sweeps before the one
# that was hired has begun: what counts is what is there in the end.

mounts() { # those below the directory
	while read -r _ target _; do
		case $target in "$dir"/*) echo "$target" ;; esac
	done </proc/mounts
}

gone() { # PATH: now, or in a moment by the other's hand
	tries=50
	while [ -e "$1" ]; do
		[ "$tries" -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 0.02
	done
}

for path in /run/netns/"$prefix"-*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	for pid in $(ip netns pids "$name" 2>/dev/null); do
		[ "$pid" = "$owner" ] || kill -KILL "$pid" 2>/dev/null
	done
	said=$(ip netns delete "$name" 2>&1) || gone "$path" || echo "janitor: the namespace $name stays: $said" >&2
done

groups() { # of version 2
	while read -r _ root kind _; do
		[ "$kind" != cgroup2 ] || { echo "$root"; return; }
	done </proc/mounts
}

emptied() { # GROUP: removed, once the processes that were killed have left it
	tries=50
	until rmdir "$1" 2>/dev/null || [ ! -e "$1" ]; do
		[ "$tries" -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 0.02
	done
}

for path in "$(groups)/$prefix"-*; do
	[ -e "$path" ] || continue
	emptied "$path" || echo "janitor: the control group $path stays" >&2
done

for target in $(mounts); do
	umount -l "$target" 2>/dev/null
done
[ -z "$(mounts)" ] || echo "janitor: mounts below $dir stay" >&2

rm -rf --one-file-system "$dir" 2>/dev/null
gone "$dir" || echo "janitor: the directory $dir stays" >&2
