package main

import (
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript string

// guestPackages are the Debian packages of this machine that a guest has, too:
// the programs that tests call, with their configuration. What else a shell
// script wants comes from busybox.
var guestPackages = []string{
	"bash", "conntrack", "coreutils", "dash", "findutils", "grep", "ipset", "iproute2", "iptables", "kmod", "libxtables12", "mawk",
	"netbase", "nftables", "procps", "sed", "strace", "util-linux",
}

// mergedDirs are links in Debian (usrmerge). A guest has them too.
var mergedDirs = []string{"bin", "lib", "lib64", "sbin"}

// guestTree is the file system of a guest: the tree of the project in
// /portreeve, the test binaries in /tests and a small Debian around them.
func guestTree(ctx context.Context, space *space, suite *suite, k kernel) (tree, error) {
	t := make(tree)
	t.text("init", initScript, 0o755)
	for _, dir := range mergedDirs {
		t.link(dir, "usr/"+dir)
	}
	for _, dir := range []string{"dev", "proc", "root", "run", "sys", "var/lib", "var/log"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", 0o777)
	t.link("var/run", "/run")
	t.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 guest\n", 0o644)
	t.text("etc/hostname", "guest\n", 0o644)
	add := []func() error{
		func() error { return t.copy("busybox/busybox", "/bin/busybox") },
		func() error { return t.copy("etc/passwd", "/usr/share/base-passwd/passwd.master") },
		func() error { return t.copy("etc/group", "/usr/share/base-passwd/group.master") },
		func() error { return t.addProject(ctx, space.root) },
		func() error { return t.addRoot(space.root, "postfix") },
		func() error { return t.addTests(suite) },
		func() error { return t.addModules(k) },
		func() error { return t.addPackages(ctx) },
		func() error { return t.addLibraries(ctx) },
	}
	for _, step := range add {
		if err := step(); err != nil {
			return nil, fmt.Errorf("put together the guest for kernel %s: %w", k.release, err)
		}
	}
	return t, nil
}

// addProject adds the files of the tree, so that tests find their testdata and
// whatever else they read from it.
func (t tree) addProject(ctx context.Context, root string) error {
	list, err := outputIn(ctx, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		err := t.copy("portreeve/"+name, filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // git still lists what was just removed
			return err
		}
	}
	return nil
}

// addRoot adds unpacked packages (scripts/unpack), for scripts/in-root.
func (t tree) addRoot(root, name string) error {
	dir := filepath.Join(root, ".build/roots", name)
	if err := t.copy("portreeve/.build/roots/"+name+".packages", dir+".packages"); err != nil {
		return fmt.Errorf("%w: run scripts/install-deps test", err)
	}
	return filepath.WalkDir(dir, func(host string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return t.copy("portreeve"+strings.TrimPrefix(host, root), host)
	})
}

// addTests adds the test binaries, their list and their flags.
func (t tree) addTests(suite *suite) error {
	t.text("tests/flags", strings.Join(suite.flags(), "\n"), 0o644)
	names := []string{"list", "portreeve"}
	for _, p := range suite.packages {
		names = append(names, p+".test")
	}
	for _, name := range names {
		if err := t.copy("tests/"+name, filepath.Join(suite.binaries, name)); err != nil {
			return err
		}
	}
	return nil
}

// addModules adds the wanted modules and the index by which the kernel finds
// them.
func (t tree) addModules(k kernel) error {
	dep, err := os.ReadFile(filepath.Join(k.dir, k.moduleDir(), "modules.dep"))
	if err != nil {
		return err
	}
	index, err := filepath.Glob(filepath.Join(k.dir, k.moduleDir(), "modules.*"))
	if err != nil {
		return err
	}
	names := selectModules(string(dep))
	for _, file := range index {
		names = append(names, filepath.Base(file))
	}
	for _, name := range names {
		inTree := path.Join(k.moduleDir(), name)
		if err := t.copy("usr/"+inTree, filepath.Join(k.dir, inTree)); err != nil {
			return err
		}
	}
	return nil
}

// addPackages adds the files of guestPackages, but for what people read.
func (t tree) addPackages(ctx context.Context) error {
	list, err := output(ctx, "dpkg-query", append([]string{"--listfiles"}, guestPackages...)...)
	if err != nil {
		return err
	}
	// Names that update-alternatives made are no package's.
	alternatives, err := filepath.Glob("/usr/sbin/*tables*")
	if err != nil {
		return err
	}
	for _, name := range append(strings.Split(list, "\n"), alternatives...) {
		if !path.IsAbs(name) || hasAnyPrefix(name, "/usr/share/", "/usr/include/", "/lib/systemd/") {
			continue
		}
		if err := t.addChain(name); err != nil {
			return err
		}
	}
	return nil
}

// addChain adds a path of this machine and, where it is a link, what it leads
// to, each at its true place.
func (t tree) addChain(name string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return err
	}
	name = filepath.Join(dir, filepath.Base(name))
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) { // diverted or deleted by the administrator
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.copy(name, name); err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return nil
	}
	target, err := os.Readlink(name)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return t.addChain(target)
}

// addLibraries adds the shared libraries of all programs and libraries of the
// tree. Those that unpacked packages bring along are there already.
func (t tree) addLibraries(ctx context.Context) error {
	var dynamic []string
	own := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if host := t[name].host; host != "" && isDynamic(host) {
			dynamic = append(dynamic, host)
			own[filepath.Base(host)] = true
		}
	}
	list, err := output(ctx, "ldd", dynamic...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		if err := t.addLibrary(line, own); err != nil {
			return err
		}
	}
	return nil
}

// addLibrary adds the library that a line of ldd names: "NAME => FILE (ADDRESS)",
// "NAME => not found", or "FILE (ADDRESS)" for the loader.
func (t tree) addLibrary(line string, own map[string]bool) error {
	words := strings.Fields(line)
	switch {
	case len(words) == 4 && words[2] == "not" && !own[words[0]]:
		return fmt.Errorf("library %s: not found on this machine", words[0])
	case len(words) == 4 && path.IsAbs(words[2]):
		return t.addChain(words[2])
	case len(words) == 2 && path.IsAbs(words[0]):
		return t.addChain(words[0])
	}
	return nil
}

// isDynamic says whether a file is a program or library that needs others.
func isDynamic(host string) bool {
	file, err := elf.Open(host)
	if err != nil {
		return false
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	return err == nil && len(libraries) > 0
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
