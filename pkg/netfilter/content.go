package netfilter

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// contentOf returns a word for all that a chain of nftables holds but what its rules have
// counted, with the chain's own names: the same word is the same rules. It is made of what
// the kernel says, and nothing of that is understood. A chain that is gone is empty.
func contentOf(p patience, c *nftables.Chain) (word string, empty bool, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q %q\n", c.Table.Family, c.Table.Name, c.Name)
	head := b.Len()
	err = p.unchanged(func(*nftables.Conn) error {
		text := b.String()[:head]
		b.Reset()
		b.WriteString(text)
		return rulesIn(c, func(a *netlink.AttributeDecoder) error { return writeRule(&b, a) })
	})
	return b.String(), b.Len() == head, err
}

// rulesIn calls see with the attributes of each rule of a chain.
func rulesIn(c *nftables.Chain, see func(*netlink.AttributeDecoder) error) error {
	chain, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: cString(c.Table.Name)},
		{Type: unix.NFTA_RULE_CHAIN, Data: cString(c.Name)},
	})
	if err != nil {
		return err
	}
	return dumpOf(unix.NFT_MSG_GETRULE, append(header(byte(c.Table.Family), 0), chain...), func(_ byte, a *netlink.AttributeDecoder) error { return see(a) })
}

// writeRule writes what a rule does, and what is noted beside it.
func writeRule(b *strings.Builder, a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_RULE_USERDATA:
			fmt.Fprintf(b, "beside %x\n", a.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			a.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(e *netlink.AttributeDecoder) error { return writeExpression(b, e) })
				}
				return nil
			})
		}
	}
	b.WriteString("end\n")
	return a.Err()
}

// writeExpression leaves out what a counter has counted.
func writeExpression(b *strings.Builder, e *netlink.AttributeDecoder) error {
	e.ByteOrder = binary.BigEndian
	name := ""
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_EXPR_NAME:
			name = e.String()
			fmt.Fprintf(b, "%q\n", name)
		case unix.NFTA_EXPR_DATA:
			if name != "counter" {
				fmt.Fprintf(b, "%x\n", e.Bytes())
			}
		}
	}
	return nil
}
