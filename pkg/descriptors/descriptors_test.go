package descriptors

import (
	"runtime"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
)

// TestSessionsFit: what sessions do not get suffices for the rest, and what is
// advised is enough and not more.
func TestSessionsFit(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for _, c := range []struct {
		n        Need
		sessions int
		pipes    int
	}{
		{Need{Limit: 1024, Used: 30}, (1024 - 30 - refusing - passing) / 2, 0},
		{Need{Limit: 1024, Used: 30, dns: true}, (1024 - 30 - refusing - passing) / 3, 0},
		{Need{Limit: 1024, Used: 30, opaque: true}, (1024 - 30 - refusing - passing - 2*(64+4)) / 2, 64},
		{Need{Limit: 1024, Used: 30, pages: true}, (1024 - 30 - refusing - passing - 1 - Scrapers - reading) / 2, 0},
		{Need{Limit: 1024, Used: 30, tries: true}, (1024 - 30 - refusing - passing - Tries) / 2, 0},
		{Need{Limit: 1 << 20, Used: 30, opaque: true}, (1<<20 - 30 - refusing - passing - 2*(256+4)) / 2, 256},
		{Need{Limit: 60, Used: 30}, -2, 0},
	} {
		if n, p := c.n.Sessions(), c.n.Pipes(); n != c.sessions || p != c.pipes {
			t.Errorf("%+v: %d sessions and %d pipes, want %d and %d", c.n, n, p, c.sessions, c.pipes)
		}
		for _, wanted := range []int{2500, 10_000} {
			n := c.n
			n.Limit = n.LimitFor(wanted)
			enough := n.Sessions()
			n.Limit -= n.each()
			if less := n.Sessions(); enough != wanted || less >= wanted {
				t.Errorf("%+v: for %d sessions %d open files are advised, with which there are %d", c.n, wanted, n.Limit, enough)
			}
		}
	}
}

// TestOf: what a session needs depends on the configuration.
func TestOf(t *testing.T) {
	const prefers = "interfaces: {client: [ext0], origin: [dmz0]}\nservices:\n  - {name: mx, listen: [\"192.0.2.1:25\"], origins: [\"198.51.100.1:25\"], forge: {address: prefer}, tls: {mode: off}}\n"
	const services = "interfaces: {client: [ext0], origin: [dmz0]}\nservices:\n  - {name: mx, listen: [\"192.0.2.1:25\"], origins: [\"198.51.100.1:25\"], tls: "
	for text, want := range map[string]Need{
		prefers:                             {tries: true},
		services + "{mode: off}}\n":         {},
		services + "{mode: passthrough}}\n": {opaque: true},
		services + "{mode: client, certificates: [{chain: /c, key: /k}]}}\n":                                                                            {},
		services + "{mode: mirror, certificates: [{chain: /c, key: /k}], origin: {verify: dane, name: mx.example.org, resolver: \"192.0.2.53:53\"}}}\n": {dns: true},
		services + "{mode: off}}\nmetrics: {listen: \"127.0.0.1:9125\"}\n":                                                                              {pages: true},
	} {
		c, err := config.Parse("test.yaml", []byte(text), nil)
		if err != nil {
			t.Errorf("%s%v", text, err)
		} else if got := Of(c); got != want {
			t.Errorf("%s%+v, want %+v", text, got, want)
		}
	}
}
