package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Ahead returns the TC programs of others that see an interface's packets
// before ours do, in words: they can end the chain, or change what ours look
// at. Empty where none of ours is attached by a TCX link. It needs CAP_SYS_ADMIN,
// as the kernel asks for it to open objects by number.
func Ahead(iface string) ([]string, error) {
	ifindex, err := ifaceIndex(iface)
	if err != nil {
		return nil, nil // an interface that is missing is told of elsewhere
	}
	var found []string
	for hook, egress := range map[string]bool{"ingress": false, "egress": true} {
		chain, err := chainOf(ifindex, egress)
		if err != nil {
			return nil, err
		}
		found = append(found, aheadOfOurs(chain, fmt.Sprintf("tcx %s dev %s", hook, iface))...)
	}
	return found, nil
}

// aheadOfOurs names the programs of a chain before the first of ours.
func aheadOfOurs(chain []link.AttachedProgram, where string) []string {
	var others []string
	for _, p := range chain {
		if OwnProgram(uint32(p.ID)) {
			return others
		}
		others = append(others, fmt.Sprintf("%s: program %s (id %d)", where, nameOfProgram(p.ID), p.ID))
	}
	return nil
}

func nameOfProgram(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "without a name"
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return "without a name"
	}
	return info.Name
}
