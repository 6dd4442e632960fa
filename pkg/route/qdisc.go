package route

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// haveQdiscs returns the interfaces whose packets can be filtered at ingress.
// The old ingress qdisc serves as well as clsact does, and excludes it.
func haveQdiscs() ([]plan.Item, error) {
	found, err := qdiscs()
	if err != nil {
		return nil, err
	}
	names, err := linkNames()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	for index := range found {
		if name, known := names[index]; known {
			items = append(items, plan.Qdisc{Interface: name})
		}
	}
	return items, nil
}

// qdiscs returns the kind of the ingress-side qdisc, "clsact" or "ingress",
// by interface index.
func qdiscs() (map[int]string, error) {
	type qdisc struct {
		index int
		kind  string
	}
	all, err := collect(unix.RTM_GETQDISC, &nl.TcMsg{}, func(m []byte) (qdisc, bool) {
		a := attributes(m, nl.SizeofTcMsg)
		if a == nil {
			return qdisc{}, false
		}
		kind := text(a[nl.TCA_KIND])
		return qdisc{int(nl.DeserializeTcMsg(m).Ifindex), kind}, kind == "clsact" || kind == "ingress"
	})
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	found := map[int]string{}
	for _, q := range all {
		found[q.index] = q.kind
	}
	return found, nil
}

// addQdisc gives an interface a clsact qdisc unless it can filter already.
func addQdisc(q plan.Qdisc) error {
	l, err := findLink(q.Interface)
	if err != nil {
		return err
	}
	err = netlink.QdiscAdd(clsact(l))
	if !errors.Is(err, unix.EEXIST) {
		return explain(err)
	}
	found, err := qdiscs()
	if err != nil {
		return err
	}
	if _, usable := found[l.Attrs().Index]; usable {
		return nil
	}
	return fmt.Errorf("another qdisc is in the way of clsact on %s: %w", q.Interface, unix.EEXIST)
}

// removeQdisc removes a clsact qdisc from which every filter is gone. With it
// the kernel would remove all of them, whosesoever.
func removeQdisc(q plan.Qdisc) error {
	l, err := findLink(q.Interface)
	if errors.Is(err, ErrNoInterface) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := qdiscs()
	if err != nil || found[l.Attrs().Index] != "clsact" {
		return err
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		used, err := filtersAt(l.Attrs().Index, parent)
		if err != nil || len(used) > 0 {
			return err
		}
	}
	if err := netlink.QdiscDel(clsact(l)); err != nil && !gone(err) {
		return explain(err)
	}
	return nil
}

func clsact(l netlink.Link) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: l.Attrs().Index,
			Handle:    netlink.MakeHandle(0xffff, 0),
			Parent:    netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}
