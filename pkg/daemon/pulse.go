package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/portreeve/portreeve/pkg/steer"
)

// ErrReplaced means that a newer inspector has taken over.
var ErrReplaced = errors.New("a newer inspector has taken over")

// beatsPerLimit is how many beats fit into the heartbeat's limit; one or two
// may be late on a busy machine before the kernel calls the inspector hung.
const beatsPerLimit = 4

// heart is where the heartbeat is written and read: a steer.Inspector.
type heart interface {
	Beat(instance uint64) error
	Owner() (instance uint64, age time.Duration, err error)
}

var _ heart = (*steer.Inspector)(nil)

// pulse tells the kernel that this inspector lives, and learns from the
// same place whether a newer one does. Instances are ordered by their start:
// when two beat at once the older one gives way, whoever wrote last.
type pulse struct {
	heart    heart
	instance uint64
	every    time.Duration
	succeeds bool // an older inspector lived when this one started
}

// newPulse makes the pulse of an inspector that starts now, newer than any
// before it even if the clock was set back. It does not beat yet.
func newPulse(h heart, limit time.Duration) (*pulse, error) {
	owner, age, err := h.Owner()
	if err != nil {
		return nil, err
	}
	return &pulse{
		heart:    h,
		instance: max(uint64(time.Now().UnixNano()), owner+1),
		every:    limit / beatsPerLimit,
		succeeds: owner != 0 && age < limit,
	}, nil
}

// replaced returns ErrReplaced when a newer inspector owns the heartbeat.
func (p *pulse) replaced() error {
	owner, _, err := p.heart.Owner()
	if err != nil {
		return err
	}
	if owner > p.instance {
		return ErrReplaced
	}
	return nil
}

// beat writes one heartbeat, unless a newer inspector owns it.
func (p *pulse) beat() error {
	if err := p.replaced(); err != nil {
		return err
	}
	return p.heart.Beat(p.instance)
}

// run beats, and then looks, until ctx ends, a newer inspector owns the
// heartbeat, it cannot be written, or look returns an error.
func (p *pulse) run(ctx context.Context, look func() error) error {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := p.beat(); err != nil {
				return err
			}
			if err := look(); err != nil {
				return err
			}
		}
	}
}
