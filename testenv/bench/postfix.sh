#!/bin/sh
# postfix.sh USER COUNT OCTETS: send mail as COUNT clients, again and again.
#
# For each line "ADDRESS SESSIONS PARALLEL" of standard input each client sends
# SESSIONS messages of OCTETS octets to ADDRESS, every one in a session of its
# own, PARALLEL at a time. When all have finished the line "done" is written, or
# "failed". The clients are told apart by their users, USER and those after it:
# smtp-source cannot choose its source address, but a route can.
set -u
user=$1 count=$2 octets=$3

client() { # USER ADDRESS SESSIONS PARALLEL
	exec setpriv --reuid "$1" --regid 65534 --clear-groups -- \
		smtp-source -l "$octets" -m "$3" -s "$4" -M client.example.net -f a@example.net -t b@example.org "$2"
}

while read -r address sessions parallel; do
	pids='' n=0 result='done'
	while [ "$n" -lt "$count" ]; do
		client $((user + n)) "$address" "$sessions" "$parallel" &
		pids="$pids $!"
		n=$((n + 1))
	done
	for pid in $pids; do
		wait "$pid" || result=failed
	done
	echo "$result"
done
