// Package resolve asks a DNS server for what the standard library does not: TLSA
// records, and whether DNSSEC vouches for an answer.
//
// It validates nothing itself: the server that it is given does, and says so by
// one bit, which is worth as much as the way to that server is safe. It is the
// only importer of miekg/dns. Trust gets its TLSA records here, and doctor all
// that an operator has published.
package resolve

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/portreeve/portreeve/pkg/trust"
)

// Resolver asks one server. It is used by many sessions at once, and remembers
// answers for as long as they say, up to an hour.
type Resolver struct {
	server string

	mu    sync.Mutex
	known map[question]answer
}

// New returns a Resolver that asks the server at an address and port.
func New(server netip.AddrPort) *Resolver {
	return &Resolver{server: server.String(), known: make(map[question]answer)}
}

// System returns a Resolver that asks the first server of /etc/resolv.conf.
func System() (*Resolver, error) {
	c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("find a DNS server: %w", err)
	}
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			return New(netip.AddrPortFrom(a, 53)), nil
		}
	}
	return nil, errors.New("find a DNS server: /etc/resolv.conf has none")
}

type question struct {
	name string
	kind uint16
}

type answer struct {
	records []dns.RR
	secure  bool
	until   time.Time
}

// Bounds of what is remembered.
const (
	maxKnown = 1000
	longest  = time.Hour
	negative = time.Minute // that there is nothing
)

// TLSA returns the TLSA records for a host and port that DNSSEC vouches for. An
// answer without DNSSEC counts as none: whoever could forge it could as well
// take STARTTLS away (RFC 7672 section 2.1.1).
func (r *Resolver) TLSA(ctx context.Context, host string, port uint16) ([]trust.TLSA, error) {
	all, secure, err := r.TLSARecords(ctx, host, port)
	if !secure {
		return nil, err
	}
	return all, err
}

// TLSARecords returns the TLSA records for a host and port, and whether DNSSEC
// vouches for them.
func (r *Resolver) TLSARecords(ctx context.Context, host string, port uint16) (all []trust.TLSA, secure bool, err error) {
	name := "_" + strconv.Itoa(int(port)) + "._tcp." + strings.TrimSuffix(host, ".")
	a, err := r.ask(ctx, question{dns.Fqdn(name), dns.TypeTLSA})
	if err == nil {
		all, err = tlsa(a.records)
	}
	return all, a.secure, err
}

func tlsa(records []dns.RR) ([]trust.TLSA, error) {
	var all []trust.TLSA
	for _, rr := range records {
		t, is := rr.(*dns.TLSA)
		if !is {
			continue // a CNAME on the way
		}
		data, err := hex.DecodeString(t.Certificate)
		if err != nil {
			return nil, fmt.Errorf("TLSA record %s: %w", t.Hdr.Name, err)
		}
		all = append(all, trust.TLSA{Usage: t.Usage, Selector: t.Selector, Matching: t.MatchingType, Data: data})
	}
	return all, nil
}

// TXT returns the TXT records of a name, the strings of each joined.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	a, err := r.ask(ctx, question{dns.Fqdn(name), dns.TypeTXT})
	var all []string
	for _, rr := range a.records {
		if t, is := rr.(*dns.TXT); is {
			all = append(all, strings.Join(t.Txt, ""))
		}
	}
	return all, err
}

// MX returns the mail servers of a domain, without the final dots, in no order.
func (r *Resolver) MX(ctx context.Context, domain string) ([]string, error) {
	a, err := r.ask(ctx, question{dns.Fqdn(domain), dns.TypeMX})
	var all []string
	for _, rr := range a.records {
		if m, is := rr.(*dns.MX); is && m.Mx != "." { // RFC 7505: no mail at all
			all = append(all, strings.ToLower(strings.TrimSuffix(m.Mx, ".")))
		}
	}
	return all, err
}

// Addresses returns the addresses of a host, of both families.
func (r *Resolver) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := r.ask(ctx, question{dns.Fqdn(host), kind})
		if err != nil {
			return nil, err
		}
		for _, rr := range a.records {
			if addr, ok := addressOf(rr); ok {
				all = append(all, addr)
			}
		}
	}
	return all, nil
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return netip.Addr{}, false
}

// ask answers from memory, or asks the server.
func (r *Resolver) ask(ctx context.Context, q question) (answer, error) {
	r.mu.Lock()
	a, known := r.known[q]
	r.mu.Unlock()
	if known && time.Now().Before(a.until) {
		return a, nil
	}
	a, err := r.query(ctx, q)
	if err != nil {
		return answer{}, fmt.Errorf("ask %s for %s %s: %w", r.server, dns.TypeToString[q.kind], q.name, err)
	}
	r.remember(q, a)
	return a, nil
}

// remember keeps an answer. A full memory is emptied: filling it anew is cheap,
// and nobody but the configuration chooses the questions.
func (r *Resolver) remember(q question, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	r.known[q] = a
}

// query asks by UDP, and by TCP what does not fit.
func (r *Resolver) query(ctx context.Context, q question) (answer, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.kind)
	m.SetEdns0(1232, true) // DO: without it a validator need not say what it found
	m.AuthenticatedData = true
	in, err := exchange(ctx, "udp", m, r.server)
	if err == nil && in.Truncated {
		in, err = exchange(ctx, "tcp", m, r.server)
	}
	switch {
	case err != nil:
		return answer{}, err
	case in.Rcode != dns.RcodeSuccess && in.Rcode != dns.RcodeNameError:
		return answer{}, fmt.Errorf("the server says %s", dns.RcodeToString[in.Rcode])
	}
	return answer{records: in.Answer, secure: in.AuthenticatedData, until: time.Now().Add(lifetime(in.Answer))}, nil
}

// perTry is how long one question by UDP may take; a lost datagram must not cost
// a handshake.
const (
	perTry = 2 * time.Second
	tries  = 3
)

func exchange(ctx context.Context, network string, m *dns.Msg, server string) (*dns.Msg, error) {
	c := dns.Client{Net: network, Timeout: perTry}
	for try := 1; ; try++ {
		in, _, err := c.ExchangeContext(ctx, m, server)
		if err == nil && !answers(in, m) {
			err = errOther
		}
		if err == nil || try == tries || ctx.Err() != nil {
			return in, err
		}
	}
}

var errOther = errors.New("the server answers another question")

// answers reports whether a message is about the question of another; that it has
// its number is seen to by dns.Client.
func answers(in, m *dns.Msg) bool {
	if !in.Response || len(in.Question) != 1 {
		return false
	}
	have, want := in.Question[0], m.Question[0]
	return have.Qtype == want.Qtype && have.Qclass == want.Qclass && strings.EqualFold(have.Name, want.Name)
}

// lifetime is how long an answer may be remembered.
func lifetime(records []dns.RR) time.Duration {
	if len(records) == 0 {
		return negative
	}
	d := longest
	for _, rr := range records {
		d = min(d, time.Duration(rr.Header().Ttl)*time.Second)
	}
	return d
}
