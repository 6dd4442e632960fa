package firewalls

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// stage is a network on which rulesets are tried, one after the other.
type stage struct {
	env     *testenv.Env
	book    Book
	probes  []Probe
	hosts   []*host
	gateway *gateway
}

func newStage(ctx context.Context) (*stage, error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return nil, err
	}
	s := &stage{env: env, gateway: &gateway{Portreeve: testenv.Portreeve{Env: env, Program: program}}}
	s.book = Book{
		4: {env.MoreClients[:Cast], env.Gateway4, env.Origin4, env.More4},
		6: {env.MoreClients6[:Cast], env.Gateway6, env.Origin6, env.More6},
	}
	s.probes = Probes(s.book)
	if err := errors.Join(s.serve(), s.introduce(ctx)); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	failures := []error{s.gateway.Kill()}
	for _, h := range s.hosts {
		failures = append(failures, h.close())
	}
	return errors.Join(append(failures, s.env.Close())...)
}

// serve starts what probes want to reach.
func (s *stage) serve() error {
	any6 := netip.IPv6Unspecified()
	var failures []error
	for _, h := range []*host{
		{name: "client", node: s.env.Client}, {name: Gateway, node: s.env.Gateway}, {name: Origin, node: s.env.Origin, more: []netip.Addr{s.env.More4, s.env.More6}},
	} {
		s.hosts = append(s.hosts, h)
		failures = append(failures, h.listen(netip.AddrPortFrom(any6, 25)), h.listen(netip.AddrPortFrom(any6, OtherPort)))
		for _, f := range Families {
			// By address, for the answer must have it as its source.
			if at := s.book[f].of(h.name); at.IsValid() {
				failures = append(failures, h.listenUDP(addrPort(at, OtherPort)))
			}
		}
	}
	return errors.Join(failures...)
}

// introduce makes neighbours know each other for ever: rules that stop neighbour
// discovery would otherwise stop everything, sooner or later.
func (s *stage) introduce(ctx context.Context) error {
	links := []struct {
		of     *testenv.Node
		device string
		to     *testenv.Node
		there  string
	}{
		{s.env.Client, "lan0", s.env.Router, "lan0"},
		{s.env.Router, "wan0", s.env.Gateway, "ext0"},
		{s.env.Gateway, "dmz0", s.env.Origin, "dmz0"},
	}
	for _, l := range links {
		err := errors.Join(introduce(ctx, l.of, l.device, l.to, l.there), introduce(ctx, l.to, l.there, l.of, l.device))
		if err != nil {
			return err
		}
	}
	return nil
}

// introduce tells a node the hardware address behind all addresses of another.
func introduce(ctx context.Context, n *testenv.Node, device string, other *testenv.Node, there string) error {
	const script = `ip -oneline link show dev $0 | sed 's/.*ether \([^ ]*\).*/\1/'
		ip -oneline address show dev $0 | awk '{ sub("/.*", "", $4); print $4 }'`
	said, err := other.Run(ctx, "sh", "-c", script, there)
	if err != nil {
		return err
	}
	words := strings.Fields(said)
	var batch strings.Builder
	for _, address := range words[1:] {
		fmt.Fprintf(&batch, "neighbour replace %s lladdr %s dev %s nud permanent\n", address, words[0], device)
	}
	cmd := n.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("introduce %s to %s: %w: %s", other.Role, n.Role, err, out)
	}
	return nil
}

// sh runs a script on the gateway.
func (s *stage) sh(ctx context.Context, script string) error {
	cmd := s.env.Gateway.Command(ctx, "sh")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s\nof the script\n%s", err, out, script)
	}
	return nil
}

// install puts a ruleset in the place of the one before.
func (s *stage) install(ctx context.Context, r *Ruleset) error {
	return s.sh(ctx, Clear+r.Install(s.book)+forget)
}

// forget makes connection tracking forget what was.
const forget = "conntrack -F 2>/dev/null\n"

// without installs a ruleset and probes it with no portreeve.
func (s *stage) without(ctx context.Context, r *Ruleset, probes []Probe, patience time.Duration) (Verdicts, error) {
	if err := s.install(ctx, r); err != nil {
		return nil, err
	}
	return s.try(ctx, probes, patience), nil
}

// play tries a ruleset in all phases.
func (s *stage) play(ctx context.Context, r *Ruleset, patience time.Duration) (o *Outcome, err error) {
	o = &Outcome{}
	if o.AsItIs, err = s.without(ctx, r, s.probes, patience); err != nil {
		return nil, err
	}
	before, err := s.env.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	o.Relaxed = o.AsItIs
	if r.Relaxes() {
		if o.Relaxed, err = s.without(ctx, r.Relaxed(), s.probes, patience); err != nil {
			return nil, err
		}
	}
	if err := s.with(ctx, r, o, patience); err != nil {
		return nil, err
	}
	after, err := s.env.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	o.Changed = before.Diff(after)
	return o, nil
}

// with probes with portreeve, hears what doctor says, and detaches.
func (s *stage) with(ctx context.Context, r *Ruleset, o *Outcome, patience time.Duration) error {
	if err := s.sh(ctx, Clear+r.Before().file(s.book)); err != nil {
		return err
	}
	if err := s.gateway.attach(ctx, r, s.book); err != nil {
		return err
	}
	if err := s.gateway.start(ctx); err != nil {
		return err
	}
	if err := s.addBans(ctx, r); err != nil {
		return err
	}
	if err := s.sh(ctx, forget); err != nil {
		return err
	}
	o.With = s.try(ctx, s.probes, patience)
	var err error
	if o.Findings, err = s.gateway.doctor(ctx); err != nil {
		return err
	}
	return s.gateway.Detach(ctx)
}

// addBans adds the bans that come while portreeve is attached.
func (s *stage) addBans(ctx context.Context, r *Ruleset) error {
	if r.Mode == Whole {
		return nil
	}
	if err := s.sh(ctx, "set -e\n"+r.Add(s.book)); err != nil {
		return err
	}
	if r.Mode == Appended {
		return s.gateway.again(ctx)
	}
	return nil
}

// culprits are the rules that stop a probe, of those that are no policy: without all
// of them it gets through as often as it did with portreeve.
func (s *stage) culprits(ctx context.Context, r *Ruleset, p Probe, through int, patience time.Duration) ([]Rule, error) {
	left := r.Relaxed()
	passes := func(r *Ruleset) (bool, error) {
		v, err := s.without(ctx, r, []Probe{p}, patience)
		return v[p].Through >= through, err
	}
	var taken []int
	for n := len(left.Rules) - 1; n >= 0; n-- {
		if !left.Rules[n].Do.refuses() {
			continue
		}
		taken = append(taken, n)
		left = left.Without(n)
		if pass, err := passes(left); pass || err != nil {
			return guilty(r.Relaxed(), taken, passes)
		}
	}
	return nil, nil // no refusal stops it: DNAT or a mark does
}

// guilty are those of the rules taken, the last one first, without which the probe
// would still not pass: each is put back in its place alone.
func guilty(all *Ruleset, taken []int, passes func(*Ruleset) (bool, error)) (guilty []Rule, err error) {
	for i, one := range taken {
		with := all
		for _, other := range taken {
			if other != one {
				with = with.Without(other)
			}
		}
		pass, err := passes(with)
		if err != nil {
			return nil, err
		}
		if !pass || i == len(taken)-1 {
			guilty = append(guilty, all.Rules[one])
		}
	}
	return guilty, nil
}
