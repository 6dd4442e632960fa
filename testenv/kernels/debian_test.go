package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewestKernel(t *testing.T) {
	for _, names := range [][]string{
		{"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"},
		{"linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.111+deb12-cloud-amd64"},
	} {
		want := names[1]
		for range names {
			slices.Reverse(names)
			if got := slices.MaxFunc(names, compareVersions); got != want {
				t.Errorf("newest of %q: %s", names, got)
			}
		}
	}
}

func TestSelectModules(t *testing.T) {
	const dep = `kernel/drivers/net/veth.ko.xz:
kernel/drivers/net/geneve.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz
kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/net/netfilter/xt_CT.ko.xz: kernel/net/netfilter/x_tables.ko.xz kernel/arch/x86/libneeded.ko.xz
kernel/net/netfilter/x_tables.ko.xz:
kernel/sound/soundcore.ko.xz:
`
	want := []string{
		"kernel/arch/x86/libneeded.ko.xz",
		"kernel/drivers/net/veth.ko.xz",
		"kernel/drivers/net/vxlan/vxlan.ko.xz",
		"kernel/lib/libcrc32c.ko.xz",
		"kernel/net/netfilter/x_tables.ko.xz",
		"kernel/net/netfilter/xt_CT.ko.xz",
	}
	if diff := cmp.Diff(want, selectModules(dep)); diff != "" {
		t.Error(diff)
	}
}
