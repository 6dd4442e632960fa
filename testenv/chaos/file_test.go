package chaos

import (
	"math/rand/v2"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/testenv"
)

// Every file is one that portreeve takes, and the same seed draws the same.
func TestFilesAreGood(t *testing.T) {
	env := testenv.ForTest(t)
	r, again := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for range 300 {
		f := DrawFile(r)
		if same := DrawFile(again); f != same {
			t.Fatalf("%s and %s of the same seed", f, same)
		}
		c, err := config.Parse(f.String(), []byte(f.YAML(env.Topology, "/etc/ssl/mx")), nil)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		listens, intercepts := 0, 0
		for _, s := range c.Services {
			if s.Name != "more" && s.Fail != config.FailClosed {
				t.Errorf("%s: service %s fails %s", f, s.Name, s.Fail)
			}
			for _, at := range s.Listen {
				if at.Port == 25 {
					listens++
				}
			}
			intercepts += len(s.Intercept)
		}
		if listens != 2 || intercepts < 2 {
			t.Errorf("%s: %d addresses to listen on at port 25, %d intercepts", f, listens, intercepts)
		}
		seen[f.String()] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d different files of 300", len(seen))
	}
}

func TestHops(t *testing.T) {
	four, six := make([]byte, 40), make([]byte, 60)
	four[0], six[0] = 0x45, 0x60
	four[8], six[7] = 64, 64
	for _, header := range [][]byte{four, six} {
		if here, err := hops(header); !here || err != nil {
			t.Errorf("% x: %v, %v", header[:8], here, err)
		}
	}
	four[8], six[7] = 62, 62
	for _, header := range [][]byte{four, six} {
		if here, err := hops(header); here || err != nil {
			t.Errorf("% x: %v, %v", header[:8], here, err)
		}
	}
	if _, err := hops(four[:12]); err == nil {
		t.Error("half a header is one")
	}
}
