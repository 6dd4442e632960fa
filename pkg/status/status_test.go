package status

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// kernel is a hand that holds a list of items.
type kernel []plan.Item

func (kernel) Name() string                 { return "kernel" }
func (kernel) Owns(plan.Kind) bool          { return true }
func (k kernel) Have() ([]plan.Item, error) { return k, nil }
func (kernel) Add(plan.Item) error          { return nil }
func (kernel) Replace(_, _ plan.Item) error { return nil }
func (kernel) Remove(plan.Item) error       { return nil }

var (
	route  = plan.Route{Family: plan.IPv4, Table: 7}
	lookup = plan.Lookup{}
	tcx    = plan.TC{Interface: "ext0", Side: plan.ClientSide}
	wall   = plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true}
	clsact = plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: true}
)

// read reports on a kernel that holds have, with a journal of intended.
func read(t *testing.T, have, intended []plan.Item) Report {
	t.Helper()
	j, err := apply.OpenJournal(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range intended {
		if err := j.Intend(i); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Read(&apply.Runner{Hands: []apply.Hand{kernel(have)}, Journal: j}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReadTellsLostFromLeftOver(t *testing.T) {
	r := read(t, []plan.Item{lookup, tcx}, []plan.Item{route, lookup})
	if diff := cmp.Diff([]string{route.String()}, r.Lost); diff != "" {
		t.Errorf("lost:\n%s", diff)
	}
	if diff := cmp.Diff([]string{tcx.String()}, r.Leftovers); diff != "" {
		t.Errorf("leftovers:\n%s", diff)
	}
}

func TestDatapath(t *testing.T) {
	for want, have := range map[string][]plan.Item{
		"":       {route},
		"lookup": {lookup, route},
		"tcx":    {lookup, tcx},
		"clsact": {lookup, clsact},
	} {
		if r := read(t, have, have); r.Datapath != want || r.Attached != (want != "") {
			t.Errorf("with %v: data path %q, attached %v", have, r.Datapath, r.Attached)
		}
	}
}

func TestInspectorStates(t *testing.T) {
	up := []steer.ServiceAlive{{Name: "mx", IPv4: true}}
	for name, test := range map[string]struct {
		alive steer.Alive
		want  State
	}{
		"never ran":         {steer.Alive{Limit: time.Second}, Absent},
		"ended":             {steer.Alive{Limit: time.Second, Instance: 1, Services: []steer.ServiceAlive{{Name: "mx"}}}, Absent},
		"runs":              {steer.Alive{Limit: time.Second, Instance: 1, Services: up}, Alive},
		"stopped":           {steer.Alive{Limit: time.Second, Instance: 1, Age: 2 * time.Second, Services: up}, Hung},
		"before first beat": {steer.Alive{Limit: time.Second, Services: up}, Hung},
	} {
		if got := inspector(test.alive).State; got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// sample is a report with everything in it.
func sample() Report {
	return Report{
		Attached: true, Since: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Datapath: "tcx",
		Inspector: Inspector{State: Alive, Instance: 7, Age: 0.25, Limit: 3},
		Watcher: Watcher{State: Watching, Age: 1.5, Repairs: 3,
			Last:     []Note{{time.Date(2026, 11, 22, 12, 5, 0, 0, time.UTC), "+ " + route.String()}},
			Findings: []Note{{time.Date(2026, 11, 22, 12, 6, 0, 0, time.UTC), "something is in the way"}}},
		Metrics: "http://127.0.0.1:9125/metrics",
		Services: services(steer.Alive{Services: []steer.ServiceAlive{{Name: "mx", Open: true, IPv4: true}}}, []plan.Item{
			plan.Binding{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Port: 25, Service: "mx", Addressed: true},
			plan.Binding{Prefix: netip.MustParsePrefix("2001:db8::/64"), Port: 25, Service: "mx", Transit: true},
		}),
		Walls:     []Wall{{Name: "origin", At: []string{wall.String()}, Dropped: 3}},
		Leaks:     3,
		Counters:  []Counter{{"client-syn", 4, "diverted"}},
		Lost:      []string{route.String()},
		Displaced: []string{"a jump"},
		Leftovers: []string{clsact.String()},
	}
}

// The JSON keys are a promise to scripts.
func TestJSONIsStable(t *testing.T) {
	got, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"attached":true,"since":"2026-11-22T12:00:00Z","datapath":"tcx",` +
		`"inspector":{"state":"alive","instance":7,"heartbeat_age_seconds":0.25,"heartbeat_limit_seconds":3},` +
		`"watcher":{"state":"watching","look_age_seconds":1.5,"repairs":3,"last":[{"when":"2026-11-22T12:05:00Z","text":"+ route IPv4 local default dev lo table 7"}],` +
		`"findings":[{"when":"2026-11-22T12:06:00Z","text":"something is in the way"}]},"metrics":"http://127.0.0.1:9125/metrics",` +
		`"services":[{"name":"mx","fail":"open","ipv4":true,"ipv6":false,"addressed":["192.0.2.1:25"],"transit":["[2001:db8::/64]:25"]}],` +
		`"walls":[{"name":"origin","at":["link tcx egress dev dmz0 wall"],"dropped":3}],"leaks":3,` +
		`"counters":[{"reason":"client-syn","count":4,"meaning":"diverted"}],` +
		`"lost":["route IPv4 local default dev lo table 7"],"displaced":["a jump"],"leftovers":["link clsact ingress dev ext0 client side"]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// A drop at the client side is its duty; at the walls behind it is an alarm.
func TestWalls(t *testing.T) {
	count := func(word string, n uint64) steer.Counter {
		for _, r := range steer.Reasons() {
			if r.String() == word {
				return steer.Counter{Reason: r, Count: n}
			}
		}
		t.Fatalf("no reason %s", word)
		return steer.Counter{}
	}
	counters := []steer.Counter{count("client-hidden", 1), count("client-hung-closed", 2), count("client-syn", 100)}
	have := []plan.Item{
		tcx, wall, plan.TC{Interface: "dmz0", Side: plan.OriginSide}, plan.Forward{Family: plan.IPv6},
		plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "PORTREEVE-FORWARD", Spec: "-j DROP"},
	}
	all, leaks := walls(have, counters)
	if len(all) != 3 || all[0].Dropped != 3 || all[1].Dropped != 0 || len(all[2].At) != 2 || leaks != 0 {
		t.Errorf("%v, %d leaks", all, leaks)
	}
	counters = append(counters, count("wall-leak", 4), count("wall-dead-open", 50), count("forward-hidden", 5))
	all, leaks = walls(have, counters)
	if all[1].Dropped != 4 || all[2].Dropped != 5 || leaks != 9 {
		t.Errorf("%v, %d leaks", all, leaks)
	}
	if all, _ := walls(nil, counters); all != nil {
		t.Errorf("walls where nothing stands: %v", all)
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"data path tcx", "alive: last heartbeat 0.2 s ago, limit 3.0 s",
		"fail open, addressed 192.0.2.1:25, transit [2001:db8::/64]:25", "metrics", "http://127.0.0.1:9125/metrics", "client-syn", "lost", "leftover", "displaced", "a jump",
		"watching: last look 1.5 s ago; 3 things put back since the attach", "put back", "+ route IPv4", "finding", "something is in the way (since",
		"wall origin", "3 dropped; link tcx egress dev dmz0 wall", "3 STOPPED",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// What is there and does not do what it ought to is drift, as is what is gone.
func TestDisplaced(t *testing.T) {
	jump := plan.Filter{Family: plan.IPv4, Table: "nat", Chain: "POSTROUTING", Spec: plan.Jump("PORTREEVE-POSTROUTING"), Place: plan.First}
	astray, behind := jump, tcx
	astray.Astray, behind.Behind = true, true
	link := plan.Link{Name: plan.LoopLink, Fault: "it is down"}
	have := []plan.Item{astray, behind, link, plan.Lookup{Unpinned: true}, plan.Forward{Family: plan.IPv6, Unpinned: true}}
	r := read(t, append(have, wall), []plan.Item{jump, tcx, plan.Link{Name: plan.LoopLink}, plan.Lookup{}, plan.Forward{Family: plan.IPv6}, wall})
	if diff := cmp.Diff(words(have), r.Displaced); diff != "" || len(r.Lost) > 0 {
		t.Errorf("lost %v, displaced:\n%s", r.Lost, diff)
	}
}

func TestWatcherStates(t *testing.T) {
	for name, test := range map[string]struct {
		watcher steer.Watcher
		want    WatcherState
	}{
		"none":   {steer.Watcher{Age: time.Hour}, Unwatched},
		"looks":  {steer.Watcher{Ever: true, Age: 4 * time.Second}, Watching},
		"killed": {steer.Watcher{Ever: true, Age: time.Minute}, Silent},
	} {
		if got := watcher(test.watcher); got.State != test.want {
			t.Errorf("%s: %s, want %s", name, got.State, test.want)
		}
	}
}

// Who reads it knows whether somebody serves.
func TestTextSaysWhetherSomebodyServes(t *testing.T) {
	served := sample()
	served.Services = append(served.Services, Service{Name: "more", Fail: "closed"})
	none := sample()
	none.Inspector, none.Services[0].IPv4 = Inspector{State: Absent}, false
	waits := none
	waits.Inspector = Inspector{State: Absent, Instance: 7, Age: 0.5, Limit: 3}
	hung := sample()
	hung.Inspector = Inspector{State: Hung, Instance: 7, Age: 5, Limit: 3}
	for name, test := range map[string]struct {
		report Report
		want   string
		absent string
	}{
		"one service": {served, "service more  fail closed; nobody serves it\n", "nobody serves,"},
		"nobody":      {none, "inspector    absent: nobody serves, and new connections meet the fail policy", "attach its file again"},
		"one waits":   {waits, "one that lived 0.5 s ago has just ended, or its services or settings are not those that are attached: attach its file again, or start another", "start one:"},
		"hung":        {hung, "hung: last heartbeat 5.0 s ago, limit 3.0 s; nobody serves, and", "alive"},
	} {
		var b strings.Builder
		if err := test.report.WriteText(&b); err != nil || !strings.Contains(b.String(), test.want) || strings.Contains(b.String(), test.absent) {
			t.Errorf("%s: %v, %q missing, or %q there:\n%s", name, err, test.want, test.absent, b.String())
		}
	}
}

func TestTextOfNothing(t *testing.T) {
	var b strings.Builder
	if err := read(t, nil, nil).WriteText(&b); err != nil || b.String() != "kernel side  not attached\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
