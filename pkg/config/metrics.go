package config

import (
	"fmt"
	"net/netip"
)

const metricsListen path = "metrics.listen"

// metrics reads where counters can be scraped; an empty text is nowhere.
func metrics(r *report, raw rawMetrics, m *Metrics) {
	s, ok := r.text(metricsListen, raw.Listen)
	if !ok || s == "" {
		return
	}
	addr, wrong := parseServer(s)
	if wrong != nil {
		r.refuse(metricsListen, wrong.remedy, "%s", wrong.text)
		return
	}
	m.Listen = addr
	if !addr.Addr().IsLoopback() {
		r.warn(metricsListen, "listen on 127.0.0.1, or keep others away by a firewall rule",
			"%s can be reached from other machines, and whoever does so reads how much mail flows, and where to", addr)
	}
}

// parseServer reads "127.0.0.1:9125", "[::1]:9125" or "0.0.0.0:9125": where a
// server of ours listens.
func parseServer(s string) (netip.AddrPort, *fault) {
	const remedy = `write it as "127.0.0.1:9125" or "[::1]:9125"`
	a, err := netip.ParseAddrPort(s)
	switch addr := a.Addr(); {
	case err != nil, a.Port() == 0:
		return a, faultf(remedy, "%s is not an IP address with a port", quote(s))
	case addr.Zone() != "":
		return a, faultf("write the address without a zone", "%s has a zone, which only this machine understands", quote(s))
	case addr.Is4In6():
		return a, faultf(fmt.Sprintf("write %q", netip.AddrPortFrom(addr.Unmap(), a.Port())), "%s is an IPv4 address in an IPv6 form", quote(s))
	case addr.IsUnspecified(), addr.IsLoopback():
		return a, nil
	}
	if kind := specialKind(netip.PrefixFrom(a.Addr(), a.Addr().BitLen())); kind != "" {
		return a, faultf("write an address of this machine", "%s is %s", a.Addr(), kind)
	}
	return a, nil
}

// judgeMetrics refuses an address where clients bring their mail: what is
// steered to a service does not come to another server.
func judgeMetrics(r *report, m Metrics, services []parsedService) {
	if !m.Listen.IsValid() {
		return
	}
	for _, s := range services {
		for _, t := range s.listen {
			at := m.Listen.Addr()
			if t.value.Port == m.Listen.Port() && (t.value.Prefix.Contains(at) || at.IsUnspecified()) {
				r.refuse(metricsListen, "choose another port", "%s is where service %s gets its mail, by %s at %s", m.Listen, s.name, t.value, t.at)
				return
			}
		}
	}
}
