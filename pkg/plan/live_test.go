package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	mx      = Service{Name: "mx"}
	mail    = Service{Name: "mail"}
	relaxed = Service{Name: "mail", Open: true}
	marks   = Settings{ClientMark: 1, OriginMark: 2, Heartbeat: 3 * time.Second}
)

func bound(prefix, service string) Binding {
	return Binding{Prefix: netip.MustParsePrefix(prefix), Port: 25, Service: service, Transit: service != ""}
}

func origin(prefix string) Origin { return Origin{Prefix: netip.MustParsePrefix(prefix), Port: 25} }

// Each row has a change of what is attached under an inspector that serves mx
// in IPv4; want is what of it stops mail.
func TestClashes(t *testing.T) {
	served := Served{"mx": {IPv4}}
	base := []Item{Objects{}, marks, mx, bound("192.0.2.1/32", "mx"), origin("198.51.100.1/32"), Role{Interface: "ext0", Side: ClientSide}}
	for name, test := range map[string]struct {
		change func([]Item) []Item
		want   string
	}{
		"nothing":                        {func(i []Item) []Item { return i }, ""},
		"one more":                       {func(i []Item) []Item { return append(i, bound("192.0.2.2/32", "mx")) }, ""},
		"one less":                       {func(i []Item) []Item { return slices.Delete(i, 3, 4) }, ""},
		"kept out":                       {func(i []Item) []Item { return append(i, bound("192.0.2.2/32", "")) }, ""},
		"interface":                      {func(i []Item) []Item { return append(i, Role{Interface: "ext1", Side: ClientSide}) }, ""},
		"fails open":                     {func(i []Item) []Item { i[2] = Service{Name: "mx", Open: true}; return i }, ""},
		"more origins":                   {func(i []Item) []Item { return append(i, origin("198.51.100.2/32")) }, ""},
		"wider origin":                   {func(i []Item) []Item { i[4] = origin("198.51.100.0/24"); return i }, ""},
		"new service without an address": {func(i []Item) []Item { return append(i, mail) }, ""},
		"new service that fails open":    {func(i []Item) []Item { return append(i, relaxed, bound("192.0.2.2/32", "mail")) }, ""},
		"table and priority": {func(i []Item) []Item {
			return append(i, Rule{Family: IPv4, Interface: "ext0", Mark: 1, Table: 9, Priority: 9})
		}, ""},

		"new service": {func(i []Item) []Item { return append(i, mail, bound("192.0.2.2/32", "mail")) },
			"binding 192.0.2.2/32 port 25 to mail transit: the inspector that runs does not serve mail, so that its connections would meet fail: closed"},
		"another family": {func(i []Item) []Item { return append(i, bound("2001:db8::1/128", "mx")) },
			"binding 2001:db8::1/128 port 25 to mx transit: the inspector that runs does not serve mx, so that its connections would meet fail: closed"},
		"moved to one that fails open": {func(i []Item) []Item { i[3] = bound("192.0.2.1/32", "mail"); return append(i, relaxed) },
			"binding 192.0.2.1/32 port 25 to mail transit: the inspector that runs does not serve mail, so that its connections would meet fail: open"},
		"renamed": {func(i []Item) []Item { i[2], i[3] = mail, bound("192.0.2.1/32", "mail"); return i },
			"binding 192.0.2.1/32 port 25 to mail transit: the inspector that runs does not serve mail, so that its connections would meet fail: closed\n" +
				"service mx fail closed: the inspector that runs serves it, and it would be gone"},
		"marks": {func(i []Item) []Item {
			i[1] = Settings{ClientMark: 4, OriginMark: 2, Heartbeat: 3 * time.Second}
			return i
		},
			"settings client mark 0x4, origin mark 0x2, heartbeat 3s: the inspector that runs works with settings client mark 0x1, origin mark 0x2, heartbeat 3s"},
		"heartbeat": {func(i []Item) []Item { i[1] = Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Second}; return i },
			"settings client mark 0x1, origin mark 0x2, heartbeat 1s: the inspector that runs works with settings client mark 0x1, origin mark 0x2, heartbeat 3s"},
		"another origin": {func(i []Item) []Item { i[4] = origin("198.51.100.2/32"); return i },
			"origin 198.51.100.1/32 port 25: the inspector that runs may send to it, and its replies would not be claimed any more"},
	} {
		t.Run(name, func(t *testing.T) {
			want := test.change(slices.Clone(base))
			var got []string
			for _, c := range Clashes(Diff(base, want), want, served) {
				got = append(got, c.Change.Item.String()+": "+c.Why)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// While one inspector takes over from another, sessions of both find what they
// rely on.
func TestBeside(t *testing.T) {
	rule := func(mark uint32) Rule {
		return Rule{Family: IPv4, Interface: "ext0", Mark: mark, Table: 7, Priority: 3}
	}
	have := []Item{
		marks, mx, origin("198.51.100.1/32"), rule(1), Role{Interface: "ext0", Side: ClientSide},
		bound("192.0.2.1/32", "mx"), bound("192.0.2.2/32", "mx"), bound("203.0.113.7/32", "mx"),
		Binding{Prefix: netip.MustParsePrefix("192.0.2.9/32"), Port: 25, Service: "mx", Addressed: true},
		TC{Interface: "ext0", Side: ClientSide}, Loop{Mark: 8},
	}
	other := Settings{ClientMark: 4, OriginMark: 2, Heartbeat: time.Second}
	want := []Item{other, mail, rule(4), bound("192.0.2.1/32", "mail"), bound("203.0.113.0/24", "mail")}
	both, relied, err := Beside(have, want)
	if err != nil || !relied {
		t.Errorf("relied %v, %v", relied, err)
	}
	slices.SortFunc(both, order)
	wanted := []Item{
		Settings{ClientMark: 5, OriginMark: 2, Heartbeat: 3 * time.Second},
		mail, mx, origin("198.51.100.1/32"), rule(1), rule(4), Role{Interface: "ext0", Side: ClientSide},
		bound("192.0.2.1/32", "mail"), bound("192.0.2.2/32", ""), bound("203.0.113.0/24", "mail"),
		TC{Interface: "ext0", Side: ClientSide},
	}
	slices.SortFunc(wanted, order)
	if diff := cmp.Diff(lines(wanted), lines(both)); diff != "" {
		t.Error(diff)
	}
	if want[0] != Item(other) {
		t.Error("the wanted plan was changed")
	}
}

// Where only slots go, nothing has to wait for the older inspector's end.
func TestBesideOfRenamedService(t *testing.T) {
	have := []Item{marks, mx, bound("192.0.2.1/32", "mx")}
	want := []Item{marks, mail, bound("192.0.2.1/32", "mail")}
	both, relied, err := Beside(have, want)
	if err != nil || relied || len(both) != len(want)+1 || both[len(want)] != Item(mx) {
		t.Errorf("%v, relied %v, %v", both, relied, err)
	}
}

func TestBesideRefusesMarksThatChangePlaces(t *testing.T) {
	_, _, err := Beside([]Item{marks}, []Item{Settings{ClientMark: 2, OriginMark: 1, Heartbeat: marks.Heartbeat}})
	if err == nil || !strings.Contains(err.Error(), "stop it, attach, and start one") {
		t.Errorf("err %v", err)
	}
}

func TestBear(t *testing.T) {
	for name, test := range map[string]struct {
		force Settings
		want  bool
	}{
		"the same":         {marks, true},
		"both":             {Settings{ClientMark: 5, OriginMark: 10, Heartbeat: time.Minute}, true},
		"client mark":      {Settings{ClientMark: 4, OriginMark: 2, Heartbeat: 3 * time.Second}, false},
		"origin mark":      {Settings{ClientMark: 1, OriginMark: 4, Heartbeat: 3 * time.Second}, false},
		"beats too rarely": {Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Second}, false},
		"none":             {Settings{}, false},
	} {
		if got := test.force.Bear(marks); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
