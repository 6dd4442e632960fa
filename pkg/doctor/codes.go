package doctor

import "slices"

// Code is what findings of one kind are known by. Codes are stable: scripts may look
// for them.
type Code struct {
	Name  string
	Means string
	Hides []string // what it explains, and what then is not told of the same thing
}

// lost is what an origin looks like whose packets get lost on the way.
var lost = []string{"return-route", "return-lost", "return-interface", "origin-silent", "origin-unreachable", "origin-tls-unseen"}

// Codes are all that findings may have, sorted by topic.
var Codes = []Code{
	{"kernel-lacks", "The kernel has no feature that portreeve needs.", nil},
	{"kernel-unknown", "It cannot be told whether the kernel has a feature.", nil},
	{"data-path", "How packets are steered here.", nil},
	{"bpffs-missing", "No BPF file system is mounted.", nil},
	{"tcx-missing", "The configuration asks for TCX links, which the kernel has not.", nil},

	{"attached", "The kernel side is as the configuration asks for.", nil},
	{"not-attached", "The kernel side is not attached.", nil},
	{"drift", "What is attached is not what the configuration asks for.", nil},
	{"inspector-alive", "An inspector serves.", nil},
	{"inspector-none", "No inspector serves.", nil},
	{"inspector-partial", "The inspector does not serve all services that are attached.", nil},
	{"inspector-hung", "The inspector's heartbeat is late.", nil},
	{"descriptors", "A process may not open enough files for limits.sessions.", nil},

	{"interface-missing", "An interface of the configuration does not exist.", nil},
	{"interface-vrf", "An interface that mail is steered on is in a VRF, or is one.", nil},
	{"bypass-vrf", "An interface under bypass is in a VRF.", nil},
	{"interface-port", "An interface is a port of a bridge or bond.", nil},
	{"interface-down", "An interface is down.", nil},
	{"interface-no-carrier", "An interface has no carrier.", nil},
	{"interface-no-address", "An interface has no address.", nil},
	{"interface-unlisted", "What comes in by an interface that no list names is stopped.", nil},
	{"listen-elsewhere", "An address under listen is not the gateway's.", nil},
	{"target-here", "An address under intercept is the gateway's own.", nil},
	{"origin-here", "An origin is the gateway itself.", nil},
	{"local-server", "A local server listens on an address of a service.", nil},

	{"forward-unguarded", "Nothing stops connections past portreeve that leave by an interface which is on no side.", nil},
	{"bridge", "An interface is a bridge.", nil},
	{"xdp", "An XDP program may redirect packets before they are seen.", nil},
	{"program-ahead", "A TC program of others comes before one of portreeve's.", nil},

	{"rule-into-table", "A routing rule of others leads into a table of portreeve's.", nil},
	{"rule-mark-bits", "A routing rule of others looks at mark bits of portreeve's.", nil},
	{"rule-before", "A routing rule of others comes before portreeve's.", nil},
	{"route-in-table", "A route of others is in a table of portreeve's.", nil},
	{"rp-filter", "The reverse path filter is strict.", nil},
	{"src-valid-mark", "A setting that breaks setups like this one elsewhere.", nil},
	{"fwmark-accept", "A setting that breaks setups like this one elsewhere.", nil},
	{"forwarding-off", "The kernel does not forward what it has to.", nil},
	{"networkd-rules", "systemd-networkd removes routing rules of others.", nil},
	{"networkd-routes", "systemd-networkd may remove portreeve's route.", nil},

	{"rules-astray", "Portreeve's own rules are gone or not in their place, and rules of others do harm.", append([]string{"drift"}, lost...)},
	{"rules-unfollowed", "Packets have more ways through a chain's rules than can be followed, and harm that is done there may not be named.", nil},
	{"ingress-drops", "A chain of nftables at an interface's ingress drops what mail needs.", lost},
	{"prerouting-drops", "A rule in PREROUTING drops what mail needs.", lost},
	{"input-drops", "A rule or policy in INPUT drops what mail needs.", lost},
	{"forward-drops", "A rule or policy in FORWARD drops new connections of transit.", lost},
	{"output-drops", "A rule or policy in OUTPUT drops what mail needs.", lost},
	{"postrouting-drops", "A rule in POSTROUTING drops what mail needs.", lost},
	{"egress-drops", "A chain of nftables at an interface's egress drops what mail needs.", lost},
	{"fail-open-drops", "A rule or policy in FORWARD drops what a service that fails open leaves to the kernel.", nil},
	{"synproxy", "SYNPROXY takes connections before the inspector does.", nil},
	{"mark-writer", "A rule changes mark bits of portreeve's.", lost},
	{"divert-client", "A rule sends clients' connections elsewhere.", nil},
	{"divert-origin", "A rule sends the inspector's connections elsewhere.", lost},
	{"diverted-into", "A rule sends connections to an origin that were not inspected.", nil},
	{"masquerade-origin", "A rule gives forged connections another source.", lost},
	{"masquerade-loop", "A rule gives clients' connections another source on the way to the inspector.", nil},
	{"masquerade-clients", "The gateway gives clients another source on their way out, and a service forges their own.", append([]string{"masquerade-origin"}, lost...)},
	{"forward-out-interface", "Rules in FORWARD ask for the origin's interface, and are not met by new connections of transit.", nil},
	{"forward-mark", "Rules compare a whole mark, and are not met by new connections of transit, which bear a bit of portreeve's.", nil},
	{"forward-later", "Rules in FORWARD stop some clients behind their SYN, and are not met by connections of transit.", nil},
	{"flowtable", "A flowtable carries flows past all rules.", nil},
	{"saved-rules", "Saved rules hold one of portreeve's, and cannot be loaded.", nil},

	{"origin-no-route", "No route leads to an origin.", lost},
	{"origin-interface", "The route to an origin leaves by an interface that is not on the origin side.", lost},
	{"origin-source-route", "A routing rule that asks for the source sends forged connections elsewhere.", lost},
	{"on-link", "An origin is in a network where clients are, too.", nil},
	{"on-link-network", "Clients in another network are on the origin's link.", nil},
	{"on-link-router", "An origin's router is in a network where clients are, too.", nil},
	{"return-route-untried", "The origins' return routes were not tried.", nil},
	{"return-route-works", "An origin's replies to clients pass the gateway.", nil},
	{"return-route", "An origin's replies to clients do not come back.", []string{"origin-tls-unseen"}},
	{"return-interface", "An origin's replies to clients come in by an interface that is not on the origin side.", []string{"origin-tls-unseen"}},
	{"return-lost", "An origin's replies to clients come in, and are lost on the gateway.", []string{"origin-tls-unseen"}},
	{"origin-refuses", "An origin refuses connections.", []string{"origin-tls-unseen"}},
	{"origin-silent", "An origin answers nobody.", []string{"origin-tls-unseen"}},
	{"origin-unreachable", "An origin cannot be connected to.", []string{"origin-tls-unseen"}},

	{"tls-off", "A service takes TLS out of what its origins offer.", nil},
	{"certificate-unreadable", "A certificate cannot be used.", nil},
	{"certificate-warning", "There is something about a certificate's files.", nil},
	{"certificate-expired", "A certificate has expired.", nil},
	{"certificate-early", "A certificate is not valid yet.", nil},
	{"certificate-expires", "A certificate expires soon.", nil},
	{"certificate-untrusted", "A certificate's chain leads to no root.", nil},
	{"client-ca", "The authority of clients' certificates cannot be used.", nil},
	{"origin-policy", "An origin's certificate cannot be judged as the configuration asks.", nil},
	{"origin-tls", "What an origin offers.", nil},
	{"origin-secrecy", "An origin's TLS has no forward secrecy.", nil},
	{"origin-tls-unseen", "It cannot be seen what an origin offers.", nil},
	{"origin-no-tls", "An origin offers no TLS.", nil},
	{"origin-pin", "An origin's key is none of the pinned ones.", nil},
	{"origin-certificate", "An origin's certificate is refused.", nil},
	{"origin-name", "An origin calls itself by a name for which there is no certificate.", nil},
	{"domain-unseen", "It cannot be seen what a domain publishes.", nil},
	{"domain-no-mx", "A domain has no MX record.", nil},
	{"sts-unusable", "A domain's MTA-STS policy cannot be used.", nil},
	{"sts-mx", "A domain's MTA-STS policy does not name its mail server.", nil},
	{"sts-no-tls", "A domain's MTA-STS policy asks for TLS, which is not offered.", nil},
	{"sts-certificate", "A domain's MTA-STS policy asks for a certificate that is not shown.", nil},
	{"dane-insecure", "DNSSEC does not vouch for TLSA records.", nil},
	{"dane-no-tls", "TLSA records ask for TLS, which is not offered.", nil},
	{"dane-useless", "TLSA records are of no use for SMTP.", nil},
	{"dane-certificate", "TLSA records do not fit the certificate.", nil},
	{"dane-fits", "TLSA records fit the certificate.", nil},
}

// hides are the codes that a code explains.
func hides(name string) []string {
	i := slices.IndexFunc(Codes, func(c Code) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return Codes[i].Hides
}
