package daemon

import (
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// parse reads the smallest configuration with more behind it.
func parse(more string) (*config.Config, error) {
	return config.Parse("test.yaml", append(config.Minimal[:len(config.Minimal):len(config.Minimal)], more...), nil)
}

func mustParse(t *testing.T, more string) *config.Config {
	t.Helper()
	c, err := parse(more)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServicesHaveTheirOwnRules: what a service says is its own.
func TestServicesHaveTheirOwnRules(t *testing.T) {
	c := mustParse(t, `  - name: out
    listen: ["172.16.40.2:25"]
    origins: ["172.16.20.254:25"]
    smtp: {extensions: {remove: [CHUNKING]}, limits: {size: 1MiB}}
smtp: {limits: {size: 2MiB, errors: 5}}
`)
	i := &inspector{Options: Options{Config: c}}
	services, err := i.serve(nil)
	if err != nil {
		t.Fatal(err)
	}
	mx, out := services["mx"].Policy.Rules(), services["out"].Policy.Rules()
	if mx.Size != 2<<20 || mx.Errors != 5 || !mx.Keywords.Has(smtp.ExtChunking) {
		t.Errorf("mx has %+v", mx)
	}
	if out.Size != 1<<20 || out.Errors != 5 || out.Keywords.Has(smtp.ExtChunking) {
		t.Errorf("out has %+v", out)
	}
}
