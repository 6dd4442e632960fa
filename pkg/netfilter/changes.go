package netfilter

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Changes calls heard whenever the nftables ruleset has changed in the network
// namespace of the calling thread, that of iptables-nft included, until ctx ends.
// Of changes of iptables-legacy the kernel tells nobody. A kernel without nftables has
// nothing to tell.
func Changes(ctx context.Context, heard func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen to changes of the packet filter: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer stop()
		for ctx.Err() == nil {
			_, err := conn.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			heard()
		}
	}()
	return nil
}
