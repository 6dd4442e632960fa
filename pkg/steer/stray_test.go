package steer

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A link that is pinned where nobody looks is found all the same, for detach
// would leave it alive.
func TestElsewhere(t *testing.T) {
	s, dir := sandbox(t)
	for _, i := range []plan.Item{plan.Objects{}, plan.Lookup{}} {
		must(t, s.Add(i))
	}
	must(t, Elsewhere(dir))
	other := filepath.Join(filepath.Dir(dir), "none")
	if err := Elsewhere(other); !errors.Is(err, ErrElsewhere) {
		t.Errorf("with a link pinned at %s: %v", dir, err)
	}
	for _, i := range []plan.Item{plan.Lookup{}, plan.Objects{}} {
		must(t, s.Remove(i))
	}
	must(t, Elsewhere(other))
}
