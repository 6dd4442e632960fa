package clothes

import (
	"context"
	"errors"
	"flag"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

var (
	packetsFlag = flag.Int("packets", 20_000, "`SYNs` dressed at random on each kind of link")
	seedFlag    = flag.Uint64("seed", 25, "what the SYNs are drawn from; 0: the clock")
	linksFlag   = flag.String("links", "", "kinds of link, with commas; none may be absent. Empty: all that the kernel has")
	completely  = flag.Bool("complete", false, "all plays on all kinds of link")
	serialFlag  = flag.Uint("serial", 0, "send this one SYN of the seed again, in place of all others")
)

func TestMain(m *testing.M) { testenv.Main(m, &program) }

// play is one configuration, with a wall removed or not.
type play struct {
	name      string
	fail      string
	netfilter string
	removed   *wall
	hold      bool // the neighbour is unresolved
	short     bool // played on every kind of link; the others are on veth alone
}

var plays = []play{
	// Those without conntrack first: what was tracked stays in the table for a while.
	{name: "closed, without conntrack", fail: "closed", netfilter: "off"},
	{name: "closed, wall one alone without conntrack", fail: "closed", netfilter: "off", removed: &wallTwo},
	{name: "closed, wall two alone without conntrack", fail: "closed", netfilter: "off", removed: &wallOne},
	{name: "open, without conntrack", fail: "open", netfilter: "off"},
	{name: "closed", fail: "closed", short: true},
	{name: "closed, wall one alone", fail: "closed", removed: &wallTwo},
	{name: "closed, wall two alone", fail: "closed", removed: &wallOne},
	{name: "closed, neighbour unresolved", fail: "closed", hold: true},
	{name: "closed, wall two alone, neighbour unresolved", fail: "closed", removed: &wallOne, hold: true},
	{name: "open", fail: "open"},
	{name: "open, wall two alone", fail: "open", removed: &wallOne},
}

// TestClothes sends SYNs to a transit service that fails closed, whatever they wear,
// and allows the origin no word about any of them: SYN-ACK, RST or ICMP (which is
// counted, and allowed, where it is about what shows no SYN: a later fragment, whose
// first one did not arrive). Before portreeve is attached the same closet is sent to the same origin, so that silence
// means something.
func TestClothes(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	for i := range kinds {
		k := &kinds[i]
		if !k.wanted() {
			continue
		}
		t.Run(k.name, func(t *testing.T) { clothe(t, k, seed) })
	}
}

// inGuest is true in a guest of testenv/kernels.
var inGuest = os.Getenv("PORTREEVE_TEST_GUEST") != ""

// wanted says whether this kind of link is tested. A guest is slow, and does what
// other machines may not have.
func (k *kind) wanted() bool {
	if *linksFlag == "" {
		return k.guest || !inGuest
	}
	return slices.Contains(strings.Split(*linksFlag, ","), k.name)
}

// clothe tests a kind of link.
func clothe(t *testing.T, k *kind, seed uint64) {
	name := fnv.New64a()
	io.WriteString(name, k.name)
	s := newStage(t, k, NewCloset(k.Wearable, seed^name.Sum64())) // other SYNs on each kind
	if s == nil {
		if *linksFlag != "" || inGuest {
			t.Errorf("%s was asked for", k.name)
		}
		return
	}
	chosen := slices.DeleteFunc(slices.Clone(plays), func(p play) bool {
		return !p.short && k.name != "veth" && !*completely || p.removed != nil && k.client != "" // which passes wall two alone anyway
	})
	states := 1 // the control
	for _, p := range chosen {
		states += len(p.states())
	}
	share := *packetsFlag / states
	s.seed = seed
	s.refuses()
	s.control(share)
	for _, p := range chosen {
		s.perform(p, share)
	}
	s.awaitLate()
	s.verdict()
}

// refuses checks that portreeve does not attach to a link that it cannot steer on.
func (s *stage) refuses() {
	s.t.Helper()
	if s.refused == "" {
		return
	}
	err := s.gateway.attach(s.t.Context(), setup{fail: "closed", netfilter: "auto", client: "ext0", origin: s.toOrigin()})
	if err == nil || !strings.Contains(err.Error(), s.refused) {
		s.t.Errorf("attach to it: %v, want %q", err, s.refused)
	}
	if err == nil {
		s.must(s.gateway.Detach(s.t.Context()))
	}
}

// control sends SYNs past a gateway without portreeve.
func (s *stage) control(packets int) {
	s.t.Helper()
	c := s.play("no portreeve", packets)
	for serial, h := range c.handmade {
		if v, answered := c.answers[serial]; *serialFlag == 0 && (answered && v == SYNACK) != h.Answered {
			s.t.Errorf("without portreeve, %s: answered %t, want %t", h.Name, answered, h.Answered)
		}
	}
}

// enough is how often a garment has to be worn before its silence says something.
const enough = 200

// worthwhile checks that the closet's SYNs are answered where nothing is in the way.
func (s *stage) worthwhile(c *scene, scores map[string]*score) {
	s.t.Helper()
	if c.sent < enough {
		return
	}
	if c.counts[SYNACK] < c.sent/2 {
		s.t.Errorf("without portreeve the origin answered %d of %d SYNs: the closet tests little", c.counts[SYNACK], c.sent)
	}
	for name, one := range scores {
		if one.worn >= enough && one.answered == 0 && !unwelcome(name) {
			s.t.Errorf("without portreeve no SYN with %q was answered, of %d: it tests nothing", name, one.worn)
		}
	}
}

// states are those of the inspector in which nothing may pass.
func (p *play) states() []string {
	if p.fail == "open" {
		return []string{"alive"}
	}
	return []string{"alive", "hung", "dead"}
}

// perform attaches portreeve and sends SYNs in each state of the inspector.
func (s *stage) perform(p play, packets int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*patience)
	defer cancel()
	netfilter := p.netfilter
	if netfilter == "" {
		netfilter = "auto"
	}
	s.must(s.gateway.attach(ctx, setup{fail: p.fail, netfilter: netfilter, client: s.named(), origin: s.toOrigin()}))
	s.must(s.gateway.start(ctx))
	if s.client == "" { // else nobody is steered, honest clients included
		s.greeted()
	}
	defer func() { s.must(s.gateway.Detach(ctx)) }()
	if p.removed != nil {
		if err := p.removed.remove(ctx, s.env, s.named(), s.toOrigin()); err != nil {
			s.t.Errorf("%s: %v", p.name, err)
			return
		}
	}
	if p.hold {
		s.asking(false)
		s.hold = true
		defer func() {
			s.hold = false
			s.asking(true)
		}()
		s.held, s.slipped = 0, 0
	}
	for _, state := range p.states() {
		switch state {
		case "hung":
			s.must(s.gateway.hang(ctx))
		case "dead":
			s.must(s.gateway.die(ctx))
		}
		c := s.play(p.name+", "+state, packets)
		c.silent = state != "alive"
		s.explain(c)
	}
	if p.netfilter == "off" {
		s.untracked(p)
	}
	if p.hold && s.held <= s.slipped {
		s.t.Errorf("%s: of %d batches %d did not wait for the origin's address", p.name, s.held+s.slipped, s.slipped)
	}
}

