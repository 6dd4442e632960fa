package netfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
)

var counters = regexp.MustCompile(`\[\d+:\d+\]|packets \d+ bytes \d+`)

// everything is a firewall that needs every rule that plan knows.
func everything(legacy bool) []plan.Item {
	to := func(s string) config.Target { return config.Target{Prefix: netip.MustParsePrefix(s), Port: 25} }
	return plan.Netfilter(plan.Firewall{
		Legacy:  legacy,
		Clients: []string{"ext0", "ext1.100"},
		Origins: []string{"dmz0"},
		Addressed: []config.Target{
			to("172.16.40.1/32"), to("10.0.0.0/8"), to("0.0.0.0/0"),
			to("2001:db8:40::1/128"), to("2001:db8::/32"), to("::/0"), to("::102:304/128"),
		},
		Open:       []config.Target{to("172.16.20.0/24"), to("0.0.0.0/0"), to("2001:db8:20::/64"), to("::/0")},
		Transit:    []plan.Family{plan.IPv4},
		Forged:     []plan.Family{plan.IPv4, plan.IPv6},
		Sent:       []plan.Family{plan.IPv4, plan.IPv6},
		SamePort:   []plan.Family{plan.IPv4},
		ClientMark: 0x80000000, OriginMark: 1 << 8,
		LoopMark: 1 << 9, Link: plan.LoopLink,
	})
}

// foreign is an administrator's firewall, with rules that look almost like
// ours, in both flavours and in nft.
const foreign = `
nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }; add rule inet fw in tcp dport 25 accept'
for c in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
	$c -P INPUT DROP
	$c -A INPUT -i lo -j ACCEPT
	$c -N PORTREEVE
	$c -A PORTREEVE -m mark --mark 0x100/0x100 -j ACCEPT
	$c -A INPUT -m comment --comment portreeve -j PORTREEVE
	$c -A INPUT -m comment --comment "portreeve's \"own\" guard" -j ACCEPT
	$c -A INPUT -m mark --mark 0x100/0x100 -j ACCEPT
	$c -A OUTPUT -m mark --mark 0x80000000/0x80000000 -j ACCEPT
	$c -A FORWARD -i dmz0 -j ACCEPT
	$c -t nat -A POSTROUTING -o dmz0 -j MASQUERADE
	$c -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080
	$c -t mangle -A PREROUTING -p tcp --dport 80 -j MARK --set-mark 0x3
	$c -t raw -A OUTPUT -m mark --mark 0x80000000/0x80000000 -j CT --notrack
done`

func run(t *testing.T, h *Hand, changes []plan.Change) {
	t.Helper()
	for _, c := range changes {
		var err error
		switch c.Op {
		case plan.Add:
			err = h.Add(c.Item)
		case plan.Remove:
			err = h.Remove(c.Item)
		case plan.Replace:
			err = h.Replace(c.Old, c.Item)
		}
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
}

func have(t *testing.T, h *Hand) []plan.Item {
	t.Helper()
	items, err := h.Have()
	if err != nil {
		t.Fatalf("Have: %v", err)
	}
	return items
}

// own leaves out the shared items.
func own(items []plan.Item) []plan.Item {
	return slices.DeleteFunc(slices.Clone(items), func(i plan.Item) bool {
		_, shared := i.(plan.Shared)
		return shared
	})
}

func text(items []plan.Item) string {
	var lines []string
	for _, i := range items {
		lines = append(lines, i.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func eachFlavour(t *testing.T, test func(t *testing.T, legacy bool)) {
	for _, legacy := range []bool{false, true} {
		name := "nft"
		if legacy {
			name = "legacy"
		}
		t.Run(name, func(t *testing.T) {
			isolate(t)
			test(t, legacy)
		})
	}
}

func TestWhatIsAddedIsReadBack(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		run(t, h, plan.Diff(have(t, h), want))
		if diff := cmp.Diff(text(want), text(have(t, h))); diff != "" {
			t.Errorf("after attach (-want +have):\n%s", diff)
		}
		if again := plan.Diff(have(t, New()), want); len(again) > 0 {
			t.Errorf("a second attach would change %v", again)
		}
	})
}

func TestAddTwiceIsAddOnce(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		changes := plan.Diff(nil, want)
		run(t, h, changes)
		once := snapshot(t)
		run(t, h, changes)
		for _, i := range want {
			if err := h.Replace(i, i); err != nil {
				t.Errorf("Replace %s: %v", i, err)
			}
		}
		if diff := cmp.Diff(once, snapshot(t)); diff != "" {
			t.Errorf("the second time changed (-once +twice):\n%s", diff)
		}
	})
}

