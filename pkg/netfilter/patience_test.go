package netfilter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/nftables"
)

// What is changed while it is read is read again, until it is at rest, the time is over, or
// nobody waits for it.
func TestPatience(t *testing.T) {
	isolate(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	later := time.Now().Add(time.Hour)
	for name, tc := range map[string]struct {
		patience
		changes, reads int // in so many reads others change it; it is read so often
		err            error
	}{
		"at rest":             {patience{gone, time.Time{}}, 0, 1, nil},
		"at rest in the end":  {patience{t.Context(), later}, 50, 51, nil},
		"the time is over":    {patience{t.Context(), time.Time{}}, 1000, 1, ErrChanging},
		"nobody waits for it": {patience{gone, later}, 1000, 1, ErrChanging},
	} {
		reads := 0
		err := tc.unchanged(func(c *nftables.Conn) error {
			if reads++; reads > tc.changes {
				return nil
			}
			table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "others"}
			c.AddTable(table)
			c.DelTable(table)
			return c.Flush()
		})
		if !errors.Is(err, tc.err) || reads != tc.reads {
			t.Errorf("%s: read %d times, want %d: %v", name, reads, tc.reads, err)
		}
	}
	if _, err := New().Until(gone).Have(); err != nil {
		t.Errorf("at rest, though nobody waits: %v", err)
	}
}
