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
	"say":     {1, -1, 2, 4, 0},  // pkg/wording
	"refusal": {0, -1, 1, 3, -1}, // pkg/smtp
}

// authors are the packages in which texts for clients are written: the one for all of
// them, the one for what breaks the grammar, and the one for what the operator writes.
var authors = map[string]bool{"pkg/wording": true, "pkg/smtp": true, "pkg/config": true}

// TestTextsHaveOnePlace: nobody else writes a reply of the gateway's own, so the manual
// has them all.
func TestTextsHaveOnePlace(t *testing.T) {
	found := 0
	for _, s := range sources(t, "pkg") {
		ast.Inspect(parsed(t, s), func(n ast.Node) bool {
			lit, is := n.(*ast.CompositeLit)
			if !is {
				return true
			}
			name, _ := lit.Type.(*ast.Ident)
			sel, _ := lit.Type.(*ast.SelectorExpr)
			if name != nil && name.Name == "Reply" && s.pkg == "pkg/smtp" || sel != nil && sel.Sel.Name == "Reply" && len(lit.Elts) > 0 {
				found++
				if !authors[s.pkg] {
					t.Errorf("%s writes a reply of its own: it belongs into pkg/wording", s.path)
				}
			}
			return true
		})
	}
	if found < 3 {
		t.Errorf("only %d replies found", found)
	}
}

// TestRefusalsAreComplete: whatever we refuse, we say by a code, an enhanced code
// of the same class, and a sentence, and count by a reason.
func TestRefusalsAreComplete(t *testing.T) {
	found := 0
	for _, s := range sources(t, "pkg") {
		ast.Inspect(parsed(t, s), func(n ast.Node) bool {
			name, args := made(n)
			if name == "ending" && unexplained(args) {
				t.Errorf("%s: an ending with a refusal and no reason", s.path)
			}
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

// TestReasonsAreGiven: there is no reason that nobody ever gives, which would be
// documented and counted for nothing.
func TestReasonsAreGiven(t *testing.T) {
	known, given := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t, "pkg") {
		ast.Inspect(parsed(t, s), func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec: // in the list of constants
				for _, name := range n.Names {
					known[name.Name] = known[name.Name] || s.path == reasonList && strings.HasPrefix(name.Name, "Reason")
				}
			case *ast.SelectorExpr:
				given[n.Sel.Name] = true
			case *ast.AssignStmt: // by event itself
				for _, e := range n.Rhs {
					if name, is := e.(*ast.Ident); is {
						given[name.Name] = true
					}
				}
			}
			return true
		})
	}
	reasons := 0
	for name, is := range known {
		if !is || name == "Reasons" { // their number
			continue
		}
		if reasons++; !given[name] {
			t.Errorf("nothing gives %s", name)
		}
	}
	if reasons < 50 {
		t.Errorf("only %d reasons found", reasons)
	}
}

const reasonList = "pkg/event/reason.go"

// parsed returns the syntax of a source.
func parsed(t *testing.T, s source) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, s.path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// unexplained reports whether an ending of a session has last words of ours that
// refuse, or may, and no reason.
func unexplained(fields []ast.Expr) bool {
	refuses, why := false, false
	for _, f := range fields {
		pair, is := f.(*ast.KeyValueExpr)
		if !is {
			continue
		}
		switch key := pair.Key.(*ast.Ident); key.Name {
		case "reply":
			refuses = true
		case "why":
			why = true
		}
	}
	return refuses && !why
}

// TestUnexplained: an ending needs a reason exactly if it can refuse.
func TestUnexplained(t *testing.T) {
	for text, want := range map[string]bool{
		`ending{reply: lostReply}`:                        true,
		`ending{reply: lostReply, why: event.ReasonFull}`: false,
		`ending{end: event.EndContent, last: last}`:       false,
	} {
		e, err := parser.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, fields := made(e); unexplained(fields) != want {
			t.Errorf("%s: unexplained %t", text, !want)
		}
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
