package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
)

// A trailing run is read from what `iptables -S` shows; the ruleset's rules of
// INPUT end with it.
func TestTrailingRun(t *testing.T) {
	for name, test := range map[string]struct {
		rules string
		run   int // how many rules of INPUT, ours not counted, are in the run
	}{
		"no rules":              {"", 0},
		"conditions only":       {"-A INPUT -i lo -j ACCEPT\n-A INPUT -s 192.0.2.1/32 -j DROP", 0},
		"drop":                  {"-A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP", 1},
		"drop, with a comment":  {"-A INPUT -i lo -j ACCEPT\n" + `-A INPUT -m comment --comment "the \"end\"" -j DROP`, 1},
		"log and reject":        {"-A INPUT -i lo -j ACCEPT\n" + `-A INPUT -j LOG --log-prefix "end "` + "\n-A INPUT -j REJECT --reject-with icmp-host-prohibited", 2},
		"return":                {"-A INPUT -i lo -j ACCEPT\n-A INPUT -j RETURN", 1},
		"counting only":         {"-A INPUT -i lo -j ACCEPT\n-A INPUT\n-A INPUT -m comment --comment all\n-A INPUT -j DROP", 3},
		"log with a limit":      {"-A INPUT -m limit --limit 3/min -j LOG\n-A INPUT -j DROP", 1},
		"drop in the middle":    {"-A INPUT -j DROP\n-A INPUT -s 192.0.2.1/32 -j DROP", 0},
		"nothing but the run":   {"-A INPUT -j LOG\n-A INPUT -j DROP", 2},
		"marks every packet":    {"-A INPUT -j MARK --set-xmark 0x1/0xffffffff\n-A INPUT -j DROP", 1},
		"a program decides":     {"-A INPUT -j NFQUEUE --queue-num 0", 0},
		"a match without words": {"-A INPUT -m socket -j DROP", 0},
		"empty chain":           {"-N end\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j end", 0},
		"chain that returns":    {"-N user\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j user\n-A user -j RETURN", 0},
		"returns, then drop":    {"-N user\n-A INPUT -j user\n-A INPUT -j DROP\n-A user -m comment --comment none -j RETURN", 1},
		"chain that drops":      {"-N end\n-A INPUT -i lo -j ACCEPT\n-A INPUT -g end\n-A end -j LOG\n-A end -j DROP", 1},
		"chain of chains":       {"-N end\n-N logdrop\n-A INPUT -j end\n-A end -j logdrop\n-A logdrop -j DROP", 1},
		"chain that logs some":  {"-N end\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j end\n-A end -m limit --limit 3/min -j LOG\n-A end -j DROP", 1},
		"chain with conditions": {"-N end\n-A INPUT -j end\n-A end -s 192.0.2.1/32 -j DROP\n-A end -j RETURN", 0},
		"deep conditions":       {"-N end\n-N far\n-A INPUT -j end\n-A end -j far\n-A far -s 192.0.2.1/32 -j DROP", 0},
		"a circle":              {"-N end\n-A INPUT -j end\n-A end -j end", 0},
		"a chain named as one":  {"-N LOG\n-A INPUT -j LOG\n-A LOG -s 192.0.2.1/32 -j DROP", 0},
		"our jumps between": {"-N PORTREEVE-LISTEN\n-N PORTREEVE-INPUT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j LOG\n" +
			"-A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN\n-A INPUT -j DROP\n-A INPUT -m comment --comment portreeve -j PORTREEVE-INPUT\n" +
			"-A PORTREEVE-LISTEN -i ext0 -j ACCEPT", 2},
		"a jump that only looks like ours": {"-N PORTREEVE-LISTEN\n-A INPUT -j PORTREEVE-LISTEN\n-A PORTREEVE-LISTEN -i ext0 -j ACCEPT", 0},
	} {
		b := parse(strings.Split("-P INPUT DROP\n"+test.rules, "\n")).base("INPUT")
		n := 0
		for _, l := range b.lines[b.run:] {
			if l.jump == "" {
				n++
			}
		}
		if n != test.run {
			t.Errorf("%s: %d rules in the run, want %d", name, n, test.run)
		}
	}
}

