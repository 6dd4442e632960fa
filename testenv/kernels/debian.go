package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// series is a line of kernels in Debian, of which the newest is taken.
type series struct {
	name    string // what the upstream version begins with
	pattern string // matches the names of its packages
}

var debianSeries = []series{
	{"6.1", `^linux-image-6\.1\.0-[0-9]+-cloud-amd64$`},
	{"6.12", `^linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64$`},
}

// kernel is an unpacked kernel package.
type kernel struct {
	release string // as uname -r says
	dir     string // holds boot and lib/modules
}

// unpackKernel fetches the newest kernel of a series and unpacks it, unless that
// was done before.
func unpackKernel(ctx context.Context, space *space, s series) (kernel, error) {
	pkg, err := newestPackage(ctx, s)
	if err != nil {
		return kernel{}, err
	}
	file, err := packageFile(ctx, pkg)
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(space.dir, s.name)
	k := kernel{
		release: strings.TrimPrefix(pkg, "linux-image-"),
		dir:     filepath.Join(dir, strings.TrimSuffix(file, ".deb")),
	}
	if _, err := os.Stat(k.dir); err == nil {
		return k, nil
	}
	return k, k.fetch(ctx, space, pkg)
}

// newestPackage asks apt for the package of a series with the highest version.
func newestPackage(ctx context.Context, s series) (string, error) {
	names, err := searchPackages(ctx, s.pattern)
	if err == nil && len(names) == 0 {
		if _, err = output(ctx, "apt-get", "-qq", "update"); err == nil {
			names, err = searchPackages(ctx, s.pattern)
		}
	}
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", fmt.Errorf("find Debian's kernel %s: apt knows no package %s: run this on Debian 12 with its security updates among apt's sources",
			s.name, s.pattern)
	}
	return slices.MaxFunc(names, compareVersions), nil
}

// searchPackages lists the packages whose names match the pattern.
func searchPackages(ctx context.Context, pattern string) ([]string, error) {
	list, err := output(ctx, "apt-cache", "search", "--names-only", pattern)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, nil
}

var number = regexp.MustCompile(`[0-9]+`)

// numbers returns the numbers within a name.
func numbers(name string) []int {
	var list []int
	for _, digits := range number.FindAllString(name, -1) {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return list
		}
		list = append(list, n)
	}
	return list
}

// compareVersions orders names that differ in their numbers only.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

// packageFile returns the name of the file that apt would download, which tells
// the version: a package of the same name is rebuilt at times.
func packageFile(ctx context.Context, pkg string) (string, error) {
	line, err := output(ctx, "apt-get", "-qq", "--print-uris", "download", pkg)
	if err != nil {
		return "", err
	}
	// 'URI' FILE SIZE HASH
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasSuffix(fields[1], ".deb") {
		return "", fmt.Errorf("find the file of %s: apt-get --print-uris said %q", pkg, line)
	}
	return fields[1], nil
}

// fetch downloads and unpacks the package and makes what its installation would
// have made, the index of its modules. The directory appears when it is
// complete, in the place of older kernels of the series.
func (k kernel) fetch(ctx context.Context, space *space, pkg string) error {
	fmt.Printf("kernels: fetching %s\n", pkg)
	work, err := os.MkdirTemp(space.temp, "unpack-")
	if err != nil {
		return err
	}
	if _, err := output(ctx, filepath.Join(space.root, "scripts/apt"), "download", work, pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download %s: found %q (%v), want one file", pkg, debs, err)
	}
	tree := filepath.Join(work, "tree")
	if _, err := output(ctx, "dpkg-deb", "-x", debs[0], tree); err != nil {
		return err
	}
	if _, err := output(ctx, "depmod", "-b", tree, k.release); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(k.dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(k.dir), 0o755); err != nil {
		return err
	}
	return os.Rename(tree, k.dir)
}

// image is the kernel itself.
func (k kernel) image() string {
	return filepath.Join(k.dir, "boot/vmlinuz-"+k.release)
}

// moduleDir is the path of the kernel's modules below its directory.
func (k kernel) moduleDir() string {
	return "lib/modules/" + k.release
}

// wantedModules are the modules that tests can need, by the beginning of their
// path: all of networking, and what tests build machines of. Modules that these
// need come with them.
var wantedModules = []string{
	"kernel/net/",
	"kernel/lib/",
	"kernel/crypto/",
	"kernel/fs/overlayfs/",
	"kernel/drivers/net/veth.",
	"kernel/drivers/net/macvlan.",
	"kernel/drivers/net/dummy.",
	"kernel/drivers/net/ifb.",
	"kernel/drivers/net/tun.",
	"kernel/drivers/net/vrf.",
	"kernel/drivers/net/vxlan/",
}

// selectModules reads modules.dep, where each line names a module and all that
// it needs, and returns the wanted ones with what they need.
func selectModules(dep string) []string {
	var selected []string
	for line := range strings.Lines(dep) {
		module, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if slices.ContainsFunc(wantedModules, func(w string) bool { return strings.HasPrefix(module, w) }) {
			selected = append(selected, module)
			selected = append(selected, strings.Fields(needs)...)
		}
	}
	slices.Sort(selected)
	return slices.Compact(selected)
}
