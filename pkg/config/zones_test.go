package config

import "testing"

// TestZonesWarnOfWideTrust: a network that is wider than anybody's own is taken,
// with a word about it where its clients may speak for others.
func TestZonesWarnOfWideTrust(t *testing.T) {
	const wide = " is more than one network of yours can have, and is trusted for PROXY; write the networks of your own proxies and filters"
	for zone, want := range map[string]string{
		`networks: [10.0.0.0/8], trust: [PROXY]`:             "",
		`networks: ["fc00::/16"], trust: [PROXY]`:            "",
		`networks: [192.0.2.7, "2001:db8::7"], trust: PROXY`: "",
		`networks: [128.0.0.0/1, "2000::/3"]`:                "",
		`networks: [10.0.0.0/7], trust: [PROXY]`:             "test.yaml:7: zones[0].networks[0]: 10.0.0.0/7" + wide,
		`networks: [192.0.2.7, "fc00::/7"], trust: [PROXY]`:  "test.yaml:7: zones[0].networks[1]: fc00::/7" + wide,
	} {
		c := mustParse(t, string(Minimal)+"zones: [{name: z, "+zone+"}]\n")
		if len(c.Zones) != 1 || c.Warnings.Error() != want {
			t.Errorf("%s: warnings %q, want %q", zone, c.Warnings.Error(), want)
		}
	}
}
