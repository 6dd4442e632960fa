package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// shape compares the YAML tree with the raw types before viper sees it. viper
// forgets what matters here: it lower-cases keys, merges those that then are
// equal, and drops keys without a value. Lines are kept for every value on the
// way.
type shape struct{ *report }

// value checks the node at a path against the type that it is decoded into.
func (s shape) value(at path, n *yaml.Node, t reflect.Type) {
	s.lines[at] = n.Line
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		s.refuse(at, "write the value out in every place", "uses a YAML anchor or alias, which this file cannot have")
	case n.Style&yaml.TaggedStyle != 0:
		s.refuse(at, "remove the tag", "has the YAML tag %s, which this file cannot have", quote(n.Tag))
	case n.Tag == "!!null" && t.Kind() == reflect.Struct:
		// A section with everything in it commented out.
	case n.Tag == "!!null":
		s.refuse(at, "remove the key or give it a value", "has no value")
	default:
		s.kind(at, n, t)
	}
}

func (s shape) kind(at path, n *yaml.Node, t reflect.Type) {
	switch t.Kind() {
	case reflect.Struct:
		s.mapping(at, n, t)
	case reflect.Slice:
		s.list(at, n, t)
	default:
		s.scalar(at, n)
	}
}

func (s shape) mapping(at path, n *yaml.Node, t reflect.Type) {
	if n.Kind != yaml.MappingNode {
		s.refuse(at, mappingRemedy(at, t), "is %s where a mapping is expected", kindName(n))
		return
	}
	fields := rawFields(t)
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			s.refuseLine(at, k.Line, "write the key as a plain word", "has a key that is "+kindName(k))
			continue
		}
		name := k.Value
		if line, again := seen[name]; again {
			s.refuseLine(at.key(name), k.Line, "keep one of them", fmt.Sprintf("is given twice, first on line %d", line))
			continue
		}
		seen[name] = k.Line
		switch field, known := fields[name]; {
		case !known:
			s.unknown(at, k, t)
		case retired(field) != "":
			s.lines[at.key(name)] = v.Line
			s.warn(at.key(name), "remove it", "is not needed any more: %s", retired(field))
		default:
			s.value(at.key(name), v, field.Type)
		}
	}
}

// unknown refuses a key that the mapping cannot have, and says which one was
// probably meant.
func (s shape) unknown(at path, k *yaml.Node, t reflect.Type) {
	here := keys(t)
	remedy := "the keys here are " + strings.Join(here, ", ")
	if where := homes(k.Value); len(where) > 0 {
		remedy = "it belongs " + strings.Join(where, " or ")
	}
	if near := nearest(strings.ToLower(k.Value), here); near != "" {
		remedy = fmt.Sprintf("the nearest known key is %q", near)
	}
	s.strange[at] = true
	s.refuseLine(at.key(k.Value), k.Line, remedy, "unknown key "+quote(k.Value))
}

func (s shape) list(at path, n *yaml.Node, t reflect.Type) {
	plain := t.Elem().Kind() == reflect.Interface
	switch {
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			s.value(at.item(i), item, t.Elem())
		}
	case n.Kind == yaml.ScalarNode && plain:
		s.single(at, n)
	case plain:
		s.refuse(at, fmt.Sprintf("write it as %q", at.last()+": [VALUE]"), "is %s where a list is expected", kindName(n))
	default:
		s.refuse(at, entryRemedy(t.Elem()), "is %s where a list is expected", kindName(n))
	}
}

// single accepts one value where a list of one is meant, unless it looks like
// several in one string.
func (s shape) single(at path, n *yaml.Node) {
	s.lines[at.item(0)] = n.Line
	if strings.ContainsAny(n.Value, ", \t\n") {
		s.refuse(at, "write a list: [A, B]", "is one string, %s, where a list is expected", quote(n.Value))
		return
	}
	s.scalar(at, n)
}

