package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// STS is what a domain publishes for MTA-STS, RFC 8461.
type STS struct {
	Announced bool   // a TXT record says that there is a policy
	Mode      string // enforce, testing or none
	MX        []string
	Err       error // why there is no policy, where one is announced
}

// matches reports whether a mail server is one of the policy's, RFC 8461 section
// 4.1: "*." stands for exactly one label.
func (s STS) matches(mx string) bool {
	return slices.ContainsFunc(s.MX, func(pattern string) bool {
		if rest, wild := strings.CutPrefix(pattern, "*."); wild {
			_, parent, found := strings.Cut(mx, ".")
			return found && parent == rest
		}
		return mx == pattern
	})
}

// parsePolicy reads a policy, RFC 8461 section 3.2. Of a field that may be there
// once, the first counts.
func parsePolicy(text string) (s STS, err error) {
	first := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch _, again := first[key]; {
		case !found:
		case key == "mx":
			s.MX = append(s.MX, strings.ToLower(value))
		case !again:
			first[key] = value
		}
	}
	s.Mode = first["mode"]
	age, err := strconv.ParseUint(first["max_age"], 10, 64)
	switch {
	case first["version"] != "STSv1":
		return s, fmt.Errorf("the policy's version is %q, not STSv1", first["version"])
	case s.Mode != "enforce" && s.Mode != "testing" && s.Mode != "none":
		return s, fmt.Errorf("the policy's mode is %q, which is none of enforce, testing and none", s.Mode)
	case err != nil || age > maxAge:
		return s, fmt.Errorf("the policy's max_age is %q, not a number of seconds up to %d", first["max_age"], maxAge)
	case s.Mode != "none" && len(s.MX) == 0:
		return s, errors.New("the policy names no mail server")
	}
	return s, nil
}

// maxAge is the longest that a policy may be kept, in seconds: a year and a day.
const maxAge = 31557600

// announced reports whether TXT records say that there is a policy, RFC 8461
// section 3.1. Its error is why senders do not take what says so.
func announced(records []string) (bool, error) {
	records = slices.DeleteFunc(slices.Clone(records), func(r string) bool { return !version1.MatchString(r) })
	switch {
	case len(records) == 0:
		return false, nil
	case len(records) > 1:
		return true, fmt.Errorf("there are %d TXT records for it, and senders take none of several", len(records))
	case !withID.MatchString(records[0]):
		return true, fmt.Errorf("its TXT record %q has no id of 1 to 32 letters and digits", records[0])
	}
	return true, nil
}

var (
	version1 = regexp.MustCompile(`^v=STSv1[ \t]*(;|$)`)
	withID   = regexp.MustCompile(`;[ \t]*id=[A-Za-z0-9]{1,32}[ \t]*(;|$)`)
)

// Published is where what an operator has published is read.
type Published struct {
	DNS   Names
	Roots *x509.CertPool // of HTTPS; nil: the system's
	Port  uint16         // of HTTPS; 0: 443
}

// Names answers questions to DNS: a resolve.Resolver.
type Names interface {
	TXT(ctx context.Context, name string) ([]string, error)
	MX(ctx context.Context, domain string) ([]string, error)
	TLSARecords(ctx context.Context, host string, port uint16) (records []TLSA, secure bool, err error)
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// maxPolicy bounds a policy, in octets; RFC 8461 section 3.3 suggests 64 KiB.
const maxPolicy = 64 << 10

// sts reads what a domain publishes for MTA-STS.
func (p Published) sts(ctx context.Context, domain string) STS {
	records, err := p.DNS.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return STS{Announced: true, Err: err}
	}
	is, err := announced(records)
	if !is || err != nil {
		return STS{Announced: is, Err: err}
	}
	text, err := p.fetch(ctx, "mta-sts."+domain)
	if err != nil {
		return STS{Announced: true, Err: err}
	}
	s, err := parsePolicy(text)
	s.Announced, s.Err = true, err
	return s
}

// fetch gets a policy as senders do: no redirects, a certificate that is good.
func (p Published) fetch(ctx context.Context, host string) (string, error) {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: p.Roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return p.dial(ctx, network, host)
		},
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return "", err
	}
	a, err := client.Do(q)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", q.URL, a.Status)
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, maxPolicy+1))
	if len(text) > maxPolicy {
		return "", fmt.Errorf("%s is longer than %d KiB", q.URL, maxPolicy>>10)
	}
	return string(text), err
}

// dial connects to a host by the addresses that DNS has for it.
func (p Published) dial(ctx context.Context, network, host string) (net.Conn, error) {
	addresses, err := p.DNS.Addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	port := p.Port
	if port == 0 {
		port = 443
	}
	err = fmt.Errorf("DNS has no address for %s", host)
	for _, a := range addresses {
		var d net.Dialer
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, netip.AddrPortFrom(a, port).String()); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
