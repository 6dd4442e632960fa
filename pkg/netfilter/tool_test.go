package netfilter

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// withoutCommands hides iptables from the test's thread.
func withoutCommands(t *testing.T) {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
}

func TestWithoutIPTables(t *testing.T) {
	isolate(t)
	run(t, New(), plan.Diff(nil, everything(false)))
	withoutCommands(t)
	const want = "the command iptables-nft is not installed: install it (apt-get install iptables), or set kernel.netfilter to off in the configuration"
	h := New()
	err := h.Add(plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "PORTREEVE-INPUT", Spec: "-j RETURN"})
	if !errors.Is(err, ErrMissing) || err.Error() != want {
		t.Errorf("Add: %v\nwant %s", err, want)
	}
	if _, err := Legacy(); !errors.Is(err, ErrMissing) {
		t.Errorf("Legacy: %v, want %v", err, ErrMissing)
	}

	// What was made with it can still be removed.
	found := have(t, h)
	for _, i := range everything(false) {
		f, isRule := i.(plan.Filter)
		if (!isRule || f.IsJump()) && !slices.Contains(found, i) {
			t.Errorf("%s is not found without iptables", i)
		}
	}
	run(t, h, plan.Diff(found, nil))
	if r, err := readRuleset(forChange()); err != nil || len(r.tables) > 0 {
		t.Errorf("left behind: %v (%v)", r.tables, err)
	}
}

func TestLegacyWithoutItsCommand(t *testing.T) {
	isolate(t)
	sh(t, "iptables-legacy -P INPUT DROP")
	withoutCommands(t)
	if items := have(t, New()); len(items) > 0 {
		t.Errorf("found %v", items)
	}
	if _, err := Look(t.Context()); err != nil {
		t.Errorf("Look: %v", err)
	}
}

func TestMissingExtensionIsNamed(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h := New()
		run(t, h, plan.Diff(nil, everything(legacy)))
		// An accounting object that does not exist is refused in the words of
		// a missing extension.
		err := h.Add(plan.Filter{
			Family: plan.IPv4, Legacy: legacy, Table: "filter", Chain: "PORTREEVE-INPUT",
			Spec: "-m nfacct --nfacct-name portreeve -j ACCEPT",
		})
		want := "iptables-nft: the kernel lacks what the rule needs: load it (modprobe -a nf_tables nft_compat xt_nfacct), or set kernel.netfilter to off: "
		if legacy {
			want = "iptables-legacy: the kernel lacks what the rule needs: load it (modprobe -a iptable_filter xt_nfacct), or set kernel.netfilter to off: "
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v\nwant  %s…", err, want)
		}
	})
}

func TestModules(t *testing.T) {
	for _, tc := range []struct {
		t           tool
		table, spec string
		want        []string
	}{
		{tool{plan.IPv4, true}, "raw", "-m mark --mark 0x1/0x1 -j CT --notrack", []string{"iptable_raw", "xt_mark", "xt_CT"}},
		{tool{plan.IPv6, true}, "nat", "", []string{"ip6table_nat"}},
		{tool{plan.IPv6, false}, "filter", "-i ext0 -p tcp -m tcp --dport 25 -j ACCEPT", []string{"nf_tables", "nft_compat", "xt_tcpudp"}},
	} {
		if diff := cmp.Diff(tc.want, modules(tc.t, tc.table, tc.spec)); diff != "" {
			t.Errorf("modules of %s in %s (-want +got):\n%s", tc.spec, tc.table, diff)
		}
	}
}

func TestUnprivileged(t *testing.T) {
	isolate(t)
	sh(t, "iptables-legacy -S")
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData // the kernel reads both
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	h := New()
	_, haveErr := h.Have()
	_, lookErr := Look(t.Context())
	for what, err := range map[string]error{
		"Have": haveErr,
		"Look": lookErr,
		"Add":  h.Add(plan.Table{Family: plan.IPv4, Name: "raw"}),
	} {
		if err == nil || !strings.HasSuffix(err.Error(), "run it with CAP_NET_ADMIN, as root") {
			t.Errorf("%s without capabilities: %v", what, err)
		}
	}
}

func TestLegacyIsWhatIPTablesIs(t *testing.T) {
	legacy, err := Legacy()
	if err != nil {
		t.Fatal(err)
	}
	if said := strings.Contains(sh(t, "PATH=$PATH:/usr/sbin iptables --version"), "nf_tables"); legacy == said {
		t.Errorf("Legacy is %t, iptables says nf_tables: %t", legacy, said)
	}
}