// A chain is read once, in whatever number of ways bare jumps lead to it: eight jumps a
// chain, sixty chains deep, make more ways than can be gone.
func TestTrailingRunReadsEachChainOnce(t *testing.T) {
	const deep, wide = 60, 8
	reads := map[string]int{}
	for end, want := range map[line]int{
		{bare: true}: 0, {bare: true, back: true}: 1, {bare: true, logs: true}: 1, {}: 1,
	} {
		b, err := chainsBy(func(name string) ([]line, error) {
			reads[name]++
			var n int
			fmt.Sscanf(name, "c%d", &n)
			if n == deep {
				return []line{end}, nil
			}
			lines := slices.Repeat([]line{{bare: true, to: fmt.Sprintf("c%d", n+1)}}, wide)
			if n == 0 {
				lines = lines[:1]
			}
			return lines, nil
		}).base("c0")
		if err != nil || b.run != want {
			t.Errorf("ends with %+v: the run begins at %d, %v, want %d", end, b.run, err, want)
		}
		for name, n := range reads {
			if n != 1 {
				t.Errorf("ends with %+v: %s was read %d times", end, name, n)
			}
		}
		clear(reads)
	}
}

// order returns the rules of a chain as iptables shows them, our jumps by the
// chain that they lead to.
func order(t *testing.T, tl tool, chain string) []string {
	t.Helper()
	l, err := (&tools{}).list(tl, "filter", chain)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range l.rules {
		switch {
		case r.chain != chain:
		case r.isJump():
			all = append(all, r.target())
		default:
			all = append(all, r.spec)
		}
	}
	return all
}

// jumping is a firewall with two jumps of ours in INPUT.
func jumping(family plan.Family, legacy bool) []plan.Item {
	f := plan.Firewall{
		Legacy: legacy, Clients: []string{"ext0"}, Addressed: []config.Target{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Port: 25}},
		Forged: []plan.Family{family}, ClientMark: 1 << 24, OriginMark: 1 << 25,
	}
	if family == plan.IPv6 {
		f.Addressed[0].Prefix = netip.MustParsePrefix("::/0")
	}
	var input []plan.Item
	for _, i := range plan.Netfilter(f) {
		if strings.Contains(i.String(), "filter") && !strings.Contains(i.String(), "OUTPUT") {
			input = append(input, i)
		}
	}
	return input
}

func eachFamily(t *testing.T, test func(t *testing.T, tl tool)) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
			t.Run(family.String(), func(t *testing.T) {
				isolate(t)
				test(t, tool{family, legacy})
			})
		}
	})
}

// as runs an administrator's commands: "$c" is iptables, "$ban" a client.
func as(t *testing.T, tl tool, script string) {
	t.Helper()
	ban := "192.0.2.1"
	if tl.family == plan.IPv6 {
		ban = "2001:db8::1"
	}
	sh(t, strings.NewReplacer("$c", tl.String(), "$ban", ban).Replace(script))
}

// astray returns our jumps that are not in their place.
func astray(items []plan.Item) []string {
	var all []string
	for _, i := range items {
		if f, is := i.(plan.Filter); is && f.Astray {
			all = append(all, targetOf(f))
		}
	}
	slices.Sort(all)
	return all
}

const (
	first = "PORTREEVE-INPUT"
	last  = "PORTREEVE-LISTEN"
)

// ufw's jumps have no conditions, but most of its chains have.
const ufw = `
for n in before-logging before after after-logging reject track; do $c -N ufw-$n; $c -A INPUT -j ufw-$n; done
$c -P INPUT DROP
$c -A ufw-before -i lo -j ACCEPT
$c -A ufw-after -p udp --dport 137 -j DROP
$c -A ufw-after-logging -m limit --limit 3/min -j LOG`

