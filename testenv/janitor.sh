#!/bin/sh
# janitor.sh PREFIX DIR OWNER: wait until the owner closes our standard input,
# which it does by asking or by dying in whatever way, then remove everything
# that bears its name: processes in network namespaces PREFIX-*, the namespaces,
# the mounts under DIR, and DIR.
#
# It is the only code that cleans up, so that the way of a crash is the way of
# every day.
set -u
trap '' INT TERM HUP PIPE
prefix=$1 dir=$2 owner=$3

case $prefix in portreeve-[0-9]*) ;; *) echo "janitor: not ours: $prefix" >&2; exit 2 ;; esac
case $dir in */"$prefix"-*) ;; *) echo "janitor: not ours: $dir" >&2; exit 2 ;; esac

cat >/dev/null

for path in /run/netns/"$prefix"-*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	for pid in $(ip netns pids "$name" 2>/dev/null); do
		[ "$pid" = "$owner" ] || kill -KILL "$pid" 2>/dev/null
	done
	ip netns delete "$name" || echo "janitor: the namespace $name stays" >&2
done

while read -r _ target _; do
	case $target in "$dir"/*) umount -l "$target" || echo "janitor: the mount $target stays" >&2 ;; esac
done </proc/mounts

rm -rf --one-file-system "$dir" || echo "janitor: the directory $dir stays" >&2
