package doctor

import (
	"os"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// savedRules are where rules of iptables are kept for the next boot: by Debian's
// netfilter-persistent and by the iptables service of others.
var savedRules = []string{"/etc/iptables/rules.v4", "/etc/iptables/rules.v6", "/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"}

// readSaved returns the files that hold a rule of ours which asks a pinned program.
func readSaved(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(file string) bool {
		saved, err := os.ReadFile(file)
		return err != nil || !savesProgram(string(saved))
	})
}

func savesProgram(saved string) bool {
	for line := range strings.Lines(saved) {
		if strings.HasPrefix(line, "-A "+plan.ChainPrefix) && (plan.Filter{Spec: line}).AsksProgram() {
			return true
		}
	}
	return false
}

// saved judges rules that were saved while we were attached, on a kernel before 6.4.
func (e *exam) saved() {
	for _, file := range e.m.Saved {
		e.problem("saved-rules", file, "it holds a rule of portreeve that asks a BPF program, which is not there at boot: iptables-restore then loads no rule of the file at all",
			"portreeve detach, save the rules again, then portreeve attach")
	}
}
