package returns

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/testenv/alone"
)

// TestMain makes origins local, and brings back what they answer to addresses of
// nobody, as the origin-side program does.
func TestMain(m *testing.M) {
	alone.Main(m,
		"addr add 10.0.0.25/32 dev lo",
		"addr add fd00::25/128 dev lo nodad",
		"rule add from 10.0.0.25 lookup 100",
		"-6 rule add from fd00::25 lookup 100",
		"route add local 0.0.0.0/1 dev lo table 100",
		"route add local 128.0.0.0/1 dev lo table 100",
		"-6 route add local ::/0 dev lo table 100",
	)
}

// TestTryOverTheNetwork: what comes back, and what is dropped, over real sockets.
func TestTryOverTheNetwork(t *testing.T) {
	for tool, origin := range map[string]string{"iptables": "10.0.0.25", "ip6tables": "fd00::25"} {
		t.Run(tool, func(t *testing.T) {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false)
			ln, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(origin, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			at := netip.MustParseAddrPort(ln.Addr().String())
			from := Nobody(at.Addr(), nil)
			try := func() Trial { return Try(t.Context(), Dialer(0x20000000), at, from) }
			if got := try(); got != (Trial{Origin: at, From: from}) {
				t.Errorf("%+v", got)
			}
			seen, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if a := netip.MustParseAddrPort(seen.RemoteAddr().String()); a.Addr() != from {
				t.Errorf("the origin saw %s, and not %s", a, from)
			}
			if _, err := seen.Read(make([]byte, 1)); err == nil {
				t.Error("the connection says something")
			}
			rule := " INPUT -s " + from.String() + " -p tcp --syn -j DROP"
			run(t, tool+" -w -A"+rule)
			if got := try(); !got.Lost() || got.Answered() {
				t.Errorf("dropped: %+v", got)
			}
			run(t, tool+" -w -D"+rule)
			ln.Close()
			if got := try(); !errors.Is(got.Forged, forward.ErrRefused) || !got.Answered() {
				t.Errorf("refused: %+v", got)
			}
		})
	}
}

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}
