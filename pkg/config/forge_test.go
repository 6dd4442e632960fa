package config

import (
	"strings"
	"testing"
)

// TestForgeWarnings: what lets strangers come from the gateway's own address is
// taken, and said aloud; nothing of ours recommends it.
func TestForgeWarnings(t *testing.T) {
	const trusting = "; an origin that trusts the gateway's address relays for them; "
	const always = `set it to "always", unless the gateway's address has no rights at the origins`
	const prefer = "test.yaml:6: services[0].forge.address: while replies to clients' addresses do not come back from an origin, all of its clients come from the gateway's own address" + trusting + always
	const six = "test.yaml:4: services[0].listen[1]: clients of [2001:db8:40::1]:25 are IPv6, and no origin of the service is: all of them come from the gateway's own address; add an IPv6 origin, or remove [2001:db8:40::1]:25"
	for _, tc := range []struct {
		listen, forge string
		want          []string
	}{
		{`"172.16.40.1:25"`, "{address: always, on_link: refuse}", nil},
		{`"172.16.40.1:25"`, "{address: never}", nil},
		{`"172.16.40.1:25"`, "{address: prefer}", []string{prefer}},
		{`"172.16.40.1:25", "[2001:db8:40::1]:25"`, "{address: prefer}", []string{prefer, six}},
		{`"172.16.40.1:25"`, "{on_link: plain}", []string{
			"test.yaml:6: services[0].forge.on_link: clients in an origin's own network come from the gateway's own address" + trusting +
				"remove it, unless the gateway's address has no rights at the origins"}},
	} {
		c := mustParse(t, `interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    listen: [`+tc.listen+`]
    origins: ["172.16.20.254:25"]
    forge: `+tc.forge+"\n")
		if got, want := c.Warnings.Error(), strings.Join(tc.want, "\n"); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tc.forge, got, want)
		}
	}
}
