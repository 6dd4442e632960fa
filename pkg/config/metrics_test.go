package config

import "testing"

// TestMetricsWarnOfOthers: an address that other machines reach is taken, with a
// word about it.
func TestMetricsWarnOfOthers(t *testing.T) {
	const others = "can be reached from other machines, and whoever does so reads how much mail flows, and where to; " +
		"listen on 127.0.0.1, or keep others away by a firewall rule"
	for listen, want := range map[string]string{
		"127.0.0.1:9125":    "",
		"127.9.9.9:1":       "",
		"[::1]:9125":        "",
		"192.0.2.9:9125":    "test.yaml:7: metrics.listen: 192.0.2.9:9125 " + others,
		"0.0.0.0:9125":      "test.yaml:7: metrics.listen: 0.0.0.0:9125 " + others,
		"[::]:9125":         "test.yaml:7: metrics.listen: [::]:9125 " + others,
		"[2001:db8::9]:443": "test.yaml:7: metrics.listen: [2001:db8::9]:443 " + others,
	} {
		c := mustParse(t, string(Minimal)+"metrics: {listen: \""+listen+"\"}\n")
		if c.Metrics.Listen.String() != listen || c.Warnings.Error() != want {
			t.Errorf("%s: listen %s, warnings %q, want %q", listen, c.Metrics.Listen, c.Warnings.Error(), want)
		}
	}
}
