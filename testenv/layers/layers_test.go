// Package layers holds the house to its plan: a package imports lower layers
// only, each library behind which a part of the kernel or of the configuration
// lies has one door, and a session has no library below it at all.
//
// The sources are parsed here rather than listed by the go tool, whose result
// the test cache does not see.
package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/portreeve/portreeve/"
)

// layers are the packages below pkg, from the words to the assembly. Within a
// layer, a package imports only those before it.
var layers = [][]string{
	{"zone", "flow", "finding", "smtp", "sockopt", "stream", "proxy", "notice", "protocol"},
	{"config", "event", "verdict", "wording", "policy", "plan", "descriptors"},
	{"steer", "route", "netfilter", "accept", "forward", "returns", "secure", "trust", "keyring", "confine", "keeper", "resolve", "record", "metrics"},
	{"session", "apply", "relay", "status", "watch", "doctor"},
	{"daemon"},
}

// sideways are the imports within a layer that are meant.
var sideways = map[string][]string{
	"descriptors": {"config"},
	"flow":        {"zone"},
	"policy":      {"event", "verdict", "wording"},
	"protocol":    {"smtp"},
	"wording":     {"event", "verdict"},
	"verdict":     {"event"},
	"plan":        {"config"},
	"relay":       {"session"},
	"keeper":      {"confine", "keyring"},
	"resolve":     {"trust"},
	"returns":     {"forward"},
	"status":      {"apply"},
	"watch":       {"apply"},
}

// doors are libraries with the only packages that may import them.
var doors = map[string][]string{
	"github.com/spf13/viper":           {"pkg/config"},
	"github.com/cilium/ebpf":           {"pkg/steer"},
	"github.com/vishvananda/netlink":   {"pkg/route"},
	"github.com/coreos/go-iptables":    {"pkg/netfilter"},
	"github.com/google/nftables":       {"pkg/netfilter"},
	"github.com/spf13/cobra":           {"cmd/portreeve"},
	"github.com/miekg/dns":             {"pkg/resolve"},
	"github.com/pires/go-proxyproto":   {"pkg/proxy"},
	"github.com/coreos/go-systemd/v22": {"pkg/daemon"},
	"github.com/prometheus":            {"pkg/metrics"},
}

// source is one Go file that is part of the product.
type source struct {
	path    string // from the root
	pkg     string // its directory
	imports []string
}

func sources(t *testing.T, dirs ...string) []source {
	t.Helper()
	var all []source
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			s, err := read(path)
			all = append(all, s)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(all) < 50 {
		t.Fatalf("found %d files only: is this the root?", len(all))
	}
	return all
}

func read(path string) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return source{}, err
	}
	short, err := filepath.Rel(root, path)
	s := source{path: short, pkg: filepath.Dir(short)}
	for _, i := range f.Imports {
		name, _ := strconv.Unquote(i.Path.Value) // the parser has seen to it
		s.imports = append(s.imports, name)
	}
	return s, err
}

// layerOf returns the layer of a package below pkg; false for one that is in
// none.
func layerOf(pkg string) (int, bool) {
	for n, layer := range layers {
		for _, p := range layer {
			if p == pkg {
				return n, true
			}
		}
	}
	return 0, false
}

func TestImportsGoDownwards(t *testing.T) {
	for _, s := range sources(t, "pkg") {
		pkg := strings.TrimPrefix(s.pkg, "pkg/")
		from, known := layerOf(pkg)
		if !known {
			t.Errorf("%s: package %s has no place in the layers", s.path, pkg)
			continue
		}
		for _, i := range s.imports {
			if problem := judge(pkg, from, i); problem != "" {
				t.Errorf("%s: %s", s.path, problem)
			}
		}
	}
}

// judge says what is wrong with an import, "" for nothing.
func judge(pkg string, from int, imported string) string {
	ours, is := strings.CutPrefix(imported, module)
	if !is {
		return ""
	}
	name, below := strings.CutPrefix(ours, "pkg/")
	if !below {
		return "imports " + ours + ", which is not part of the product"
	}
	to, known := layerOf(name)
	for _, meant := range sideways[pkg] {
		if meant == name {
			return ""
		}
	}
	if !known || to >= from {
		return "imports " + name + ", which is not in a lower layer"
	}
	return ""
}

func TestLibrariesHaveOneDoor(t *testing.T) {
	for _, s := range sources(t, "pkg", "cmd") {
		for _, i := range s.imports {
			for library, owners := range doors {
				if (i == library || strings.HasPrefix(i, library+"/")) && !contains(owners, s.pkg) {
					t.Errorf("%s imports %s, whose door is %s", s.path, i, strings.Join(owners, ", "))
				}
			}
		}
	}
}

// TestSessionIsLight: a session has no HTTP below it, and no library of others,
// which might have it and is not looked into here.
func TestSessionIsLight(t *testing.T) {
	reached := below(t, "pkg/session")
	if reached[module+"pkg/event"] == "" {
		t.Fatal("a session without events: are these its imports?")
	}
	for i, source := range reached {
		http := i == "net/http" || strings.HasPrefix(i, "net/http/")
		if http || strings.Contains(i, ".") && !strings.HasPrefix(i, module) {
			t.Errorf("%s imports %s, so a session has it below it", source, i)
		}
	}
}

// below returns what a package imports, and what ours among that import, each with
// a source that does.
func below(t *testing.T, pkg string) map[string]string {
	t.Helper()
	of := map[string][]source{}
	for _, s := range sources(t, "pkg") {
		of[s.pkg] = append(of[s.pkg], s)
	}
	reached := map[string]string{}
	todo := of[pkg]
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		for _, i := range s.imports {
			if reached[i] == "" {
				reached[i] = s.path
				todo = append(todo, of[strings.TrimPrefix(i, module)]...)
			}
		}
	}
	return reached
}

// Raw setsockopt belongs to sockopt alone.
func TestSocketOptionsHaveOneDoor(t *testing.T) {
	for _, s := range sources(t, "pkg", "cmd") {
		if s.pkg == "pkg/sockopt" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, s.path), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, is := n.(*ast.SelectorExpr); is && strings.HasPrefix(call.Sel.Name, "Setsockopt") {
				t.Errorf("%s calls %s", s.path, call.Sel.Name)
			}
			return true
		})
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
