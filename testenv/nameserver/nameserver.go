// Package nameserver is a DNS server for tests: it answers from a list, and says
// of the names it is told to that DNSSEC vouches for them.
package nameserver

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Server answers on one port by UDP and TCP.
type Server struct {
	Addr netip.AddrPort

	udp, tcp *dns.Server

	mu      sync.Mutex
	records map[string][]dns.RR // by name, in lower case
	secure  map[string]bool
	fail    map[string]int // response codes in place of an answer
	asked   int
}

// Serve starts a server on a free port of an address.
func Serve(addr string) (*Server, error) {
	s := &Server{records: map[string][]dns.RR{}, secure: map[string]bool{}, fail: map[string]int{}}
	packets, err := net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
	if err != nil {
		return nil, err
	}
	streams, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		packets.Close()
		return nil, err
	}
	s.Addr = netip.MustParseAddrPort(packets.LocalAddr().String())
	s.udp = &dns.Server{PacketConn: packets, Handler: s}
	s.tcp = &dns.Server{Listener: streams, Handler: s}
	for _, one := range []*dns.Server{s.udp, s.tcp} {
		ready := make(chan struct{})
		one.NotifyStartedFunc = func() { close(ready) }
		go one.ActivateAndServe()
		<-ready
	}
	return s, nil
}

// Close ends the server.
func (s *Server) Close() {
	s.udp.Shutdown()
	s.tcp.Shutdown()
}

// Add adds a record in the form of zone files: "mx.example. 60 IN TXT hello".
func (s *Server) Add(records ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return fmt.Errorf("record %q: %w", text, err)
		}
		name := strings.ToLower(rr.Header().Name)
		s.records[name] = append(s.records[name], rr)
	}
	return nil
}

// Secure makes DNSSEC vouch for names, with a final dot, also for there being
// nothing.
func (s *Server) Secure(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.secure[n] = true
	}
}

// Fail makes a name fail with a response code, such as dns.RcodeServerFailure,
// 0 no longer.
func (s *Server) Fail(name string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[name] = code
}

// Asked returns how many questions came.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// ServeDNS answers a question.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	name := strings.ToLower(q.Question[0].Name)
	m := new(dns.Msg)
	m.SetReply(q)
	m.AuthenticatedData = s.secure[name]
	m.Rcode = s.fail[name]
	if m.Rcode == dns.RcodeSuccess {
		m.Answer = s.find(name, q.Question[0].Qtype)
	}
	if _, small := w.RemoteAddr().(*net.UDPAddr); small {
		m.Truncate(512)
	}
	w.WriteMsg(m)
}

// find returns the records of a name and type, behind the CNAME that leads there if
// the name has one.
func (s *Server) find(name string, kind uint16) (all []dns.RR) {
	for _, rr := range s.records[name] {
		if alias, is := rr.(*dns.CNAME); is && kind != dns.TypeCNAME {
			return append([]dns.RR{rr}, s.find(strings.ToLower(alias.Target), kind)...)
		}
		if rr.Header().Rrtype == kind {
			all = append(all, rr)
		}
	}
	return all
}
