// Command house measures the shape of the tree: how large the largest types are, how
// finely the session is cut, which of its files use each other, how many lines each
// package has, and how long the sentences of README and ARCHITECTURE are.
//
// It reads sources and judges nothing: it is there so that the figures of two states of
// the tree come from the same hand. `go run ./testenv/house [ROOT]`.
package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := report(os.Stdout, root); err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(1)
	}
}

func report(w io.Writer, root string) error {
	packages, err := load(root, "pkg", "cmd")
	if err != nil {
		return err
	}
	largestTypes(w, packages)
	lines(w, packages)
	for _, p := range packages {
		if p.dir == "pkg/session" {
			p.helpers(w)
			p.arrows(w)
		}
	}
	for _, name := range []string{"README.md", "ARCHITECTURE.md"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		lengths := sentences(string(text))
		fmt.Fprintf(w, "%s: %d sentences, %d words at the median, %d at the 90th percentile, %d at most\n",
			name, len(lengths), lengths[len(lengths)/2], lengths[len(lengths)*9/10], lengths[len(lengths)-1])
	}
	return nil
}

// house is one package: its files without tests and what a program has written.
type house struct {
	dir   string
	files map[string]*ast.File
	lines int
}

// load parses the packages below directories of the root, sorted.
func load(root string, dirs ...string) ([]*house, error) {
	all := make(map[string]*house)
	set := token.NewFileSet()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
			if err != nil || ast.IsGenerated(f) {
				return err
			}
			short, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			p := all[short]
			if p == nil {
				p = &house{dir: short, files: make(map[string]*ast.File)}
				all[short] = p
			}
			p.files[filepath.Base(path)] = f
			p.lines += set.File(f.Pos()).LineCount()
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *house) int { return cmp.Compare(a.dir, b.dir) }), nil
}

// functions calls do for each function and method, with its file.
func (p *house) functions(do func(file string, f *ast.FuncDecl)) {
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		for _, d := range p.files[name].Decls {
			if f, is := d.(*ast.FuncDecl); is {
				do(name, f)
			}
		}
	}
}

// receiver returns the type that a method is of, "" of a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if star, is := t.(*ast.StarExpr); is {
		t = star.X
	}
	if generic, is := t.(*ast.IndexExpr); is {
		t = generic.X
	}
	name, _ := t.(*ast.Ident)
	if name == nil {
		return ""
	}
	return name.Name
}

// largestTypes lists the types with most methods.
func largestTypes(w io.Writer, packages []*house) {
	type size struct {
		name           string
		methods, files int
	}
	var sizes []size
	for _, p := range packages {
		methods, files := make(map[string]int), make(map[string]map[string]bool)
		p.functions(func(file string, f *ast.FuncDecl) {
			t := receiver(f)
			if files[t] == nil {
				files[t] = make(map[string]bool)
			}
			methods[t]++
			files[t][file] = true
		})
		for t, n := range methods {
			if t != "" {
				sizes = append(sizes, size{p.dir + "." + t, n, len(files[t])})
			}
		}
	}
	slices.SortFunc(sizes, func(a, b size) int { return cmp.Or(cmp.Compare(b.methods, a.methods), cmp.Compare(a.name, b.name)) })
	fmt.Fprintln(w, "Types with most methods:")
	for _, s := range sizes[:min(5, len(sizes))] {
		fmt.Fprintf(w, "  %s: %d in %d files\n", s.name, s.methods, s.files)
	}
}

// lines lists the packages by their size.
func lines(w io.Writer, packages []*house) {
	fmt.Fprintln(w, "Lines, without tests and generated files:")
	sorted := slices.Clone(packages)
	slices.SortFunc(sorted, func(a, b *house) int { return cmp.Or(cmp.Compare(b.lines, a.lines), cmp.Compare(a.dir, b.dir)) })
	sum := 0
	for _, p := range sorted {
		sum += p.lines
		fmt.Fprintf(w, "  %5d %s\n", p.lines, p.dir)
	}
	fmt.Fprintf(w, "  %5d in %d packages\n", sum, len(packages))
}

// homes returns the file of each unexported function or method whose name is the only
// one of its kind in the package.
func (p *house) homes() map[string]string {
	homes, seen := make(map[string]string), make(map[string]int)
	p.functions(func(file string, f *ast.FuncDecl) {
		if !f.Name.IsExported() {
			homes[f.Name.Name] = file
			seen[f.Name.Name]++
		}
	})
	maps.DeleteFunc(homes, func(name, _ string) bool { return seen[name] > 1 })
	return homes
}

// uses counts in which files a name of homes is used, its declaration apart.
func (p *house) uses(homes map[string]string) map[string]map[string]int {
	uses := make(map[string]map[string]int)
	p.eachName(func(file, name string) {
		if homes[name] == "" {
			return
		}
		if uses[name] == nil {
			uses[name] = make(map[string]int)
		}
		uses[name][file]++
	})
	return uses
}

// eachName calls do for each name in a file that does not stand where a function is
// declared.
func (p *house) eachName(do func(file, name string)) {
	for file, f := range p.files {
		declared := make(map[*ast.Ident]bool)
		for _, d := range f.Decls {
			if function, is := d.(*ast.FuncDecl); is {
				declared[function.Name] = true
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if name, is := n.(*ast.Ident); is && !declared[name] {
				do(file, name.Name)
			}
			return true
		})
	}
}

// helpers tells how many functions have one caller, and how many of these are read in
// another file than that.
func (p *house) helpers(w io.Writer) {
	homes := p.homes()
	once, away := 0, 0
	for name, files := range p.uses(homes) {
		for file, n := range files {
			if len(files) > 1 || n > 1 {
				continue
			}
			once++
			if file != homes[name] {
				away++
			}
		}
	}
	fmt.Fprintf(w, "%s: of %d helpers %d are used once, %d of these from another file\n", p.dir, len(homes), once, away)
}

// arrows tells which files use functions of which.
func (p *house) arrows(w io.Writer) {
	homes := p.homes()
	arrows := make(map[[2]string]bool)
	for name, files := range p.uses(homes) {
		for file := range files {
			if file != homes[name] {
				arrows[[2]string{file, homes[name]}] = true
			}
		}
	}
	both := 0
	for a := range arrows {
		if a[0] < a[1] && arrows[[2]string{a[1], a[0]}] {
			both++
		}
	}
	fmt.Fprintf(w, "%s: %d files, %d arrows between them, %d pairs use each other\n", p.dir, len(p.files), len(arrows), both)
}

// sentences returns the lengths of sentences in words, sorted. Code, tables and headings
// have none.
func sentences(text string) []int {
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	var prose strings.Builder
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "    "), strings.HasPrefix(line, "|"), strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
			prose.WriteString("\n\n")
		default:
			prose.WriteString(strings.TrimRight(line, "\n") + " ")
		}
	}
	var lengths []int
	for _, s := range regexp.MustCompile(`[.!?:](?:\s|\))|\n\n`).Split(prose.String(), -1) {
		if n := len(strings.Fields(s)); n > 1 {
			lengths = append(lengths, n)
		}
	}
	slices.Sort(lengths)
	return lengths
}
