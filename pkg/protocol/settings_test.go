package protocol

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// changer gives each value another one.
type changer struct{}

func (changer) Truth(v *bool)                          { *v = !*v }
func (changer) Word(n *uint8, _ []string)              { *n++ }
func (changer) Number(n *int, _, _ uint64)             { *n++ }
func (changer) Octets(n *int64, _, _ uint64)           { *n++ }
func (changer) Time(d *time.Duration, _ time.Duration) { *d++ }
func (changer) Host(name *string, _ bool)              { *name += "x" }
func (changer) Extensions(s *smtp.Extensions)          { *s = ^*s }
func (changer) Mechanisms(list *[]string)              { *list = append(*list, "X") }
func (changer) Forward(s *smtp.Verbs)                  { *s = ^*s }
func (changer) Commands(list *[]Command)               { *list = append(*list, Command{}) }

// leaves returns the values of the rules, by the names of their fields.
func leaves(r Rules) map[string]string {
	all := map[string]string{}
	v := reflect.ValueOf(r)
	for _, f := range reflect.VisibleFields(v.Type()) {
		value := v.FieldByIndex(f.Index)
		if f.Name == "Given" { // says where rules are set, and is none
			continue
		}
		if f.Type == reflect.TypeFor[smtp.ReplyLimits]() {
			for inner := range f.Type.Fields() {
				all[f.Name+"."+inner.Name] = fmt.Sprint(value.FieldByIndex(inner.Index))
			}
			continue
		}
		all[f.Name] = fmt.Sprint(value)
	}
	return all
}

// TestEveryRuleHasOneKey: each key is of one rule, and no rule is without.
func TestEveryRuleHasOneKey(t *testing.T) {
	keys := map[string]string{}
	for _, s := range Settings {
		r := Default()
		s.Visit(&r, changer{})
		var changed []string
		now := leaves(r)
		for name, before := range leaves(Default()) {
			if now[name] != before {
				changed = append(changed, name)
			}
		}
		if len(changed) != 1 {
			t.Errorf("the key %s changes %q: point it to one field of Rules", s.Key, changed)
			continue
		}
		if other := keys[changed[0]]; other != "" {
			t.Errorf("the keys %s and %s are both of %s", other, s.Key, changed[0])
		}
		keys[changed[0]] = s.Key
	}
	for name := range leaves(Default()) {
		if keys[name] == "" {
			t.Errorf("Rules.%s has no key: add it to Settings in settings.go", name)
		}
	}
}

// ranger complains of defaults that a file could not say.
type ranger struct {
	changer
	fail func(string, ...any)
}

func (r ranger) Truth(*bool) {}

func (r ranger) Word(n *uint8, words []string) {
	if int(*n) >= len(words) || len(words) < 2 {
		r.fail("%d of %q", *n, words)
	}
}

func (r ranger) Number(n *int, least, most uint64) {
	if uint64(*n) < least || uint64(*n) > most {
		r.fail("%d is not from %d to %d", *n, least, most)
	}
}

func (r ranger) Octets(n *int64, least, most uint64) {
	if *n != 0 && (uint64(*n) < least || uint64(*n) > most) {
		r.fail("%d is not from %d to %d", *n, least, most)
	}
}

func (r ranger) Time(d *time.Duration, most time.Duration) {
	if *d < 0 || *d > most {
		r.fail("%v is more than %v", *d, most)
	}
}

func (r ranger) Extensions(s *smtp.Extensions) {
	if beyond := *s &^ smtp.SetOf(Carried...); beyond != 0 {
		r.fail("%s are not carried", beyond.AppendTo(nil, ' '))
	}
}

func (r ranger) Forward(s *smtp.Verbs) {
	if *s&^smtp.VerbsOf(Forwardable...) != 0 {
		r.fail("others than %v", Forwardable)
	}
}

// TestDefaultsAreInRange: what holds without a word in the file can be said in it.
func TestDefaultsAreInRange(t *testing.T) {
	for _, s := range Settings {
		r := Default()
		s.Visit(&r, ranger{fail: func(format string, args ...any) { t.Errorf(s.Key+": "+format, args...) }})
	}
}

// TestWhatCanBeRefused: without these verbs no session can be ended in order, and what
// may be left to the origin may be refused as well.
func TestWhatCanBeRefused(t *testing.T) {
	refusable := smtp.VerbsOf(Refusable...)
	for _, v := range []smtp.Verb{smtp.QUIT, smtp.RSET, smtp.STARTTLS, smtp.Unknown} {
		if refusable.Has(v) {
			t.Errorf("%s", v)
		}
	}
	if smtp.VerbsOf(Forwardable...)&^refusable != 0 {
		t.Errorf("%v, %v", Forwardable, Refusable)
	}
}

// TestNewExtensionsAreDecidedOn: an extension that package smtp knows is either carried
// by sessions or left out on purpose.
func TestNewExtensionsAreDecidedOn(t *testing.T) {
	apart := smtp.SetOf(smtp.ExtStartTLS, smtp.ExtXClient, smtp.ExtXForward) // offered by their own rules
	for e := range smtp.Extension(smtp.NumExtensions) {
		if !(apart | smtp.SetOf(Carried...)).Has(e) {
			t.Errorf("%s: add it to Carried in protocol.go if a session can speak it on both sides, and to Default if it does no harm", e)
		}
	}
}
