package config

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/protocol"
)

// buildNetwork turns interfaces and services into what they mean and judges
// them. The settings in c are in place already: services begin with them. What
// is in c is only true when nothing was reported.
func buildNetwork(r *report, raw *rawConfig, c *Config) {
	c.Interfaces = interfaces(r, raw.Interfaces)
	c.Zones = zones(r, raw.Zones)
	parsed := services(r, raw, c)
	for _, s := range parsed {
		c.Services = append(c.Services, s.service())
	}
	judge(r, parsed)
	judgeMetrics(r, c.Metrics, parsed)
}

// buildSettings puts all that stands outside interfaces and services over the
// defaults in c.
func buildSettings(r *report, raw *rawConfig, c *Config) {
	rules(r, "smtp", raw.SMTP, &c.SMTP)
	tlsSection(r, "tls", raw.TLS, &c.TLS)
	kernel(r, raw.Kernel, &c.Kernel)
	timeouts(r, raw.Timeouts, &c.Timeouts)
	number(r, "limits.sessions", raw.Limits.Sessions, 1, maxSessions, &c.Limits.Sessions)
	logging(r, raw.Log, &c.Log)
	metrics(r, raw.Metrics, &c.Metrics)
}

// maxSessions is above what the sockets of one process can be: two of them a
// session, and Linux allows 1,048,576 open files unless it is told otherwise.
const maxSessions = 1_000_000

func interfaces(r *report, raw rawInterfaces) Interfaces {
	seen := map[string]path{}
	i := Interfaces{
		Client: side(r, "interfaces.client", raw.Client, "clients come in by"),
		Origin: side(r, "interfaces.origin", raw.Origin, "lead to the origins"),
		Bypass: interfaceNames(r, "interfaces.bypass", raw.Bypass, seen),
	}
	for _, name := range i.Bypass {
		if slices.Contains(i.Client, name) || slices.Contains(i.Origin, name) {
			r.refuse(seen[name], "remove it from one of them", "interface %s is on a side, and what comes in by it cannot pass uninspected", quote(name))
		}
	}
	return i
}

// side reads the interfaces of one side, which has some.
func side(r *report, at path, raw []scalar, what string) []string {
	list := interfaceNames(r, at, raw, map[string]path{})
	if len(list) == 0 && r.clean(at) && !r.reported[at.parent()] {
		r.refuse(at, "name the interfaces that "+what+": "+at.last()+": [eth0]", "names no interface")
	}
	return list
}

// interfaceNames reads a list of interfaces, and where each stands.
func interfaceNames(r *report, at path, raw []scalar, seen map[string]path) []string {
	var names []string
	for _, name := range r.texts(at, raw) {
		if wrong := judgeInterface(name.value); wrong != nil {
			r.refuse(name.at, wrong.remedy, "%s", wrong.text)
			continue
		}
		if first, again := seen[name.value]; again {
			r.refuse(name.at, "remove one of them", "interface %s is listed before, at %s", quote(name.value), first)
			continue
		}
		seen[name.value] = name.at
		names = append(names, name.value)
	}
	return names
}

// parsedService is a service whose values still know where they stand.
type parsedService struct {
	at        path
	name      string
	listen    []located[Target]
	intercept []located[Target]
	origins   []located[netip.AddrPort]
	forge     Forge
	fail      Fail
	smtp      protocol.Rules
	tls       TLS

	raw, common []scalar // extensions that are allowed, here and for all services
}

// ways are the paths of the lists that say where mail comes from and goes.
func (s parsedService) ways() []path {
	return []path{s.at.key("listen"), s.at.key("intercept"), s.at.key("origins")}
}

func (s parsedService) service() Service {
	return Service{
		Name:      s.name,
		Listen:    values(s.listen),
		Intercept: values(s.intercept),
		Origins:   values(s.origins),
		Forge:     s.forge,
		Fail:      s.fail,
		SMTP:      s.smtp,
		TLS:       s.tls,
	}
}

func values[T any](list []located[T]) []T {
	var all []T
	for _, l := range list {
		all = append(all, l.value)
	}
	return all
}

func services(r *report, raw *rawConfig, c *Config) []parsedService {
	if r.reported["services"] {
		return nil
	}
	var all []parsedService
	for i, s := range raw.Services {
		if at := path("services").item(i); !r.reported[at] {
			one := service(r, at, s, c)
			one.common = raw.SMTP.Extensions.Allow
			completeTLS(r, &one)
			all = append(all, one)
		}
	}
	return all
}

