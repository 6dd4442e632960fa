package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/finding"
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
			all = append(all, Variable{variable(f.at), string(f.at)})
		}
	}
	return all
}

// variable returns the name of the environment variable for a key.
func variable(at path) string {
	return environPrefix + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(string(at), "kernel."), ".", "_"))
}

// retiredVariables returns those that were read once, with the reason why they
// are not any more.
func retiredVariables() map[string]string {
	all := map[string]string{}
	for _, f := range fieldsIn("", reflect.TypeFor[rawConfig]()) {
		if f.retired != "" {
			all[variable(f.at)] = f.retired
		}
	}
	return all
}

// Environ returns the entries of an environment that a configuration depends on.
func Environ(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool { return !strings.HasPrefix(e, environPrefix) })
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
	old := retiredVariables()
	var all []setting
	for _, e := range environ {
		variable, value, _ := strings.Cut(e, "=")
		name, ours := strings.CutPrefix(variable, environPrefix)
		if !ours || value == "" {
			continue
		}
		source := "environment " + printable(variable)
		if why, was := old[variable]; was {
			r.warned.Add(finding.Warning, source, "is not needed any more: "+why, "remove it")
			continue
		}
		if at, found := keys[name]; found {
			all = append(all, setting{at, value, source})
		} else if near := nearest(name, names); near != "" {
			r.refuseElsewhere(source, "the nearest known variable is "+environPrefix+near, "unknown variable")
		}
	}
	return all
}
