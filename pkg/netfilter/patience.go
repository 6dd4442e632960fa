package netfilter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
)

// ErrChanging is the class of errors that say that others change the rules so often that they
// cannot be read.
var ErrChanging = errors.New("the rules of nftables are being changed all the time")

const (
	// mostPatience is how long all that is read together may take while others change the
	// rules. Busy programs change them some times a second, and a read takes milliseconds;
	// a firewall that is loaded is at rest again after a second or two.
	mostPatience = 3 * time.Second
	// pause is the time between two reads.
	pause = 10 * time.Millisecond
)

// patience bounds what is read together.
type patience struct {
	ctx context.Context
	end time.Time
}

// patient begins to read, until ctx ends at the latest.
func patient(ctx context.Context) patience { return patience{ctx, time.Now().Add(mostPatience)} }

// forChange is for what is read to be changed: no signal ends that in the middle.
func forChange() patience { return patient(context.Background()) }

// unchanged calls read, and again while somebody changes the ruleset in the
// middle of it: a listing may then miss what was there all the time.
func (p patience) unchanged(read func(*nftables.Conn) error) error {
	for n := 1; ; n++ {
		before, err := generation()
		if err != nil {
			return err
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		failed := read(c)
		after, err := generation()
		if err != nil {
			return err
		}
		if before == after {
			return failed
		}
		if time.Now().After(p.end) {
			return fmt.Errorf("%w: they changed each of %d times while they were read; see which program does that (nft monitor), and try again", ErrChanging, n)
		}
		select {
		case <-p.ctx.Done():
			return fmt.Errorf("%w, and nobody waits any more until they are at rest: %w", ErrChanging, p.ctx.Err())
		case <-time.After(pause):
		}
	}
}