func service(r *report, at path, raw rawService, c *Config) parsedService {
	s := parsedService{
		at:        at,
		listen:    unique(r, at.key("listen"), raw.Listen, parseTarget),
		intercept: unique(r, at.key("intercept"), raw.Intercept, parseTarget),
		origins:   unique(r, at.key("origins"), raw.Origins, parseOrigin),
		smtp:      c.SMTP,
		tls:       c.TLS,
		raw:       raw.SMTP.Extensions.Allow,
	}
	s.name, _ = r.text(at.key("name"), raw.Name)
	word(r, at.key("forge").key("address"), raw.Forge.Address, forgeAddressWords, &s.forge.Address)
	forgePort(r, at.key("forge").key("port"), raw.Forge.Port, &s.forge.Port)
	word(r, at.key("forge").key("on_link"), raw.Forge.OnLink, onLinkWords, &s.forge.OnLink)
	word(r, at.key("fail"), raw.Fail, failWords, &s.fail)
	rules(r, at.key("smtp"), raw.SMTP, &s.smtp)
	tlsSection(r, at.key("tls"), raw.TLS, &s.tls)
	return s
}

// unique reads a list whose entries must differ.
func unique[T comparable](r *report, at path, raw []scalar, parse func(string) (T, *fault)) []located[T] {
	var all []located[T]
	seen := map[T]path{}
	for _, s := range r.texts(at, raw) {
		v, wrong := parse(s.value)
		if wrong != nil {
			r.refuse(s.at, wrong.remedy, "%s", wrong.text)
			continue
		}
		if first, again := seen[v]; again {
			r.refuse(s.at, "remove one of them", "%v is listed before, at %s", v, first)
			continue
		}
		seen[v] = s.at
		all = append(all, located[T]{s.at, v})
	}
	return all
}

// forgePort reads a word or a number.
func forgePort(r *report, at path, v scalar, dst *ForgePort) {
	if r.absent(at, v) {
		return
	}
	text := digits(v)
	if mode, ok := choice[PortMode](portModeWords, text); ok {
		*dst = ForgePort{Mode: mode}
		return
	}
	port, ok := parsePort(text)
	if !ok {
		r.refuse(at, wordRemedy(v, portModeWords),
			"%s is neither one of %s nor a number from 1 to 65535", r.show(at, v), strings.Join(portModeWords, ", "))
		return
	}
	*dst = ForgePort{Mode: PortNumber, Number: port}
}

func kernel(r *report, raw rawKernel, k *Kernel) {
	directory(r, "kernel.bpffs", raw.BPFFS, &k.BPFFS)
	directory(r, "kernel.run_dir", raw.RunDir, &k.RunDir)
	word(r, "kernel.datapath", raw.Datapath, datapathWords, &k.Datapath)
	word(r, "kernel.netfilter", raw.Netfilter, netfilterWords, &k.Netfilter)
	mark(r, "kernel.client_mark", raw.ClientMark, &k.ClientMark)
	mark(r, "kernel.origin_mark", raw.OriginMark, &k.OriginMark)
	word(r, "kernel.forward_rules", raw.ForwardRules, forwardRulesWords, &k.ForwardRules)
	mark(r, "kernel.loop_mark", raw.LoopMark, &k.LoopMark)
	number(r, "kernel.table", raw.Table, 1, math.MaxInt32, &k.Table)
	k.LoopTable = tableAfter(k.Table)
	number(r, "kernel.loop_table", raw.LoopTable, 1, math.MaxInt32, &k.LoopTable)
	number(r, "kernel.priority", raw.Priority, 1, maxPriority, &k.Priority)
	r.duration("kernel.heartbeat", raw.Heartbeat, 500*time.Millisecond, 5*time.Minute, &k.Heartbeat)
	judgeKernel(r, k)
}

// maxPriority is the last one before the rule that looks up the main table
// (32766): behind it our rules would never be asked.
const maxPriority = 32765

// mark reads a number with exactly one bit set.
func mark(r *report, at path, v scalar, dst *uint32) {
	if r.absent(at, v) {
		return
	}
	n, err := strconv.ParseUint(digits(v), 0, 32)
	if err != nil || n == 0 || n&(n-1) != 0 {
		r.refuse(at, "write a power of two from 0x1 to 0x80000000 that nothing else on this gateway uses",
			"%s is not a mark of one bit", r.show(at, v))
		return
	}
	*dst = uint32(n)
}

func timeouts(r *report, raw rawTimeouts, t *Timeouts) {
	for _, f := range []struct {
		key string
		v   scalar
		dst *time.Duration
	}{
		{"connect", raw.Connect, &t.Connect},
		{"greet", raw.Greet, &t.Greet},
		{"command", raw.Command, &t.Command},
		{"reply", raw.Reply, &t.Reply},
		{"data", raw.Data, &t.Data},
		{"block", raw.Block, &t.Block},
		{"end", raw.End, &t.End},
		{"handshake", raw.Handshake, &t.Handshake},
		{"proxy", raw.Proxy, &t.Proxy},
		{"drain", raw.Drain, &t.Drain},
	} {
		r.duration(path("timeouts").key(f.key), f.v, 1, 0, f.dst)
	}
}

func logging(r *report, raw rawLog, l *Log) {
	var form uint8
	word(r, "log.format", raw.Format, logFormatWords, &form)
	l.Format = logFormatWords[form]
	truth(r, "log.silent_visitors", raw.SilentVisitors, &l.SilentVisitors)
}
