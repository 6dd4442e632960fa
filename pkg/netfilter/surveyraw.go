package netfilter

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The nftables library leaves out what it does not know, without a word: some
// expressions of rules, and the interfaces that chains are made for. These are
// read here.

// raw is what the library does not show of a ruleset.
type raw struct {
	names   map[nftRule][]string // of a rule's expressions
	devices map[nftRule][]string // of a chain, whose handle is 0
}

func readRaw() (raw, error) {
	r := raw{map[nftRule][]string{}, map[nftRule][]string{}}
	if err := dump(unix.NFT_MSG_GETRULE, r.rule); err != nil {
		return raw{}, err
	}
	return r, dump(unix.NFT_MSG_GETCHAIN, r.chain)
}

// dump asks for all objects of a kind, and calls see with the attributes of each.
func dump(request netlink.HeaderType, see func(family byte, a *netlink.AttributeDecoder) error) error {
	return dumpOf(request, header(unix.AF_UNSPEC, 0), see)
}

// dumpOf is dump of those objects that a header and attributes name.
func dumpOf(request netlink.HeaderType, of []byte, see func(family byte, a *netlink.AttributeDecoder) error) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | request, Flags: netlink.Request | netlink.Dump},
		Data:   of,
	})
	if err != nil {
		return err
	}
	for _, m := range answers {
		if len(m.Data) < len(header(0, 0)) {
			return fmt.Errorf("the kernel's answer is %d octets long", len(m.Data))
		}
		a, err := netlink.NewAttributeDecoder(m.Data[len(header(0, 0)):])
		if err != nil {
			return err
		}
		a.ByteOrder = binary.BigEndian
		if err := see(m.Data[0], a); err != nil {
			return err
		}
	}
	return nil
}

func (r raw) rule(family byte, a *netlink.AttributeDecoder) error {
	var at nftRule
	var names []string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			at.table = rawTable(family, a)
		case unix.NFTA_RULE_CHAIN:
			at.chain = a.String()
		case unix.NFTA_RULE_HANDLE:
			at.handle = a.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			a.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(e *netlink.AttributeDecoder) error {
						for e.Next() {
							if e.Type() == unix.NFTA_EXPR_NAME {
								names = append(names, e.String())
							}
						}
						return nil
					})
				}
				return nil
			})
		}
	}
	r.names[at] = names
	return a.Err()
}

func (r raw) chain(family byte, a *netlink.AttributeDecoder) error {
	var at nftRule
	var devices []string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			at.table = rawTable(family, a)
		case unix.NFTA_CHAIN_NAME:
			at.chain = a.String()
		case unix.NFTA_CHAIN_HOOK:
			a.Nested(func(h *netlink.AttributeDecoder) error {
				devices = hookDevices(h)
				return nil
			})
		}
	}
	if devices != nil {
		r.devices[at] = devices
	}
	return a.Err()
}

// hookDevices reads the interfaces of a hook: one, or a list.
func hookDevices(h *netlink.AttributeDecoder) []string {
	const hookDevs, deviceName = 4, 1 // NFTA_HOOK_DEVS, NFTA_DEVICE_NAME
	var one, list []string
	for h.Next() {
		switch h.Type() {
		case unix.NFTA_HOOK_DEV:
			one = []string{h.String()}
		case hookDevs:
			h.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == deviceName {
						list = append(list, d.String())
					}
				}
				return nil
			})
		}
	}
	if list != nil {
		return list
	}
	return one
}

// rawTable is the table that an attribute names, as nft calls it.
func rawTable(family byte, a *netlink.AttributeDecoder) string {
	return tableName(&nftables.Table{Family: nftables.TableFamily(family), Name: a.String()})
}
