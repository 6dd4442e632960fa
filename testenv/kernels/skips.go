package main

import (
	"fmt"
	"slices"
	"strings"
)

// allowedSkip is a line of allowed-skips.
type allowedSkip struct {
	test
	kernels string // "any", "<6.6", ">=6.6"
	reason  string
}

// parseAllowedSkips reads the file allowed-skips, which explains its format.
func parseAllowedSkips(text string) ([]allowedSkip, error) {
	var list []allowedSkip
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 4 || !knownKernels(words[0]) {
			return nil, fmt.Errorf("allowed-skips: %q is not KERNELS PACKAGE TEST REASON", line)
		}
		list = append(list, allowedSkip{
			kernels: words[0],
			test:    test{words[1], words[2]},
			reason:  strings.Join(words[3:], " "),
		})
	}
	return list, nil
}

func knownKernels(s string) bool {
	version := strings.TrimLeft(s, "<>=")
	operator := strings.TrimSuffix(s, version)
	return s == "any" || len(numbers(version)) == 2 && (operator == "<" || operator == ">=")
}

// on says whether the permission holds for a kernel.
func (a allowedSkip) on(release string) bool {
	if a.kernels == "any" {
		return true
	}
	if version, ok := strings.CutPrefix(a.kernels, "<"); ok {
		return kernelBelow(release, version)
	}
	return !kernelBelow(release, strings.TrimPrefix(a.kernels, ">="))
}

// kernelBelow compares a kernel's release ("6.1.0-56-cloud-amd64") with a
// version of two numbers ("6.6").
func kernelBelow(release, version string) bool {
	have := numbers(release)
	return slices.Compare(have[:min(2, len(have))], numbers(version)) < 0
}
