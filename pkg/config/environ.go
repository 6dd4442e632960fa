package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Override is a value given on the command line in place of the file's.
type Override struct {
	Key    string // "kernel.bpffs"; any key of Variables
	Value  string // written as in the file
	Source string // for messages: "--bpffs"
}

// Variable is an environment variable that goes before the file.
type Variable struct {
	Name string // "PORTREEVE_BPFFS"
	Key  string // "kernel.bpffs"
}

const environPrefix = "PORTREEVE_"

// Variables returns the environment variables that are read: one for every
// single value outside lists. The name is PORTREEVE_, the section and the
// key; the section kernel is left out.
func Variables() []Variable {
	var all []Variable
	for _, f := range schema() {
		if f.typ.Kind() == reflect.Interface && !strings.Contains(string(f.at), "[") {
			name := strings.ReplaceAll(strings.TrimPrefix(string(f.at), "kernel."), ".", "_")
			all = append(all, Variable{environPrefix + strings.ToUpper(name), string(f.at)})
		}
	}
	return all
}

// setting is a value that goes before the file's.
type setting struct {
	at     path
	value  string
	source string
}

func (s setting) viperKey() string { return strings.ReplaceAll(string(s.at), ".", delimiter) }

// settings returns the values of the environment and then the overrides,
// the stronger last.
func settings(r *report, environ []string, overrides []Override) []setting {
	known := Variables()
	all := fromEnviron(r, environ, known)
	for _, o := range overrides {
		if slices.ContainsFunc(known, func(v Variable) bool { return v.Key == o.Key }) {
			all = append(all, setting{path(o.Key), o.Value, o.Source})
		} else {
			r.refuseElsewhere(o.Source, "leave it out", "there is no setting "+quote(o.Key))
		}
	}
	return all
}

// fromEnviron returns what the environment sets; an empty variable counts as
// unset. A variable that is only nearly one of ours is refused like an unknown
// key; others with our prefix are left alone, since container platforms make
// them (PORTREEVE_PORT, PORTREEVE_SERVICE_HOST).
func fromEnviron(r *report, environ []string, known []Variable) []setting {
	keys := map[string]path{}
	for _, v := range known {
		keys[strings.TrimPrefix(v.Name, environPrefix)] = path(v.Key)
	}
	names := slices.Sorted(maps.Keys(keys))
	var all []setting
	for _, e := range environ {
		variable, value, _ := strings.Cut(e, "=")
		name, ours := strings.CutPrefix(variable, environPrefix)
		if !ours || value == "" {
			continue
		}
		source := "environment " + printable(variable)
		if at, found := keys[name]; found {
			all = append(all, setting{at, value, source})
		} else if near := nearest(name, names); near != "" {
			r.refuseElsewhere(source, "the nearest known variable is "+environPrefix+near, "unknown variable")
		}
	}
	return all
}
