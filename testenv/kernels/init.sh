#!/busybox/busybox sh
# shellcheck shell=dash
# init.sh: the first process of a guest. It mounts what a running Debian has
# mounted, runs the tests with their output on the second serial line and turns
# the machine off. Modules are loaded by the kernel when it wants them, as on
# any machine.
#
# This shell prefers the applets of busybox to programs; the tests' shell is
# Debian's.
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/root TERM=dumb LC_ALL=C
export PORTREEVE_TEST_GUEST=yes # all kinds of links are there, and all is slow

/busybox/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir /dev/net
mknod /dev/net/tun c 10 200 # made by udev elsewhere; opening it loads the module
hostname guest
/usr/sbin/ip link set dev lo up

stty -F /dev/ttyS1 raw -echo
set -f # flags are words as they are
# shellcheck disable=SC2046
/usr/bin/sh /portreeve/testenv/kernels/run-tests.sh /portreeve /tests $(cat /tests/flags) >/dev/ttyS1 2>&1
poweroff -f