// attach puts both jumps of INPUT into their places among an administrator's
// rules, and again after he changed them; his rules stay as they are.
func TestPlaces(t *testing.T) {
	for name, test := range map[string]struct {
		before string // attach
		want   []string
		after  string
		astray []string // what is out of its place then
		then   []string // INPUT when it was moved back
	}{
		"nothing there": {"", []string{first, last}, "", nil, []string{first, last}},
		"policy": {"$c -P INPUT DROP\n$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -P INPUT ACCEPT", nil, []string{first, "-i lo -j ACCEPT", last}},
		"ban appended": {"$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -A INPUT -s $ban -j DROP", []string{last}, []string{first, "-i lo -j ACCEPT", "-s BAN -j DROP", last}},
		"ban inserted": {"$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -I INPUT -s $ban -j DROP", []string{first}, []string{first, "-s BAN -j DROP", "-i lo -j ACCEPT", last}},
		"log and drop at the end": {"$c -A INPUT -i lo -j ACCEPT\n$c -A INPUT -j LOG\n$c -A INPUT -j DROP",
			[]string{first, "-i lo -j ACCEPT", last, "-j LOG", "-j DROP"},
			"$c -I INPUT 4 -s $ban -j DROP", []string{last}, []string{first, "-i lo -j ACCEPT", "-s BAN -j DROP", last, "-j LOG", "-j DROP"}},
		"reject is put at the end": {"$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -A INPUT -j DROP", nil, []string{first, "-i lo -j ACCEPT", last, "-j DROP"}},
		"drop is put before ours": {"$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -I INPUT 3 -j DROP", []string{last}, []string{first, "-i lo -j ACCEPT", last, "-j DROP"}},
		"drop all is put first": {"", []string{first, last},
			"$c -I INPUT -j DROP", []string{first, last}, []string{first, last, "-j DROP"}},
		"nothing but a drop": {"$c -A INPUT -j DROP", []string{first, last, "-j DROP"},
			"$c -I INPUT 3 -s $ban -j DROP", []string{last}, []string{first, "-s BAN -j DROP", last, "-j DROP"}},
		"the run is ended": {"$c -A INPUT -j DROP", []string{first, last, "-j DROP"},
			"$c -A INPUT -s $ban -j DROP", []string{last}, []string{first, "-j DROP", "-s BAN -j DROP", last}},
		"the last one before the first": {"", []string{first, last},
			"$c -D INPUT 1\n$c -A INPUT -m comment --comment portreeve -j PORTREEVE-INPUT", []string{first}, []string{first, last}},
		"twice": {"$c -A INPUT -i lo -j ACCEPT", []string{first, "-i lo -j ACCEPT", last},
			"$c -A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN\n$c -I INPUT 2 -m comment --comment portreeve -j PORTREEVE-INPUT",
			[]string{first, last}, []string{first, "-i lo -j ACCEPT", last}},
		"ufw": {ufw, []string{first, "-j ufw-before-logging", "-j ufw-before", "-j ufw-after", "-j ufw-after-logging", "-j ufw-reject", "-j ufw-track", last},
			"$c -A ufw-reject -j REJECT\n$c -A ufw-track -p tcp -m conntrack --ctstate NEW -j ACCEPT", nil,
			[]string{first, "-j ufw-before-logging", "-j ufw-before", "-j ufw-after", "-j ufw-after-logging", "-j ufw-reject", "-j ufw-track", last}},
		"ufw rejects": {ufw + "\n$c -A ufw-reject -j REJECT", []string{first, "-j ufw-before-logging", "-j ufw-before", "-j ufw-after", last, "-j ufw-after-logging", "-j ufw-reject", "-j ufw-track"},
			"$c -F INPUT\n$c -A INPUT -j ufw-before", nil, []string{first, "-j ufw-before", last}},
		"a chain for bans to come": {"$c -N bans\n$c -A INPUT -i lo -j ACCEPT\n$c -A INPUT -j bans\n$c -A INPUT -j DROP",
			[]string{first, "-i lo -j ACCEPT", "-j bans", last, "-j DROP"},
			"$c -A bans -s $ban -j DROP", nil, []string{first, "-i lo -j ACCEPT", "-j bans", last, "-j DROP"}},
		"a chain that only returns": {"$c -N user\n$c -A user -j RETURN\n$c -A INPUT -j user\n$c -A INPUT -j DROP",
			[]string{first, "-j user", last, "-j DROP"},
			"$c -I user -s $ban -j DROP", nil, []string{first, "-j user", last, "-j DROP"}},
		"a chain that logs some": {"$c -N logdrop\n$c -A logdrop -m limit --limit 3/min -j LOG\n$c -A logdrop -j DROP\n$c -A INPUT -i lo -j ACCEPT\n$c -A INPUT -j logdrop",
			[]string{first, "-i lo -j ACCEPT", last, "-j logdrop"}, "", nil, []string{first, "-i lo -j ACCEPT", last, "-j logdrop"}},
		"fail2ban": {"$c -A INPUT -j REJECT", []string{first, last, "-j REJECT"},
			"$c -N f2b\n$c -A f2b -s $ban -j DROP\n$c -A f2b -j RETURN\n$c -I INPUT -p tcp -m multiport --dports 25 -j f2b",
			[]string{first}, []string{first, "-p tcp -m multiport --dports 25 -j f2b", last, "-j REJECT"}},
	} {
		t.Run(name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, tl tool) {
				as(t, tl, test.before)
				h, want := New(), jumping(tl.family, tl.legacy)
				run(t, h, plan.Diff(own(have(t, h)), want))
				expect(t, tl, "after attach", test.want)
				as(t, tl, test.after)
				found := have(t, h)
				if diff := cmp.Diff(test.astray, astray(found)); diff != "" {
					t.Errorf("out of place (-want +got):\n%s", diff)
				}
				run(t, h, plan.Diff(found, want))
				expect(t, tl, "when moved", test.then)
				if again := plan.Diff(have(t, New()), want); len(again) > 0 {
					t.Errorf("a further attach would change %v", again)
				}
				run(t, h, plan.Diff(own(have(t, h)), nil))
				expect(t, tl, "after detach", slices.DeleteFunc(slices.Clone(test.then), func(s string) bool { return s == first || s == last }))
			})
		})
	}
}

