package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version of this program",
		Long:  "Version prints the release, the commit that it was built from where that is known, the Go release and the platform.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return e.printf("%s\n", buildVersion())
		},
	}
}

// buildVersion describes this program from what the linker wrote into it.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return describe(info) + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// describe returns "portreeve v1.2.3 (commit 0123456789ab) go1.26.8". Builds
// outside a checkout have no commit, those outside a module version say devel.
func describe(info *debug.BuildInfo) string {
	release := info.Main.Version
	if release == "" || release == "(devel)" {
		release = "devel"
	}
	return fmt.Sprintf("portreeve %s%s %s", release, commit(info.Settings), info.GoVersion)
}

func commit(settings []debug.BuildSetting) string {
	revision, modified := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	if revision == "" {
		return ""
	}
	return " (commit " + revision + modified + ")"
}
