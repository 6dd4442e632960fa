package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// nonRecursive (NLM_F_NONREC) makes the kernel refuse to delete what is not
// empty. Without it a deleted table takes all its chains and rules along, and
// between our look at it and its deletion somebody may have put one there.
// The nftables library cannot set it, hence this file.
const nonRecursive netlink.HeaderFlags = 0x100

// answerTime bounds the wait for the kernel, which answers at once.
const answerTime = 10 * time.Second

// deletion is one object to delete.
type deletion struct {
	message    netlink.HeaderType // NFT_MSG_DEL…
	family     nftables.TableFamily
	attributes []netlink.Attribute
}

func tableDeletion(t plan.Table) deletion {
	return deletion{unix.NFT_MSG_DELTABLE, nftFamily(t.Family), []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: cString(t.Name)},
	}}
}

func chainDeletion(c *nftables.Chain) deletion {
	return deletion{unix.NFT_MSG_DELCHAIN, c.Table.Family, []netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: cString(c.Table.Name)},
		{Type: unix.NFTA_CHAIN_NAME, Data: cString(c.Name)},
	}}
}

// deleteAtOnce deletes all the objects or, when one of them is not empty or
// not there, none.
func deleteAtOnce(all ...deletion) error {
	batch := []netlink.Message{batchMark(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, d := range all {
		m, err := d.encode()
		if err != nil {
			return err
		}
		batch = append(batch, m)
	}
	batch = append(batch, batchMark(unix.NFNL_MSG_BATCH_END))
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.SendMessages(batch); err != nil {
		return fmt.Errorf("delete from nftables: %w", err)
	}
	for range all {
		// The first refusal is the answer: the batch is taken back as one.
		if _, err := c.Receive(); err != nil {
			return fmt.Errorf("delete from nftables: %w", err)
		}
	}
	return nil
}

// generation returns the number that the kernel counts up with every change
// of the ruleset.
func generation() (uint32, error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	answer, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   header(unix.AF_UNSPEC, 0),
	})
	if err != nil {
		return 0, err
	}
	if len(answer) != 1 || len(answer[0].Data) < len(header(0, 0)) {
		return 0, errors.New("the kernel names no generation of the ruleset")
	}
	a, err := netlink.NewAttributeDecoder(answer[0].Data[len(header(0, 0)):])
	if err != nil {
		return 0, err
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		if a.Type() == unix.NFTA_GEN_ID {
			return a.Uint32(), nil
		}
	}
	return 0, errors.New("the kernel names no generation of the ruleset")
}

func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		c.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return c, nil
}

func (d deletion) encode() (netlink.Message, error) {
	attributes, err := netlink.MarshalAttributes(d.attributes)
	if err != nil {
		return netlink.Message{}, err
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | d.message,
			Flags: netlink.Request | netlink.Acknowledge | nonRecursive,
		},
		Data: append(header(byte(d.family), 0), attributes...),
	}, nil
}

// batchMark begins or ends a transaction.
func batchMark(t netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: t, Flags: netlink.Request},
		Data:   header(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
	}
}

// header is struct nfgenmsg: family, version, resource in network byte order.
func header(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func cString(s string) []byte { return append([]byte(s), 0) }
