package main

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
)

// What a watcher knows of the machine it asks again where another configuration was
// attached: the flavour of iptables is the configuration's matter.
func TestWatcherPlansForTheConfiguration(t *testing.T) {
	const file = `interfaces: {client: [ext0], origin: [dmz0]}
kernel: {netfilter: %s}
services:
  - {name: mx, listen: ["192.0.2.1:25"], origins: ["192.0.2.2:25"]}
`
	w := &watcher{}
	for _, flavour := range []config.Netfilter{config.NetfilterLegacy, config.NetfilterNFT, config.NetfilterLegacy} {
		c, err := config.Parse("test.yaml", fmt.Appendf(nil, file, flavour), nil)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := w.plan(c)
		if err != nil {
			t.Fatalf("%v; the tests need root", err)
		}
		chains := 0
		for _, i := range want {
			if chain, is := i.(plan.Chain); is {
				chains++
				if chain.Legacy != (flavour == config.NetfilterLegacy) {
					t.Errorf("with %s: %s", flavour, chain)
				}
			}
		}
		if chains == 0 {
			t.Errorf("with %s there are no chains", flavour)
		}
	}
}

// A watcher that stands by does not end one that gets on because it was stopped itself:
// what was said meanwhile is read, and one that was stopped with it may say it now.
func TestBeatsAreAwaited(t *testing.T) {
	t.Parallel()
	heard, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	time.AfterFunc(beatLimit+beatGrace/2, func() { said.Write([]byte{'.'}) })
	if err := awaitBeat(heard); err != nil {
		t.Errorf("a beat that comes late: %v", err)
	}
	if err := awaitBeat(heard); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a beat: %v", err)
	}
	said.Close()
	if err := awaitBeat(heard); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}
