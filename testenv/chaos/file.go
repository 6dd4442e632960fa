package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/portreeve/portreeve/testenv"
)

// File is a configuration. Each of them serves all ways, by services that fail closed.
type File struct {
	Apart    bool   // a service for each way in; else one for both
	Renamed  bool   // other names of services
	Marks    bool   // other marks
	Tables   bool   // other tables and priority
	Skip     bool   // forward_rules: skip
	Prefixes bool   // intercepts prefixes
	More     bool   // one more service, which fails open
	Exact    bool   // the client's own port is forged
	Filters  bool   // datapath: clsact
	Legacy   bool   // netfilter: legacy
	TLS      bool   // has a certificate, and so a process that holds its key
	Port     uint16 // more services, at this port and the next; 0: none
}

// DrawFile makes one at random. A few things are as nobody would have them by default.
func DrawFile(r *rand.Rand) File {
	var f File
	for _, may := range []struct {
		what    *bool
		percent int
	}{
		{&f.Apart, 50}, {&f.Renamed, 20}, {&f.Marks, 15}, {&f.Tables, 15}, {&f.Skip, 25}, {&f.Prefixes, 30},
		{&f.More, 30}, {&f.Exact, 25}, {&f.Filters, 15}, {&f.Legacy, 15}, {&f.TLS, 40},
	} {
		*may.what = r.IntN(100) < may.percent
	}
	if r.IntN(100) < 30 {
		f.Port = uint16(600 + 10*r.IntN(3))
	}
	return f
}

func (f File) String() string {
	var words []string
	for _, w := range []struct {
		is   bool
		word string
	}{
		{f.Apart, "apart"}, {f.Renamed, "renamed"}, {f.Marks, "marks"}, {f.Tables, "tables"}, {f.Skip, "skip"}, {f.Prefixes, "prefixes"},
		{f.More, "more"}, {f.Exact, "exact"}, {f.Filters, "clsact"}, {f.Legacy, "legacy"}, {f.TLS, "tls"}, {f.Port != 0, fmt.Sprint(f.Port)},
	} {
		if w.is {
			words = append(words, w.word)
		}
	}
	if words == nil {
		return "plain"
	}
	return strings.Join(words, "-")
}

// YAML is the file. keys is the path of the certificate's files without their endings.
func (f File) YAML(t testenv.Topology, keys string) string {
	var y strings.Builder
	y.WriteString("interfaces: {client: [ext0], origin: [dmz0]}\n")
	fmt.Fprintf(&y, "kernel: {%s}\n", strings.Join(f.kernel(), ", "))
	y.WriteString("timeouts: {connect: 5s, greet: 5s, command: 30s, reply: 30s, data: 30s, block: 30s, end: 30s, drain: 5s}\n")
	y.WriteString("limits: {sessions: 1000}\n")
	if f.TLS {
		fmt.Fprintf(&y, "tls: {certificates: [{chain: %s.pem, key: %[1]s.key}]}\n", keys)
	}
	y.WriteString("services:\n")
	for _, s := range f.services(t) {
		y.WriteString(s)
	}
	return y.String()
}

func (f File) kernel() []string {
	words := []string{"netfilter: nft"}
	if f.Legacy {
		words[0] = "netfilter: legacy"
	}
	if f.Filters {
		words = append(words, "datapath: clsact")
	}
	if f.Marks {
		words = append(words, "client_mark: 0x10000000", "origin_mark: 0x20000000", "loop_mark: 0x40000000")
	}
	if f.Tables {
		words = append(words, "table: 3030", "loop_table: 3035", "priority: 30")
	}
	if f.Skip {
		words = append(words, "forward_rules: skip")
	}
	return words
}

func (f File) services(t testenv.Topology) []string {
	const origins = "    origins: [\"%s:25\", \"[%s]:25\"]\n    fail: closed\n    forge: {port: %s}\n"
	name, port := "mx", "any"
	if f.Renamed {
		name = "mail"
	}
	if f.Exact {
		port = "exact"
	}
	listen := fmt.Sprintf("    listen: [\"%s:25\", \"[%s]:25\"]\n", t.Gateway4, t.Gateway6)
	intercept := fmt.Sprintf("    intercept: [\"%s:25\", \"[%s]:25\"]\n", t.Origin4, t.Origin6)
	if f.Prefixes {
		intercept = "    intercept: [\"172.16.20.254/31:25\", \"[fd00:20::fe/127]:25\"]\n"
	}
	to := fmt.Sprintf(origins, t.Origin4, t.Origin6, port)
	all := []string{"  - name: " + name + "\n" + listen + intercept + to}
	if f.Apart {
		all = []string{"  - name: " + name + "\n" + listen + to, "  - name: " + name + "-transit\n" + intercept + to}
	}
	if f.More {
		all = append(all, fmt.Sprintf("  - {name: more, intercept: [\"%s:25\", \"[%s]:25\"], fail: open}\n", t.More4, t.More6))
	}
	for n := range min(f.Port, 2) {
		all = append(all, fmt.Sprintf("  - {name: port%[1]d, listen: [\"%[2]s:%[1]d\"], origins: [\"%[3]s:25\"]}\n", f.Port+n, t.Gateway4, t.Origin4))
	}
	return all
}
