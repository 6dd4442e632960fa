package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strconv"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/portreeve/portreeve/pkg/finding"
)

// maxFile bounds the configuration file, in octets: far more than a hundred
// thousand services, and no device or endless pipe is read to the end.
const maxFile = 64 << 20

// Load reads and validates the configuration file at path. environ is as
// os.Environ returns it; overrides go before the environment, the environment
// before the file, the file before the defaults. The error is a finding.List
// with everything that is wrong.
func Load(path string, environ []string, overrides ...Override) (*Config, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, environ, overrides...)
}

// Read reads a configuration file for Parse. It may be a pipe, which can be read once.
// The error is a finding.List.
func Read(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, finding.List{{
			Severity: finding.Error,
			Object:   printable(path),
			Text:     "cannot read the configuration: " + cause(err).Error(),
			Remedy:   readRemedy(err),
		}}
	}
	return data, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return data, err
}

// cause strips the operation and the path, which the message already names.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

func readRemedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "name the file with -c FILE"
	case errors.Is(err, fs.ErrPermission):
		return "run as root, or let this user read the file"
	}
	return "name a YAML file with -c FILE"
}

// Parse validates a configuration; name stands for it in messages. See Load
// for the rest.
func Parse(name string, data []byte, environ []string, overrides ...Override) (*Config, error) {
	r := newReport(name)
	raw := decode(r, data, settings(r, environ, overrides))
	if raw == nil {
		return nil, r.err()
	}
	c := Default()
	c.File = name
	buildSettings(r, raw, &c)
	buildNetwork(r, raw, &c)
	if err := r.err(); err != nil {
		return nil, err
	}
	c.Warnings = r.warned
	return &c, nil
}

// WithoutFile returns the configuration of commands that need none: defaults,
// environment and overrides, with neither interfaces nor services.
func WithoutFile(environ []string, overrides ...Override) (*Config, error) {
	r := newReport("")
	raw := overlay(r, newViper(), settings(r, environ, overrides))
	c := Default()
	buildSettings(r, raw, &c)
	if err := r.err(); err != nil {
		return nil, err
	}
	return &c, nil
}

// delimiter separates the parts of a key inside viper. No key and no value
// contains it, so that a dot stays a dot.
const delimiter = "\x1f"

// decode returns what the file and the settings that go before it say, nil
// when the file cannot be read at all.
func decode(r *report, data []byte, over []setting) *rawConfig {
	root, ok := document(r, data)
	if !ok {
		return nil
	}
	shape{r}.value("", root, reflect.TypeFor[rawConfig]())
	v := newViper()
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		// A key that is given twice ends here, and shape has reported it.
		if r.clean("") {
			r.syntax(yamlError(err))
		}
		return nil
	}
	return overlay(r, v, over)
}

func newViper() *viper.Viper {
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	v.SetConfigType("yaml")
	return v
}

// overlay puts the settings before what viper holds and decodes the whole.
func overlay(r *report, v *viper.Viper, over []setting) *rawConfig {
	for _, s := range over {
		r.origin[s.at] = s.source
		v.Set(s.viperKey(), s.value)
	}
	raw := new(rawConfig)
	// Without viper's hook: it splits strings at commas.
	if err := v.UnmarshalExact(raw, viper.DecodeHook(nil)); err != nil && r.clean("") {
		r.refuse("", "compare it with the reference configuration", "cannot decode: %s", quote(err.Error()))
	}
	return raw
}

// document returns the root of the only YAML document in data.
func document(r *report, data []byte) (*yaml.Node, bool) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case err == io.EOF:
		r.refuse("", "write at least interfaces and services", "is empty")
		return nil, false
	case err != nil:
		_, text := yamlError(err)
		r.syntax(brokenLine(data, text), text)
		return nil, false
	}
	if err := d.Decode(&second); err != io.EOF {
		r.refuse("", `remove what follows "---"`, "holds more than one YAML document")
		return nil, false
	}
	return doc.Content[0], true
}

var yamlPrefix = regexp.MustCompile(`^(?:While parsing config: )?yaml: (?:unmarshal errors:\s*)?(?:line (\d+): )?`)

// yamlError returns the line, 0 when there is none, and the text of an error
// of the YAML reader.
func yamlError(err error) (line int, text string) {
	text = err.Error()
	if m := yamlPrefix.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return line, text
}

// brokenLine returns the line of a syntax error: the last one of the shortest
// beginning of data that has the same error. The YAML reader itself names the
// line where the surrounding list or mapping began.
func brokenLine(data []byte, text string) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		var n yaml.Node
		err := yaml.Unmarshal(bytes.Join(lines[:i+1], nil), &n)
		if err == nil {
			return false
		}
		_, same := yamlError(err)
		return same == text
	})
}

// syntax reports what the YAML reader found.
func (r *report) syntax(line int, text string) {
	r.refuseLine("", line, `check indentation, colons and quotes there; values with brackets, ":" or "#" need quotes`,
		"is not valid YAML: "+printable(text))
}