// untracked checks that a play without conntrack was one.
func (s *stage) untracked(p play) {
	s.t.Helper()
	count, err := s.env.Gateway.Sysctl("net.netfilter.nf_conntrack_count")
	if err == nil && count != "0" {
		s.t.Errorf("%s: the gateway tracks %s connections", p.name, count)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Error(err)
	}
}

// verdict prints what became of the SYNs, and fails where the origin answered.
func (s *stage) verdict() {
	s.t.Helper()
	control := s.scenes[0]
	scores := s.scores(control)
	s.t.Logf("%s\n  %s", s.name, control.line())
	s.t.Logf("without portreeve%s", table(scores))
	s.worthwhile(control, scores)
	for _, c := range s.scenes[1:] {
		s.t.Logf("%s\n  %s", s.name, c.line())
		if leaks := c.leaks(); len(leaks) > 0 {
			s.t.Errorf("%s: %s: the origin answered %d of %d SYNs%s%s", s.name, c.name, len(leaks), c.sent, c.leakedHandmade(), c.explained)
		}
		if own := c.client[SYNACK] + c.client[RST]; c.silent && own > uint64(c.counts[SYNACK]+c.counts[RST]) {
			s.t.Errorf("%s: %s: the client read %d times SYN-ACK or RST, and not from the origin", s.name, c.name, own)
		}
	}
}
