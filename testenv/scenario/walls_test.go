package scenario

import (
	"fmt"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/pkg/steer"
)

// TestWalls tells what others do on a gateway that keeps packets from being
// steered. The service fails closed and the inspector lives: nothing reaches the
// origin past it, `status` names the wall that stopped it, and mail flows again
// once the others are gone.
func TestWalls(t *testing.T) { tell(t, "testdata/walls") }

// walled is silent for the client, and has the wall count what it stopped: silence
// alone may come from a broken network.
func walled(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return usage("walled VERDICT ADDR:PORT")
	}
	before, err := s.verdicts(args[0])
	if err != nil {
		return err
	}
	if err := silent(s, ts, []string{"client", args[1]}); err != nil {
		return err
	}
	after, err := s.verdicts(args[0])
	if err == nil && after == before {
		err = fmt.Errorf("%s has stopped nothing: %d before and after", args[0], before)
	}
	return err
}

// verdicts returns how often the kernel side had a reason.
func (s *stage) verdicts(reason string) (count uint64, err error) {
	err = s.env.Gateway.Enter(func() error {
		hand, err := steer.New(s.env.BPFFS)
		if err != nil {
			return err
		}
		defer hand.Close()
		counters, err := hand.Counters()
		if err != nil {
			return err
		}
		for _, c := range counters {
			if c.Reason.String() == reason {
				count = c.Count
				return nil
			}
		}
		return fmt.Errorf("there is no verdict %q", reason)
	})
	return count, err
}
