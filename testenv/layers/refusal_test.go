package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// makers are the functions and types that refusals are made with, and where
// their arguments have what a refusal needs: its code, the parts of its enhanced
// code, its sentence, and its reason. Where the code or the reason is not an
// argument (-1) the maker has one of its own.
var makers = map[string]struct{ code, class, subject, text, reason int }{
	"deny":    {1, -1, 2, 4, 0},   // pkg/session
	"refuse":  {1, -1, 2, 4, 0},   // pkg/inspect
	"code":    {0, 1, 2, 4, -1},   // pkg/session
	"closing": {-1, -1, 1, 3, 0},  // pkg/relay
	"Reply":   {0, -1, -1, 2, -1}, // pkg/smtp
}

// TestRefusalsAreComplete: whatever we refuse, we say by a code, an enhanced code
// of the same class, and a sentence, and count by a reason.
func TestRefusalsAreComplete(t *testing.T) {
	found := 0
	for _, s := range sources(t, "pkg") {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, s.path), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			name, args := made(n)
			if m, is := makers[name]; is && len(args) > m.text && literal(args[m.text]) != "" {
				found++
				if problem := incomplete(name, args); problem != "" {
					t.Errorf("%s: %s", s.path, problem)
				}
			}
			return true
		})
	}
	if found < 60 {
		t.Errorf("only %d refusals found", found)
	}
}

// made returns what an expression makes, and of what.
func made(n ast.Node) (name string, args []ast.Expr) {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, is := n.Fun.(*ast.Ident); is {
			return f.Name, n.Args
		}
	case *ast.CompositeLit:
		if f, is := n.Type.(*ast.Ident); is {
			return f.Name, n.Elts
		}
	}
	return "", nil
}

// incomplete says what a refusal lacks, "" for nothing. What is no refusal lacks
// nothing.
func incomplete(name string, args []ast.Expr) string {
	m, text := makers[name], literal(args[makers[name].text])
	code := "421"
	if m.code >= 0 {
		code = literal(args[m.code])
	}
	if !strings.HasPrefix(code, "4") && !strings.HasPrefix(code, "5") {
		return ""
	}
	class, subject := enhanced(name, args)
	if class == "" { // the maker takes the code's
		class = code[:1]
	}
	switch {
	case class != code[:1]:
		return code + " with an enhanced code of class " + class + ": " + text
	case subject == "":
		return code + " without an enhanced code: " + text
	case len(strings.Fields(text)) < 2 || strings.HasSuffix(text, "."):
		return code + " with no sentence that helps: " + strconv.Quote(text)
	case m.reason >= 0 && !reasoned(args[m.reason]):
		return code + " without a reason: " + text
	}
	return ""
}

// enhanced returns the class of a refusal's enhanced code, where it is written,
// and its subject.
func enhanced(name string, args []ast.Expr) (class, subject string) {
	if name == "Reply" {
		if _, parts := made(args[1]); len(parts) == 3 {
			return literal(parts[0]), literal(parts[1])
		}
		return "", ""
	}
	m := makers[name]
	if m.class >= 0 {
		class = literal(args[m.class])
	}
	return class, literal(args[m.subject])
}

// literal returns a number or string as it is written, without quotes.
func literal(e ast.Expr) string {
	l, is := e.(*ast.BasicLit)
	if !is {
		return ""
	}
	return strings.Trim(l.Value, "\"`")
}

// reasoned reports whether an expression is one of event's reasons. A function's
// own parameter is one, for its callers are looked at.
func reasoned(e ast.Expr) bool {
	s, is := e.(*ast.SelectorExpr)
	return is && strings.HasPrefix(s.Sel.Name, "Reason")
}