func TestRemoveLeavesNothing(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		before := snapshot(t)
		if legacy { // the tables stay, see the package comment
			for _, c := range []string{"iptables", "ip6tables"} {
				sh(t, fmt.Sprintf("for t in filter mangle nat raw; do %s-legacy -t $t -S; done", c))
			}
			before = snapshot(t)
		}
		run(t, h, plan.Diff(nil, want))
		gone := plan.Diff(want, nil)
		run(t, h, gone)
		run(t, h, gone) // absent is a success
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	})
}

func TestRemoveOfWhatNeverWasMakesNothing(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		before := snapshot(t)
		h := New()
		run(t, h, plan.Diff(everything(legacy), nil))
		have(t, h)
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("removing nothing made something (-before +after):\n%s", diff)
		}
		for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
			if names, err := legacyTables(f); err != nil || len(names) > 0 {
				t.Errorf("legacy tables of %s: %v, %v", f, names, err)
			}
		}
	})
}

// TestForeignRulesAreUntouched attaches and detaches beside an
// administrator's rules. The tables are his, so the shared items are not
// ours to remove.
func TestForeignRulesAreUntouched(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		sh(t, foreign+"\nip6tables-nft -t raw -A PREROUTING -j RETURN; iptables-nft -t raw -A PREROUTING -j RETURN")
		before := snapshot(t)
		h, want := New(), everything(legacy)
		if found := own(have(t, h)); len(found) > 0 {
			t.Fatalf("foreign rules taken for ours: %v", found)
		}
		run(t, h, plan.Diff(nil, want))
		if diff := cmp.Diff(text(own(want)), text(own(have(t, h)))); diff != "" {
			t.Errorf("beside foreign rules (-want +have):\n%s", diff)
		}
		run(t, h, plan.Diff(own(have(t, h)), nil))
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("foreign rules changed (-before +after):\n%s", diff)
		}
	})
}

// Rules that others made while we were not there stand between our two jumps.
func TestJumpsStandAroundForeignRules(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		sh(t, foreign)
		h := New()
		run(t, h, plan.Diff(nil, everything(legacy)))
		for base, want := range map[string][2]string{"INPUT": {"INPUT", "LISTEN"}, "OUTPUT": {"OUTPUT", "SEND"}} {
			got := order(t, tool{plan.IPv4, legacy}, base)
			if n := len(got); n < 3 || got[0] != "PORTREEVE-"+want[0] || got[n-1] != "PORTREEVE-"+want[1] {
				t.Errorf("%s holds %q", base, got)
			}
		}
		if l, err := h.tools.list(tool{plan.IPv4, legacy}, "filter", ""); err != nil || l.policies["INPUT"] != "DROP" {
			t.Errorf("policy of INPUT is %q, the administrator's was DROP (%v)", l.policies["INPUT"], err)
		}
	})
}

// TestUsedTablesStay: somebody put rules into the tables and base chains
// that we had made.
func TestUsedTablesStay(t *testing.T) {
	isolate(t)
	h, want := New(), everything(false)
	run(t, h, plan.Diff(nil, want))
	sh(t, `
iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT
iptables-nft -t nat -N MINE
nft add set ip raw seen '{ type ipv4_addr; }'
ip6tables-nft -P INPUT DROP`)
	run(t, h, plan.Diff(want, nil))
	got := strings.TrimSpace(sh(t, "nft list ruleset | grep -v '^#' | tr -s '\\n\\t ' ' '"))
	wantText := `table ip filter { chain INPUT { type filter hook input priority filter; policy accept; tcp dport 22 counter packets 0 bytes 0 accept } } ` +
		`table ip nat { chain MINE { } } ` +
		`table ip raw { set seen { type ipv4_addr } } ` +
		`table ip6 filter { chain INPUT { type filter hook input priority filter; policy drop; } }`
	if diff := cmp.Diff(wantText, got); diff != "" {
		t.Errorf("what others use (-want +left):\n%s", diff)
	}
}

