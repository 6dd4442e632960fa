package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/portreeve/portreeve/pkg/finding"
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
func writeSMTP(s, before SMTP) map[string]any {
	type m = map[string]any
	commands := []m{}
	for _, c := range s.Commands {
		entry := m{"name": c.Verb.String(), "verdict": c.Verdict.String()}
		if c.Verdict != Accept {
			entry["code"], entry["text"] = uint16(c.Code), c.Text
		}
		commands = append(commands, entry)
	}
	forward := []string{}
	for _, v := range forwardable {
		if s.Forward.Has(v) {
			forward = append(forward, v.String())
		}
	}
	l := s.Limits
	section := m{
		"extensions": m{"allow": names(s.Extensions &^ before.Extensions), "remove": names(before.Extensions &^ s.Extensions)},
		"mechanisms": append([]string{}, s.Mechanisms...), "forward": forward, "commands": commands,
		"bare_address": s.BareAddress, "append_domain": s.AppendDomain,
		"refuse_routes": s.RefuseRoutes, "refuse_percent": s.RefusePercent, "refuse_bang": s.RefuseBang,
		"strict_helo": s.StrictHELO, "strict_pipelining": s.StrictPipelining,
		"unoffered_parameters": s.Unoffered.String(), "reply_id": s.ReplyID,
		"early_talkers": s.EarlyTalkers.String(), "nul": s.NUL.String(), "malformed_replies": s.MalformedReplies.String(),
		"bare_newlines": s.BareNewlines.String(), "eight_bit": s.EightBit.String(), "received": s.Received,
		"limits": m{
			"command": l.Command, "parameter": l.Parameter, "auth_line": l.AuthLine, "reply_line": l.ReplyLine, "reply_lines": l.ReplyLines,
			"reply_size": l.Reply, "idle": l.Idle, "tiny_chunks": l.TinyChunks, "line": l.Line, "size": l.Size, "drain": l.Drain, "recipients": l.Recipients, "messages": l.Messages,
			"errors": l.Errors, "rate": l.Rate, "session": l.Session.String(),
		},
	}
	if s.AuthInClear != before.AuthInClear { // a service may take AUTH away from what is inherited
		section["auth_in_clear"] = s.AuthInClear
	}
	return section
}

func names(set smtp.Extensions) []string {
	all := []string{}
	for _, e := range carried {
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
