package differential

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/testenv/mta"
)

// outcome is what must be the same by every way.
type outcome struct {
	Codes  []int
	Stored []stored
}

// stored is a message in a mailbox.
type stored struct {
	Sender, Recipient string
	Received          string // the origin's own header, see mta.Delivery
	Octets            int
	SHA256            string
	// Report is what the origin itself reports about a message, in place of all
	// but the addresses.
	Report string
}

// reported are the fields of a report that come from the envelope, RFC 3464.
var reported = regexp.MustCompile(`(?m)^(Original-Envelope-Id|Original-Recipient|Final-Recipient|Action):.*`)

// keep is what is compared of a delivery.
func (s *stage) keep(d mta.Delivery) stored {
	if !strings.Contains(d.Received, s.Client4.String()) {
		fields := reported.FindAllString(string(d.Content), -1)
		return stored{Sender: d.Sender, Recipient: d.Recipient, Report: strings.Join(fields, "\n")}
	}
	return stored{d.Sender, d.Recipient, d.Received, len(d.Content), fmt.Sprintf("%x", sha256.Sum256(d.Content)), ""}
}

// exchange sends a letter with a client by a way and waits until all parts of
// the network have done with it.
func (s *stage) exchange(ctx context.Context, w way, c client, l letter) (o outcome, records []record, err error) {
	if o.Codes, err = c.send(ctx, s, w.to(s), l); err != nil {
		return o, nil, err
	}
	if l.hopeless {
		for i, code := range o.Codes {
			if code == 503 {
				o.Codes[i] = 554
			}
		}
	}
	if w.relays {
		if records, err = s.recorded(ctx); err != nil {
			return o, nil, err
		}
	}
	taken, err := s.server.Taken(ctx)
	for _, d := range taken {
		o.Stored = append(o.Stored, s.keep(d))
	}
	return o, records, err
}

// compare sends a letter with a client, if it can send it, directly and by
// other ways.
func (s *stage) compare(t *testing.T, c client, l letter, ways ...way) {
	t.Helper()
	if !c.can(l) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := fmt.Sprintf("%s: %s to %s", l.name, c.name, s.name)
	want, _, err := s.exchange(ctx, direct, c, l)
	if err != nil {
		t.Fatalf("%s directly: %v", name, err)
	}
	checkContent(t, name, c, l, want)
	for _, w := range ways {
		got, records, err := s.exchange(ctx, w, c, l)
		if err != nil {
			t.Fatalf("%s, %s: %v", name, w.name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, directly (-) and %s (+):\n%s", name, w.name, diff)
		}
		checkRecords(t, name+", "+w.name, records, got)
	}
}

// checkContent compares what was stored with what was meant to be sent: two
// equal mistakes are no proof.
func checkContent(t *testing.T, name string, c client, l letter, o outcome) {
	t.Helper()
	want := fmt.Sprintf("%x", sha256.Sum256([]byte(l.stored()+c.tail)))
	for _, m := range o.Stored {
		if l.plain && m.Report == "" && m.SHA256 != want {
			t.Errorf("%s: %d octets are stored that are not the %d that were sent", name, m.Octets, len(l.stored()+c.tail))
		}
	}
}

// checkRecords compares the gateway's records with what the client was told and
// with what is stored.
func checkRecords(t *testing.T, name string, records []record, o outcome) {
	t.Helper()
	accepted, recipients := 0, 0
	for _, r := range records {
		if r.Event == "message" && r.Outcome == "accepted" {
			accepted++
			recipients += r.Accepted
		}
	}
	session := records[len(records)-1]
	quit := o.Codes[len(o.Codes)-1] == 221 // smtp-source leaves without it once it is refused
	if quit && session.End != "quit" || session.Messages != accepted || !session.Forged.IsValid() {
		t.Errorf("%s: the session's record is %+v", name, session)
	}
	mail := 0
	for _, m := range o.Stored {
		if m.Report == "" {
			mail++
		}
	}
	if recipients != mail {
		t.Errorf("%s: %d messages are stored, %d are recorded: %+v", name, mail, recipients, records)
	}
}

// TestSizes sends messages of growing size with every client.
func TestSizes(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		for _, c := range clients {
			for _, octets := range sizes() {
				s.compare(t, c, sized(octets), ways()...)
			}
		}
	})
}

func sizes() []int {
	if *complete {
		return []int{0, 2, 3, 100, 511, 512, 513, 4095, 4096, 4097, 16384, 65535, 65536, 65537, 1_000_000, 10_000_000, 50_000_000}
	}
	return []int{0, 2, 4096, 1_000_000}
}

// ways are those that a client goes beside the direct one.
func ways() []way {
	if *complete {
		return []way{addressed, transit, normalizing}
	}
	return []way{addressed}
}

// TestFiftyMegabytes sends one large message to each origin.
func TestFiftyMegabytes(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		s.compare(t, named("curl"), sized(50_000_000), transit)
	})
}

// TestContents sends bodies that careless transports change.
func TestContents(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		for _, l := range contents {
			for _, c := range share("DATA", "net/smtp", "BDAT, one chunk", "swaks --pipeline") {
				s.compare(t, c, l, ways()...)
			}
		}
	})
}

// TestEnvelopes sends an ordinary message in every envelope.
func TestEnvelopes(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		letters := append(withContent(envelopes, header+"body\r\n", false), withContent(parametrized, header+"body\r\n", true)...)
		for _, l := range letters {
			for _, c := range share("DATA", "DATA, pipelined", "curl", "swaks") {
				s.compare(t, c, l, ways()...)
			}
		}
	})
}

// share are the clients of those names, or all for the complete matrix.
func share(names ...string) []client {
	if *complete {
		return clients
	}
	return slices.DeleteFunc(slices.Clone(clients), func(c client) bool { return !slices.Contains(names, c.name) })
}

func named(name string) client {
	return clients[slices.IndexFunc(clients, func(c client) bool { return strings.EqualFold(c.name, name) })]
}