// TestOldVersionsMakeAllBaseChains: a table of ours in which the command made
// more base chains than we asked for leaves with them.
func TestOldVersionsMakeAllBaseChains(t *testing.T) {
	isolate(t)
	table := plan.Table{Family: plan.IPv4, Name: "filter"}
	if err := New().Add(table); err != nil {
		t.Fatal(err)
	}
	sh(t, "iptables-nft -P INPUT ACCEPT; iptables-nft -P FORWARD ACCEPT; iptables-nft -P OUTPUT ACCEPT")
	if err := New().Remove(table); err != nil {
		t.Fatal(err)
	}
	if left := sh(t, "nft list ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestDeletionIsNotRecursive: what is put into a table between our look and
// its deletion survives.
func TestDeletionIsNotRecursive(t *testing.T) {
	isolate(t)
	sh(t, "iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
	r, err := readRuleset(forChange())
	if err != nil {
		t.Fatal(err)
	}
	if err := deleteAtOnce(chainDeletion(r.chains[0]), tableDeletion(plan.Table{Family: plan.IPv4, Name: "filter"})); err == nil {
		t.Error("a chain with a rule was deleted")
	}
	if err := deleteAtOnce(tableDeletion(plan.Table{Family: plan.IPv4, Name: "filter"})); err == nil {
		t.Error("a table with a chain was deleted")
	}
	if left := sh(t, "iptables-nft -S INPUT"); !strings.Contains(left, "--dport 22") {
		t.Errorf("the rule is gone: %s", left)
	}
}

func TestChainUsedByAnotherIsNamed(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		run(t, h, plan.Diff(nil, want))
		tl := tool{plan.IPv4, legacy}
		sh(t, tl.String()+" -A FORWARD -p tcp -j PORTREEVE-INPUT")
		var failed error
		for _, c := range plan.Diff(own(have(t, h)), nil) {
			failed = errors.Join(failed, h.Remove(c.Item))
		}
		if failed == nil || !strings.HasPrefix(failed.Error(), "chain PORTREEVE-INPUT is still used by a rule that is not ours: remove it first: ") {
			t.Fatalf("error %v names no rule", failed)
		}
		if left := text(own(have(t, h))); left != fmt.Sprintf("%s -t filter -N PORTREEVE-INPUT", tl) {
			t.Errorf("left: %s", left)
		}
		_, command, _ := strings.Cut(failed.Error(), "first: ")
		sh(t, command)
		run(t, h, plan.Diff(own(have(t, h)), nil))
	})
}

func TestRefusesWhatIsNotOurs(t *testing.T) {
	isolate(t)
	sh(t, foreign)
	before := snapshot(t)
	h := New()
	for _, i := range []plan.Item{
		plan.Chain{Family: plan.IPv4, Table: "filter", Name: "PORTREEVE"},
		plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "INPUT", Spec: "-i lo -j ACCEPT"},
		plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "INPUT", Spec: "-i lo -j ACCEPT", Place: plan.First},
		plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "INPUT", Spec: "-m comment --comment portreeve -j PORTREEVE", Place: plan.First},
		plan.BaseChain{Family: plan.IPv4, Table: "filter", Name: "POSTROUTING"},
		plan.Route{Family: plan.IPv4, Table: 25},
	} {
		if err := h.Add(i); err == nil {
			t.Errorf("Add %s succeeded", i)
		}
		if _, base := i.(plan.BaseChain); base {
			continue // absent, so its removal has nothing to refuse
		}
		if err := h.Remove(i); err == nil {
			t.Errorf("Remove %s succeeded", i)
		}
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestRepeatedRulesAllGo(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), everything(legacy)
		run(t, h, plan.Diff(nil, want))
		sh(t, fmt.Sprintf("%s -A INPUT %s", tool{plan.IPv4, legacy}, plan.Jump("PORTREEVE-INPUT")))
		run(t, h, plan.Diff(want, nil))
		if left := own(have(t, h)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestConcurrentAttach runs several attaches and an administrator at once,
// all on the same thread's namespace.
func TestConcurrentAttach(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		want := everything(legacy)
		ns := threadNamespace(t)
		var running sync.WaitGroup
		for range 3 {
			running.Go(func() {
				inNamespace(t, ns, func() {
					h := New()
					for _, c := range plan.Diff(nil, want) {
						if err := h.Add(c.Item); err != nil {
							t.Errorf("%s: %v", c, err)
						}
					}
				})
			})
		}
		running.Go(func() {
			inNamespace(t, ns, func() {
				for i := range 10 {
					sh(t, fmt.Sprintf("%s -w -A OUTPUT -p tcp --dport %d -j ACCEPT", tool{plan.IPv4, legacy}, 1000+i))
				}
			})
		})
		running.Wait()
		if again := plan.Diff(own(have(t, New())), own(want)); len(again) > 0 {
			t.Errorf("a further attach would change %v", again)
		}
		if n := strings.Count(sh(t, tool{plan.IPv4, legacy}.String()+" -S OUTPUT"), "-A OUTPUT -p tcp"); n != 10 {
			t.Errorf("%d of the administrator's 10 rules are there", n)
		}
	})
}

// TestExistingTableIsLeftAsItIs: to ask for it again would wake it up, or
// change a policy.
func TestExistingTableIsLeftAsItIs(t *testing.T) {
	isolate(t)
	sh(t, "nft 'add table ip raw { flags dormant; }'; iptables-nft -P INPUT DROP")
	before := snapshot(t)
	for _, i := range []plan.Item{
		plan.Table{Family: plan.IPv4, Name: "raw"},
		plan.Table{Family: plan.IPv4, Name: "filter"},
		plan.BaseChain{Family: plan.IPv4, Table: "filter", Name: "INPUT"},
	} {
		if err := New().Add(i); err != nil {
			t.Errorf("Add %s: %v", i, err)
		}
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}