func (s shape) scalar(at path, n *yaml.Node) {
	if n.Tag != "!!str" {
		s.spelt[at] = n.Value
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		s.refuse(at, "give it one value", "is %s where one value is expected", kindName(n))
	case n.Tag == "!!int" && octal(n.Value):
		// YAML 1.1 reads 010 as 8, YAML 1.2 as 10.
		s.refuse(at, "remove the leading zero, or write octal as 0o10", "%s can be read as octal or decimal", quote(n.Value))
	}
}

func octal(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return len(s) > 1 && s[0] == '0' && strings.Trim(s, "0123456789_") == ""
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "the single value " + quote(n.Value)
	}
}

// entryRemedy is how the entry of a list of mappings begins.
func entryRemedy(t reflect.Type) string {
	first := keys(t)[0]
	return fmt.Sprintf("begin each entry with %q", "- "+first+": "+strings.ToUpper(first))
}

// mappingRemedy shows how the mapping at a path is written.
func mappingRemedy(at path, t reflect.Type) string {
	if at == "" {
		return "write its keys first: " + strings.Join(keys(t), ", ")
	}
	if strings.HasSuffix(string(at), "]") {
		return entryRemedy(t)
	}
	return fmt.Sprintf("write it as %q", fmt.Sprintf("%s: {%s: VALUE}", at.last(), t.Field(0).Tag.Get(keyTag)))
}

// keyTag is the struct tag that holds a raw field's key.
const keyTag = "mapstructure"

// retired says why a key is not needed any more, "" of one that is.
func retired(f reflect.StructField) string { return f.Tag.Get("retired") }

// keys returns the keys of a raw mapping in the order of the reference file.
func keys(t reflect.Type) []string {
	var all []string
	for f := range t.Fields() {
		if retired(f) == "" {
			all = append(all, f.Tag.Get(keyTag))
		}
	}
	return all
}

// rawFields returns the fields of a raw mapping by their keys. Nobody changes them.
func rawFields(t reflect.Type) map[string]reflect.StructField {
	if known, is := knownFields.Load(t); is {
		return known.(map[string]reflect.StructField)
	}
	fields := map[string]reflect.StructField{}
	for f := range t.Fields() {
		fields[f.Tag.Get(keyTag)] = f
	}
	knownFields.Store(t, fields)
	return fields
}

// knownFields are those of types that were asked for before.
var knownFields sync.Map // reflect.Type to map[string]reflect.StructField

// field is a key that the file can have.
type field struct {
	at      path // the entries of a list as "[]"
	typ     reflect.Type
	retired string
}

// schema returns every key that the file can have, but for the retired ones.
func schema() []field {
	return slices.DeleteFunc(fieldsIn("", reflect.TypeFor[rawConfig]()), func(f field) bool { return f.retired != "" })
}

func fieldsIn(at path, t reflect.Type) []field {
	var all []field
	for f := range t.Fields() {
		here := field{at.key(f.Tag.Get(keyTag)), f.Type, retired(f)}
		all = append(all, here)
		if here.typ.Kind() == reflect.Slice {
			here = field{here.at + "[]", here.typ.Elem(), ""}
		}
		if here.typ.Kind() == reflect.Struct {
			all = append(all, fieldsIn(here.at, here.typ)...)
		}
	}
	return all
}

// repeated are the sections of a service that have the keys of those at the top.
var repeated = []path{"services[].smtp", "services[].tls"}

// repeats reports whether a key is in such a section.
func repeats(at path) bool {
	return slices.ContainsFunc(repeated, func(s path) bool { return s.holds(at) })
}

// homes returns where in the file a key belongs.
func homes(key string) []string {
	var where []string
	for _, f := range schema() {
		switch {
		case f.at.last() != key, repeats(f.at):
		case f.at.parent() == "":
			where = append(where, "at the top of the file")
		default:
			where = append(where, "under "+string(f.at.parent()))
		}
	}
	return where
}
