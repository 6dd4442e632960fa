package route

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// groups are the notifications of rtnetlink about what we have, and what it depends
// on: interfaces and their addresses, rules, routes, qdiscs and filters.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_TC,
}

// Changes calls heard whenever something of the kind has changed in the network
// namespace of the calling thread, until ctx ends. What is heard may be over when
// heard runs, and may have been our own doing.
func Changes(ctx context.Context, heard func()) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("listen to changes of routing: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	go func() {
		defer stop()
		for ctx.Err() == nil {
			messages, _, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // more than fits: something has changed
				heard()
			case err != nil:
				return
			}
			for _, m := range messages {
				if concernsUs(m.Header.Type, m.Data) {
					heard()
					break
				}
			}
		}
	}()
	return nil
}

// concernsUs passes over the routes of others: a router of the Internet hears of a
// million.
func concernsUs(kind uint16, data []byte) bool {
	if kind != unix.RTM_NEWROUTE && kind != unix.RTM_DELROUTE {
		return true
	}
	return len(data) >= unix.SizeofRtMsg && nl.DeserializeRtMsg(data).Protocol == Protocol
}