// expect compares INPUT, in which "BAN" stands for the banned client and REJECT
// for it with whatever answer.
func expect(t *testing.T, tl tool, when string, want []string) {
	t.Helper()
	var got []string
	for _, s := range order(t, tl, "INPUT") {
		s = strings.NewReplacer("192.0.2.1/32", "BAN", "2001:db8::1/128", "BAN").Replace(s)
		s, _, _ = strings.Cut(s, " --reject-with")
		got = append(got, s)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(got, "\n")); diff != "" {
		t.Errorf("INPUT %s (-want +got):\n%s", when, diff)
	}
}

// Rules that were made with nft in the chains of iptables-nft are read as the
// kernel has them: any condition keeps them out of the run.
func TestPlacesAmongRulesOfNFT(t *testing.T) {
	for rules, inRun := range map[string]int{
		"counter drop":                      1,
		"log prefix x; counter drop":        2,
		"reject with icmp host-unreachable": 1,
		"ip saddr 192.0.2.1 drop":           0,
		"ip saddr @seen drop":               0,
		"tcp dport vmap { 25 : drop }":      0,
		"limit rate 3/second drop":          0,
		"ct count over 3 drop":              0,
		"meta skuid 3 drop":                 0,
		"fib saddr type local drop":         0,
		"rt classid 3 drop":                 0,
		"socket transparent 1 drop":         0,
		"meta random < 3 drop":              0,
		"numgen inc mod 2 0 drop":           0,
		"tcp option mptcp exists drop":      0,
		"update @seen { ip saddr } drop":    0,
		"quota over 3 bytes drop":           0,
		"meta mark set 1":                   0,
		"counter name mine drop":            0,
	} {
		t.Run(rules, func(t *testing.T) {
			isolate(t)
			script := "nft 'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; }; " +
				"add set ip filter seen { type ipv4_addr; flags dynamic; }; add counter ip filter mine'\n"
			for _, r := range strings.Split(rules, "; ") {
				script += "nft 'add rule ip filter INPUT " + r + "'\n"
			}
			sh(t, script)
			h, want := New(), jumping(plan.IPv4, false)
			run(t, h, plan.Diff(own(have(t, h)), want))
			c, err := baseOf(plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "INPUT"})
			if err != nil {
				t.Fatal(err)
			}
			b, err := readBase(forChange(), c)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(b.lines) - b.at(last)[0] - 1; n != inRun || len(astray(have(t, h))) > 0 {
				t.Errorf("our jump stands before %d rules of %d, want %d; astray: %v", n, len(b.lines), inRun, astray(have(t, h)))
			}
		})
	}
}

