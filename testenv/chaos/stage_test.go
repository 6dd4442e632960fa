package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/pki"
)

// program is the path of the portreeve under test.
var program string

// stage is a gateway that carries mail, and what happens to it.
type stage struct {
	number  int
	ctx     context.Context
	stop    context.CancelFunc
	env     *testenv.Env
	rand    *rand.Rand
	ledger  *Ledger
	origin  *origin
	clients *clients
	manager *manager

	before  testenv.Snapshot
	rules   string         // of the administrator, as iptables lists them
	device  map[string]nic // as they were in the beginning
	remade  map[string]bool
	strict  bool // the administrator's policies are DROP
	beside  bool // a second `portreeve watch` was started
	crowded bool // more than one operation is under way
	noted   []string
	changed time.Time   // when processes of portreeve ended last, or something was attached
	filters []time.Time // operations on the packet filter
}

func newStage(ctx context.Context, seed uint64, number int) (*stage, error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return nil, err
	}
	s := &stage{number: number, env: env, rand: rand.New(rand.NewPCG(seed, uint64(number))), ledger: NewLedger(), remade: map[string]bool{}, device: map[string]nic{}}
	s.ctx, s.stop = context.WithCancel(ctx)
	s.manager = &manager{stage: s}
	s.strict = s.chance(50)
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// prepare makes the gateway as its administrator has it, and lets mail flow.
func (s *stage) prepare() (err error) {
	if _, _, err := pki.New("chaos").Issue([]string{"mx.example.org"}).Write(s.env.Dir, "mx"); err != nil {
		return err
	}
	if err := s.administer(); err != nil {
		return err
	}
	for _, name := range []string{"ext0", "dmz0"} {
		if s.device[name], err = s.look(name); err != nil {
			return err
		}
	}
	if s.rules, err = s.listRules(); err != nil {
		return err
	}
	if s.before, err = s.env.Snapshot(s.ctx); err != nil {
		return err
	}
	if s.origin, err = newOrigin(s.env, s.ledger); err != nil {
		return err
	}
	return s.open()
}

// open attaches a first time.
func (s *stage) open() error {
	s.ledger.Pass(true)
	s.ledger.Lift(true, Ways...)
	f := s.drawFile()
	s.note("begins with the file %s; policies are %s", f, s.policy())
	i, err := s.manager.start(f)
	if err != nil {
		return err
	}
	s.manager.keep(i)
	s.clients = sendAlways(s.ctx, s.env, s.ledger)
	if _, missing := s.clients.await(s.ctx, 30*time.Second); len(missing) > 0 {
		return fmt.Errorf("no mail in the beginning: %v: %s", missing, i.said())
	}
	s.shut()
	s.changed = time.Now()
	return nil
}

// shut ends what operations have meant to allow.
func (s *stage) shut() {
	s.ledger.Pass(false)
	s.ledger.Lift(false, Ways...)
	if i := s.manager.current(); i != nil && i.file.Skip || s.manager.wanted().Skip {
		s.ledger.Lift(true, Ways[2], Ways[3]) // nobody asks FORWARD
	}
}

func (s *stage) close() error {
	s.stop()
	if s.clients != nil {
		s.clients.close()
	}
	s.manager.kill()
	var failures []error
	if s.origin != nil {
		failures = append(failures, s.origin.Close())
	}
	failures = append(failures, s.env.Close())
	s.manager.going.Wait()
	return errors.Join(failures...)
}

// note keeps a line of what happens.
func (s *stage) note(format string, args ...any) {
	s.noted = append(s.noted, time.Now().Format(clock+" ")+fmt.Sprintf(format, args...))
}

// write writes a configuration and returns its path.
func (s *stage) write(f File) (string, error) {
	path := s.path(f)
	return path, os.WriteFile(path, []byte(f.YAML(s.env.Topology, filepath.Join(s.env.Dir, "mx"))), 0o644)
}

func (s *stage) path(f File) string { return filepath.Join(s.env.Dir, f.String()+".yaml") }

// portreeve prepares a command.
func (s *stage) portreeve(ctx context.Context, args ...string) *exec.Cmd {
	cmd := (&testenv.Portreeve{Env: s.env, Program: program}).Command(ctx, args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// verb runs portreeve and returns what it said.
func (s *stage) verb(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 40*time.Second)
	defer cancel()
	said, err := s.portreeve(ctx, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("portreeve %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(said)))
	}
	return string(said), err
}

// sh runs a script on the gateway.
func (s *stage) sh(script string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	cmd := s.env.Gateway.Command(ctx, "sh")
	cmd.Stdin = strings.NewReader(script)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return string(said), fmt.Errorf("%w: %s\nof the script\n%s", err, said, script)
	}
	return string(said), nil
}

// does runs a script of which each line has to succeed, and undoes is does for later.
func (s *stage) does(script string) error {
	_, err := s.sh("set -e\n" + script)
	return err
}

func (s *stage) undoes(script string) func() error {
	return func() error { return s.does(script) }
}

func pick[T any](s *stage, from ...T) T { return from[s.rand.IntN(len(from))] }

func (s *stage) chance(percent int) bool { return s.rand.IntN(100) < percent }

// ours lists what the gateway holds of portreeve, asked of other tools.
func (s *stage) ours() (string, error) {
	return s.sh(fmt.Sprintf(`ip -brief link | grep '^portreeve'
for v in 4 6; do ip -$v rule | grep -E 'lookup (2525|2526|3030|3035)'; done
for v in 4 6; do for t in 2525 2526 3030 3035; do ip -$v route show table $t 2>/dev/null; done; done
for c in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do $c 2>/dev/null | grep PORTREEVE; done
tc qdisc | grep clsact
find '%s/portreeve' 2>/dev/null
ls -Ad '%s' 2>/dev/null
true
`, s.env.BPFFS, s.env.RunDir))
}

// show is the state of things for who has to find out what went wrong.
func (s *stage) show() string {
	var b strings.Builder
	status, err := s.verb("status")
	if err != nil {
		status = err.Error()
	}
	fmt.Fprintf(&b, "portreeve status:\n%s\n", status)
	said, err := s.sh(`ip -brief link; ip -brief address; ip rule; ip -6 rule; ip route; ip -6 route
for t in 2525 2526 3030 3035; do ip route show table $t 2>/dev/null; ip -6 route show table $t 2>/dev/null; done
nft -s list ruleset; iptables-legacy-save; ip6tables-legacy-save; tc qdisc; true`)
	fmt.Fprintf(&b, "the gateway: %v\n%s\n", err, said)
	all, err := s.processes()
	fmt.Fprintf(&b, "processes: %v, %v\n", all, err)
	for n := max(1, s.manager.started-2); n <= s.manager.started; n++ {
		text, _ := os.ReadFile(filepath.Join(s.env.Dir, fmt.Sprintf("run%d.log", n)))
		lines := slices.Collect(strings.Lines(string(text)))
		fmt.Fprintf(&b, "log of inspector %d, the end of it:\n%s", n, strings.Join(lines[max(0, len(lines)-40):], ""))
	}
	return b.String()
}
