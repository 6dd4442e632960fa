package session

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestOneWriter holds everybody else off the origin leg: within this package
// only origin.go writes to it, and the packages that hold the connection itself
// write nothing to it at all.
func TestOneWriter(t *testing.T) {
	seen := map[string]bool{}
	eachCall(t, ".", func(file string, call *ast.CallExpr, name string) {
		switch {
		case name == "x.origin.write" || name == "x.toOrigin":
			seen[file] = true
			if file != "origin.go" {
				t.Errorf("%s calls %s", file, name)
			}
		case strings.HasSuffix(name, ".leg.Write") && file != "leg.go":
			t.Errorf("%s calls %s", file, name)
		}
	})
	if !seen["origin.go"] {
		t.Error("no write to the origin was found: this test looks for the wrong thing")
	}
	for _, dir := range []string{"../relay", "../forward", "../accept", "../daemon"} {
		eachCall(t, dir, func(file string, call *ast.CallExpr, name string) {
			copies := strings.HasPrefix(name, "io.Copy") && file != "tunnel.go" && file != "leg.go" // opaque stretches; what nobody reads
			if writes(name) || copies {
				t.Errorf("%s/%s calls %s: what reaches the origin is written by package session", dir, file, name)
			}
		})
	}
}

// writes reports whether a call of that name may put octets on a connection.
func writes(name string) bool {
	for _, suffix := range []string{".Write", ".WriteTo", ".WriteString", ".ReadFrom", ".WriteMsg", ".Sendto", ".Sendmsg", ".Sendfile", ".Splice", ".Writev"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// eachCall shows every call in the Go files of a directory that are not tests,
// with the text of what is called.
func eachCall(t *testing.T, dir string, show func(file string, call *ast.CallExpr, name string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		builders := stringBuilders(tree)
		ast.Inspect(tree, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && !builders[receiver(call)] {
				show(filepath.Base(f), call, expression(call.Fun))
			}
			return true
		})
	}
}

// stringBuilders returns the names of a file's variables of type
// strings.Builder: what is written to them goes nowhere.
func stringBuilders(tree *ast.File) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Type != nil && expression(v.Type) == "strings.Builder" {
			names[v.Names[0].Name] = true
		}
		return true
	})
	return names
}

func receiver(call *ast.CallExpr) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		return expression(s.X)
	}
	return ""
}

// expression writes a chain of names as it is in the source.
func expression(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return expression(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return expression(e.Fun) + "()"
	}
	return "?"
}

// TestOwnWire: neither leg is read or written through a library whose idea of a
// line is not ours.
func TestOwnWire(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		if !strings.Contains(path, "/pkg/session/") && !strings.Contains(path, "/pkg/smtp/") && !strings.Contains(path, "/pkg/relay/") && !strings.Contains(path, "/pkg/forward/") {
			return nil
		}
		tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range tree.Imports {
			switch i.Path.Value {
			case `"net/textproto"`, `"net/smtp"`, `"bufio"`, `"github.com/emersion/go-smtp"`:
				t.Errorf("%s imports %s", path, i.Path.Value)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