// Where nobody changes the chain meanwhile, one change is enough.
func TestMoveIsOneChange(t *testing.T) {
	eachFamily(t, func(t *testing.T, tl tool) {
		as(t, tl, "$c -A INPUT -i lo -j ACCEPT\n$c -A INPUT -j DROP")
		h, want := New(), jumping(tl.family, tl.legacy)
		run(t, h, plan.Diff(own(have(t, h)), want))
		step := h.stepNFT
		if tl.legacy {
			step = h.stepLegacy
		}
		for _, change := range []string{"$c -I INPUT 4 -s $ban -j DROP", "$c -I INPUT -s $ban -j DROP", "$c -I INPUT 2 -j DROP"} {
			as(t, tl, change)
			for _, i := range want {
				f, is := i.(plan.Filter)
				if !is || !f.IsJump() {
					continue
				}
				if _, err := step(f); err != nil {
					t.Fatal(err)
				}
				if settled, err := step(f); !settled || err != nil {
					t.Errorf("after %s a second change was needed for %s: %q (%v)", change, f, order(t, tl, "INPUT"), err)
				}
			}
		}
	})
}

// A jump is moved while others change the chain: it is there all the time, it
// ends in its place, and none of their rules is lost or moved.
func TestMoveWhileOthersChange(t *testing.T) {
	eachFamily(t, func(t *testing.T, tl tool) {
		h, want := New(), jumping(tl.family, tl.legacy)
		as(t, tl, "$c -A INPUT -p tcp --dport 1 -j DROP")
		run(t, h, plan.Diff(own(have(t, h)), want))
		ns := threadNamespace(t)
		var others, watchers sync.WaitGroup
		const rounds = 15
		stop := make(chan struct{})
		others.Go(func() {
			inNamespace(t, ns, func() {
				for i := range rounds {
					sh(t, fmt.Sprintf("%[1]s -w -I INPUT -p tcp --dport %[2]d -j DROP\n%[1]s -w -A INPUT -p tcp --dport %[3]d -j DROP", tl, 1000+i, 2000+i))
				}
			})
		})
		watchers.Go(func() {
			inNamespace(t, ns, func() {
				for {
					select {
					case <-stop:
						return
					default:
						all := order(t, tl, "INPUT")
						if !slices.Contains(all, first) || !slices.Contains(all, last) {
							t.Errorf("a jump is missing: %q", all)
						}
					}
				}
			})
		})
		done := make(chan struct{})
		go func() { others.Wait(); close(done) }()
		for moving := true; moving; {
			select {
			case <-done:
				moving = false
			case <-time.After(time.Millisecond):
			}
			run(t, h, plan.Diff(own(have(t, h)), want))
		}
		close(stop)
		watchers.Wait()

		wanted := []string{first}
		for i := range rounds {
			wanted = append(wanted, fmt.Sprintf("-p tcp -m tcp --dport %d -j DROP", 1000+rounds-1-i))
		}
		wanted = append(wanted, "-p tcp -m tcp --dport 1 -j DROP")
		for i := range rounds {
			wanted = append(wanted, fmt.Sprintf("-p tcp -m tcp --dport %d -j DROP", 2000+i))
		}
		expect(t, tl, "in the end", append(wanted, last))
	})
}

// A rule after which the packet goes on is met, though it is added when one that
// ends the chain is there.
func TestRulesThatGoOnComeFirst(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		run(t, h, plan.Diff(nil, want))
		tl := tool{plan.IPv4, legacy}
		sh(t, fmt.Sprintf("%[1]s -t raw -D PORTREEVE-PREROUTING 1\n%[1]s -t raw -D PORTREEVE-PREROUTING 1", tl))
		run(t, h, plan.Diff(own(have(t, h)), own(want)))
		l, err := h.tools.list(tl, "raw", "PORTREEVE-PREROUTING")
		if err != nil {
			t.Fatal(err)
		}
		if len(l.rules) != 4 || l.rules[0].target() != "CT" || l.rules[1].target() != "CT" {
			t.Errorf("the chain holds %v", l.rules)
		}
	})
}
