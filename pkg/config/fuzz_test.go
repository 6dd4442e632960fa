package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// FuzzParse: whatever a file holds, Parse answers; what it accepts is still
// accepted, as the same configuration, when it is written out again.
func FuzzParse(f *testing.F) {
	f.Add(Minimal)
	f.Add(Reference)
	f.Add([]byte(everything))
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add([]byte(readFuzz(f, file)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data, nil)
		if err != nil {
			if c != nil || err.Error() == "" {
				t.Errorf("a configuration with an error, or an error that says nothing: %v", err)
			}
			return
		}
		again, err := Parse("fuzz.yaml", write(t, c), nil)
		if err != nil {
			t.Fatalf("refused after writing: %v", err)
		}
		c.Warnings = slices.DeleteFunc(c.Warnings, func(f finding.Finding) bool { // of retired keys, which are not written
			return strings.HasPrefix(f.Text, "is not needed any more")
		})
		if len(c.Warnings) != len(again.Warnings) {
			t.Errorf("warned %v, then %v", c.Warnings, again.Warnings)
		}
		c.Warnings, again.Warnings = nil, nil // they name lines
		if diff := configDiff(c, again); diff != "" {
			t.Error(diff)
		}
	})
}

func readFuzz(f *testing.F, file string) string {
	data, err := readFile(file)
	if err != nil {
		f.Fatal(err)
	}
	return string(data)
}

// write returns the file that says everything that c says.
func write(t *testing.T, c *Config) []byte {
	t.Helper()
	type m = map[string]any
	var services []m
	for _, s := range c.Services {
		services = append(services, m{
			"name": s.Name, "listen": targets(s.Listen), "intercept": targets(s.Intercept), "origins": origins(s.Origins),
			"forge": m{"address": s.Forge.Address.String(), "port": s.Forge.Port.String(), "on_link": s.Forge.OnLink.String()}, "fail": s.Fail.String(),
			"smtp": writeSMTP(s.SMTP, c.SMTP), "tls": writeTLS(s.TLS),
		})
	}
	k, d := c.Kernel, c.Timeouts
	data, err := yaml.Marshal(m{
		"interfaces": m{"client": c.Interfaces.Client, "origin": c.Interfaces.Origin},
		"services":   services,
		"zones":      writeZones(c.Zones),
		"smtp":       writeSMTP(c.SMTP, Default().SMTP),
		"tls":        writeTLS(c.TLS),
		"kernel": m{
			"bpffs": k.BPFFS, "run_dir": k.RunDir, "datapath": k.Datapath.String(), "netfilter": k.Netfilter.String(),
			"client_mark": k.ClientMark, "origin_mark": k.OriginMark, "table": k.Table, "priority": k.Priority,
			"forward_rules": k.ForwardRules.String(), "loop_mark": k.LoopMark, "loop_table": k.LoopTable,
			"heartbeat": k.Heartbeat.String(),
		},
		"timeouts": m{
			"connect": d.Connect.String(), "greet": d.Greet.String(), "handshake": d.Handshake.String(), "command": d.Command.String(), "reply": d.Reply.String(),
			"data": d.Data.String(), "block": d.Block.String(), "end": d.End.String(), "proxy": d.Proxy.String(), "drain": d.Drain.String(),
		},
		"limits":  m{"sessions": c.Limits.Sessions},
		"log":     m{"format": c.Log.Format, "silent_visitors": c.Log.SilentVisitors},
		"metrics": m{"listen": server(c.Metrics.Listen)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeZones(list []Zone) []map[string]any {
	all := []map[string]any{}
	for _, z := range list {
		networks := []string{}
		for _, n := range z.Networks {
			networks = append(networks, n.String())
		}
		all = append(all, map[string]any{"name": z.Name, "networks": networks, "trust": strings.Fields(z.Trust.String())})
	}
	return all
}

// writeTLS returns the section that makes t of anything.
func writeTLS(t TLS) map[string]any {
	type m = map[string]any
	certificates := []m{}
	for _, c := range t.Certificates {
		certificates = append(certificates, m{"chain": c.Chain, "key": c.Key})
	}
	pins := []string{}
	for _, p := range t.Origin.Pins {
		pins = append(pins, p.String())
	}
	resolver := ""
	if t.Origin.Resolver.IsValid() {
		resolver = t.Origin.Resolver.String()
	}
	c, o := t.Client, t.Origin
	return m{
		"mode": t.Mode.String(), "certificates": certificates, "domains": append([]string{}, t.Domains...),
		"client": m{"require": c.Require, "implicit": c.Implicit, "minimum": c.Minimum.String(), "rsa_key_exchange": c.RSA.String(), "verify": c.Verify.String(), "ca": c.CA},
		"origin": m{"require": o.Require, "implicit": o.Implicit, "verify": o.Verify.String(), "name": o.Name, "ca": o.CA, "pins": pins, "resolver": resolver},
	}
}

// writeSMTP returns the section that makes s of what is in force without it.
func writeSMTP(s, before protocol.Rules) map[string]any {
	section := map[string]any{}
	for _, setting := range protocol.Settings {
		w := writer{before: before}
		setting.Visit(&s, &w)
		in, key := section, setting.Key
		if outer, inner, nested := strings.Cut(key, "."); nested {
			if section[outer] == nil {
				section[outer] = map[string]any{}
			}
			in, key = section[outer].(map[string]any), inner
		}
		in[key] = w.written
	}
	if s.AuthInClear == before.AuthInClear { // a service may take AUTH away from what is inherited
		delete(section, "auth_in_clear")
	}
	return section
}

// writer writes one key.
type writer struct {
	before  protocol.Rules
	written any
}

func (w *writer) Truth(v *bool)                          { w.written = *v }
func (w *writer) Word(n *uint8, words []string)          { w.written = words[*n] }
func (w *writer) Number(n *int, _, _ uint64)             { w.written = *n }
func (w *writer) Octets(n *int64, _, _ uint64)           { w.written = *n }
func (w *writer) Time(d *time.Duration, _ time.Duration) { w.written = d.String() }
func (w *writer) Host(name *string, _ bool)              { w.written = *name }
func (w *writer) Mechanisms(list *[]string)              { w.written = append([]string{}, *list...) }

func (w *writer) Extensions(set *smtp.Extensions) {
	before := w.before.Keywords
	w.written = map[string]any{"allow": names(*set &^ before), "remove": names(before &^ *set)}
}

func (w *writer) Forward(verbs *smtp.Verbs) {
	all := []string{}
	for _, v := range protocol.Forwardable {
		if verbs.Has(v) {
			all = append(all, v.String())
		}
	}
	w.written = all
}

func (w *writer) Commands(list *[]protocol.Command) {
	all := []map[string]any{}
	for _, c := range *list {
		entry := map[string]any{"name": c.Verb.String(), "verdict": verdictWords[slices.Index(verdicts, c.Action)]}
		if c.Action != protocol.Accept {
			entry["code"], entry["text"] = uint16(c.Reply.Code), c.Reply.Text
		}
		all = append(all, entry)
	}
	w.written = all
}

func names(set smtp.Extensions) []string {
	all := []string{}
	for _, e := range protocol.Carried {
		if set.Has(e) {
			all = append(all, e.String())
		}
	}
	return all
}

// server writes the address of a server of ours, nothing for none.
func server(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func targets(list []Target) []string {
	texts := []string{}
	for _, t := range list {
		texts = append(texts, t.String())
	}
	return texts
}

func origins(list []netip.AddrPort) []string {
	texts := []string{}
	for _, o := range list {
		texts = append(texts, o.String())
	}
	return texts
}
