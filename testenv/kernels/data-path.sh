#!/bin/sh
# data-path.sh TREE PORTREEVE: attach the smallest configuration in a network
# namespace of its own and print how packets are steered, in the words of
# `portreeve status`: "tcx" or "clsact".
#
# tc, which shows filters but no TCX links, must agree. The namespaces, and all
# that is attached in them, end with this script.
set -eu
tree=$1 portreeve=$2
if [ -z "${ALONE:-}" ]; then
	ALONE=yes exec unshare --net --mount --propagation private sh "$0" "$@"
fi
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf

ip link set dev lo up
ip link add dev ext0 type veth peer name ext1
ip link add dev dmz0 type veth peer name dmz1
ip address add 172.16.40.1/24 dev ext0
ip address add 172.16.20.1/24 dev dmz0
for device in ext0 ext1 dmz0 dmz1; do
	ip link set dev "$device" up
done

"$portreeve" attach -c "$tree/pkg/config/minimal.yaml" >/dev/null
said=$("$portreeve" status --json | sed -n 's/.*"datapath": *"\([a-z]*\)".*/\1/p')
seen=tcx
if tc filter show dev dmz0 ingress | grep -q 'bpf.*direct-action'; then
	seen=clsact
fi
if [ "$said" != "$seen" ]; then
	echo "portreeve status says data path '$said', tc shows $seen" >&2
	exit 1
fi
echo "$said"
