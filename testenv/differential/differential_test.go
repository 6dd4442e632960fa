// Package differential compares real mail that goes through the gateway with the
// same mail that does not: real clients, real Postfix, Exim and OpenSMTPD as
// origins, the built binary between them.
//
// It owns what is the same: the replies' codes, and what the origin stores, that
// is envelope, HELO, the client's address and every octet of the message. Attacks
// are compared with the gateway's own records: what they do not call accepted,
// no origin may have. Nothing here knows how the gateway works.
//
// By default each pair is tried with what tells most; -complete is everything.
package differential

import (
	"context"
	"flag"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
)

// complete asks for the whole matrix, which takes some ten minutes.
var complete = flag.Bool("complete", false, "every message with every client by every way")

// binary is the portreeve under test.
var binary string

func TestMain(m *testing.M) { testenv.Main(m, &binary) }

// patience is how long any one thing may take. A message of 50 MB on a busy
// machine takes half a minute.
const patience = 2 * time.Minute

// origin is a mail server with the settings that a test needs.
type origin struct {
	name  string
	start func(context.Context, *testenv.Node, string, []netip.Addr, ...string) (*mta.Server, error)
	// large lets messages of 50 MB pass.
	large []string
	// any takes mail for every domain.
	any []string
}

// origins differ from Debian's defaults in size limits only. Without a pause
// after each error, which Postfix makes of a second, the tests are over sooner.
var origins = []origin{
	{
		name: "postfix", start: mta.StartPostfix,
		large: []string{"smtpd_error_sleep_time = 0", "message_size_limit = 104857600", "virtual_mailbox_limit = 0"},
		any:   []string{"smtpd_error_sleep_time = 0", "virtual_mailbox_domains = static:all"},
	},
	{
		name: "exim", start: mta.StartExim,
		large: []string{"message_size_limit = 100M"},
		any:   []string{"DOMAINS == *", "allow_domain_literals = true"},
	},
	{
		name: "opensmtpd", start: mta.StartOpenSMTPD,
		large: []string{`smtp max-message-size "100M"`},
		any:   []string{`match from any for any action "inbox"`},
	},
}

// onStage plays a test with each origin, each on a network of its own. All of
// them and the tests run at once, since Exim waits for a fifth of a second
// before it answers QUIT.
func onStage(t *testing.T, settings func(origin) []string, play func(*testing.T, *stage)) {
	t.Parallel()
	var playing sync.WaitGroup
	defer playing.Wait()
	for _, o := range origins {
		playing.Go(func() {
			t.Run(o.name, func(t *testing.T) { play(t, newStage(t, o, settings(o))) })
		})
	}
}

func large(o origin) []string    { return o.large }
func anywhere(o origin) []string { return o.any }
