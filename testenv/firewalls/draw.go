package firewalls

import (
	"math/rand/v2"
	"slices"
)

// The cast: clients that rules name and probes come from. Nobody names Innocent; the
// rules that count are about Rated alone, so that its turn is sure.
const (
	Innocent = 0
	Rated    = 5
	Cast     = 6
)

// Users of the gateway whose connections are tried, and named by rules.
var Users = []int{0, 1234}

// Draw makes a ruleset at random. The same seed and number give the same one.
func Draw(seed uint64, number int) *Ruleset {
	d := &drawer{r: rand.New(rand.NewPCG(seed, uint64(number)))}
	d.set = &Ruleset{Seed: seed, Number: number, Closed: make(map[Hook]bool), Wrapped: make(map[Hook]bool), Mode: Whole}
	d.draw()
	return d.set
}

type drawer struct {
	r   *rand.Rand
	set *Ruleset
}

// chance is true in so many of a hundred cases.
func (d *drawer) chance(percent int) bool { return d.r.IntN(100) < percent }

func pick[T any](d *drawer, from ...T) T { return from[d.r.IntN(len(from))] }

// draw writes a ruleset of 3 to 15 rules.
func (d *drawer) draw() {
	s := d.set
	s.Flavour = pick(d, IPTablesNFT, IPTablesNFT, IPTablesLegacy, NFT)
	s.Exact, s.Open = d.chance(25), d.chance(20)
	if d.chance(40) {
		s.Mode = pick(d, Inserted, Appended)
	}
	if s.Flavour == NFT {
		s.Priority = pick(d, 0, 0, -5, 10)
	}
	for _, h := range []Hook{Input, Forward, Output} {
		d.frame(h)
	}
	d.bans()
	for want := 1 + d.r.IntN(6); len(s.Rules) < least || want > 0 && len(s.Rules) < most; want-- {
		d.piece()
	}
	d.order()
}

// How many rules there are; the last piece may have two more.
const (
	least = 3
	most  = 13
)

// add adds a rule that asks for what it needs.
func (d *drawer) add(r Rule) { d.set.Rules = append(d.set.Rules, r) }

// frame is what an administrator begins a chain with, and ends it.
func (d *drawer) frame(h Hook) {
	s := d.set
	s.Closed[h] = d.chance(map[Hook]int{Input: 40, Forward: 35, Output: 12}[h])
	trailing := !s.Closed[h] && d.chance(20) && h != Output
	s.Wrapped[h] = d.chance(25)
	if !s.Closed[h] && !trailing && !d.chance(20) {
		return
	}
	d.add(Rule{Hook: h, States: "ESTABLISHED,RELATED", Do: Accept})
	if h == Input && d.chance(60) {
		d.add(Rule{Hook: h, In: "lo", Do: Accept})
	}
	if h == Output && s.Closed[h] {
		d.add(pick(d, Rule{Hook: h, Out: "dmz0", Do: Accept}, Rule{Hook: h, Out: "lo", Do: Accept}, Rule{Hook: h, User: Users[0] + 1, Do: Accept}))
	}
	if h != Output && d.chance(75) {
		d.lets(h)
	}
	if trailing {
		if d.chance(20) {
			d.add(Rule{Hook: h, Class: Trailing, Do: Log})
		}
		d.add(Rule{Hook: h, Class: Trailing, Do: pick(d, Drop, Drop, Reject, LogDrop)})
	}
}

// lets opens a chain that is closed for some.
func (d *drawer) lets(h Hook) {
	r := Rule{Hook: h, Port: pick(d, 25, 25, OtherPort), Do: Accept}
	if h == Forward {
		r.To = pick(d, Origin, Origin, Anybody, More)
		if d.chance(20) {
			r.Out = "dmz0"
		}
	}
	if d.chance(30) {
		r.In = "ext0"
	}
	if d.chance(30) {
		r.States = "NEW"
	}
	if d.chance(20) {
		r.Clients = []int{pick(d, 1, 2, 3)}
	}
	d.add(r)
}

// bans keeps some clients out. Those of a mode come as bans, others may stand
// anywhere.
func (d *drawer) bans() {
	for range 1 + d.r.IntN(3) {
		class := Plain
		if d.set.Mode != Whole || d.chance(40) {
			class = Ban
		}
		d.ban(class)
	}
}

// ban draws one.
func (d *drawer) ban(class Class) {
	r := Rule{Class: class, Do: pick(d, Drop, Drop, Drop, Reject)}
	r.Hook = pick(d, Input, Input, Input, Forward, Forward, Forward, RawPrerouting, ManglePrerouting, MangleForward)
	if r.Hook != Input && r.Hook != Forward {
		r.Do = Drop
	}
	d.clients(&r)
	if d.chance(40) {
		r.Port = 25
	}
	if d.chance(20) {
		r.Family = pick(d, Families...)
	}
	if d.chance(25) {
		r.In = "ext0"
	}
	forward := r.Hook == Forward || r.Hook == MangleForward
	switch {
	case forward && d.chance(12):
		r.Out = "dmz0"
	case forward && d.chance(25):
		r.To = Origin
	case r.Hook == Input && d.chance(20):
		r.To = Gateway
	}
	filter := r.Hook.table() == "filter"
	if filter && d.chance(20) {
		r.States = "NEW"
	}
	if filter && r.Do == Reject && d.chance(40) {
		r.Do = RejectTCP
	}
	if class == Ban && filter {
		r.Via = d.set.Flavour != NFT && d.chance(25)
		r.Apart = !r.Via && d.chance(20)
	}
	if r.Via {
		r.To, r.In = Anybody, ""
	}
	if r.Apart {
		r.Set, r.Clients = false, r.Clients[:1] // the sets are in the other table
	}
	d.add(r)
}

// clients names some.
func (d *drawer) clients(r *Rule) {
	r.Clients = []int{1 + d.r.IntN(Rated-1)}
	if d.chance(30) {
		r.Set = true
		other := 1 + d.r.IntN(Rated-1)
		if other != r.Clients[0] {
			r.Clients = append(r.Clients, other)
			slices.Sort(r.Clients)
		}
	}
}

// piece draws what administrators do for a purpose of their own.
func (d *drawer) piece() {
	pieces := []struct {
		weight int
		draw   func()
	}{
		{10, func() { d.ban(Plain) }},
		{6, d.elsewhere},
		{6, d.onlySome},
		{5, d.toward},
		{8, d.users},
		{8, d.marks},
		{10, d.rates},
		{4, d.invalid},
		{8, d.notrack},
		{6, d.dnat},
		{8, d.masquerade},
		{3, func() { d.add(Rule{Hook: pick(d, Input, Forward), Port: 25, Do: Log}) }},
		{6, func() { d.lets(pick(d, Input, Forward)) }},
		{3, d.origins},
	}
	total := 0
	for _, p := range pieces {
		total += p.weight
	}
	n := d.r.IntN(total)
	for _, p := range pieces {
		if n -= p.weight; n < 0 {
			p.draw()
			return
		}
	}
}

// elsewhere keeps somebody from what is no affair of portreeve.
func (d *drawer) elsewhere() {
	r := Rule{Hook: pick(d, Input, Forward), Port: pick(d, OtherPort, OtherPort, DNATPort), Do: pick(d, Drop, Reject)}
	d.clients(&r)
	if d.chance(20) {
		r.Clients, r.Set, r.Except = []int{r.Clients[0]}, false, true
	}
	if r.Hook == Forward && d.chance(30) {
		r.To = More
		r.Port = 25
	}
	d.add(r)
}

// onlySome keeps out all but a few.
func (d *drawer) onlySome() {
	r := Rule{Hook: pick(d, Input, Forward), Port: 25, Do: Drop}
	d.clients(&r)
	if r.Hook == Forward {
		r.To = Origin
	}
	if d.chance(50) {
		r.Except = true
		if !r.Set {
			r.Clients = r.Clients[:1]
		}
		d.add(r)
		return
	}
	allow := r
	allow.Do = Accept
	r.Clients, r.Set = nil, false
	d.add(allow)
	d.add(r)
}

// toward stops what goes to a client.
func (d *drawer) toward() {
	r := Rule{Hook: pick(d, Output, Output, Forward), Toward: true, Do: Drop}
	d.clients(&r)
	if d.chance(30) {
		r.Out = "ext0"
	}
	if d.chance(40) {
		r.Port = 25 // what it sends as a server
	}
	d.add(r)
}

// users stops what a user of the gateway sends.
func (d *drawer) users() {
	r := Rule{Hook: Output, User: pick(d, Users...) + 1, Port: pick(d, 25, 25, OtherPort), Do: pick(d, Drop, Reject)}
	if d.chance(40) {
		r.NotUser = true
	}
	if d.chance(30) {
		r.To = Origin
	}
	d.add(r)
}

// marks marks somebody, and perhaps stops what is marked.
func (d *drawer) marks() {
	set := Rule{Hook: ManglePrerouting, Do: MarkBits}
	switch {
	case d.chance(12):
		set.Do = MarkAll
	case d.chance(12):
		d.add(Rule{Hook: ManglePrerouting, Do: pick(d, Restore, RestoreLow, RestoreLow)})
	}
	d.clients(&set)
	if d.chance(50) {
		set.Port = 25
	}
	d.add(set)
	if d.chance(80) {
		look := Rule{Hook: pick(d, Forward, Forward, Input, MangleForward), Mark: true, Do: Drop}
		look.Whole = d.chance(15)
		if look.Hook != MangleForward && d.chance(20) {
			look.Do = pick(d, Accept, Reject)
		}
		d.add(look)
	}
}

// rates counts what one client begins.
func (d *drawer) rates() {
	r := Rule{Clients: []int{Rated}, Port: 25, SYN: true}
	r.Hook, r.To = Input, Gateway
	switch {
	case d.chance(50):
		r.Hook, r.To = Forward, Origin
	case d.chance(15):
		r.Hook, r.To = ManglePrerouting, pick(d, Gateway, Origin)
	}
	if r.Hook != ManglePrerouting && d.chance(30) {
		r.SYN, r.States = false, "NEW"
	}
	for i := range d.set.Rules {
		if d.set.Rules[i].Rate != Unlimited && d.set.Rules[i].Hook == r.Hook {
			return // names and counters of one hook are one
		}
	}
	r.Rate, r.Do = pick(d, Over, Over, Limit), Drop
	if r.Hook != ManglePrerouting && d.chance(20) {
		r.Rate, r.SYN, r.States = Connlimit, true, ""
	}
	if r.Rate == Limit {
		r.Do = Accept
	}
	d.add(r)
	if r.Rate == Limit {
		r.Rate, r.Do = Unlimited, Drop
		d.add(r)
	}
}

// invalid drops what connection tracking does not understand.
func (d *drawer) invalid() {
	d.add(Rule{Hook: pick(d, Input, Forward, Output), States: "INVALID", Do: Drop})
}

// notrack keeps a port out of connection tracking, in both directions: an answer to
// what is not tracked would count as new, be dropped as such or get another address,
// and that is no ban of anybody.
func (d *drawer) notrack() {
	r := Rule{Hook: RawPrerouting, Port: pick(d, 25, 25, OtherPort), Do: NoTrack}
	if d.chance(40) {
		r.In = "ext0"
	}
	d.add(r)
	for _, hook := range []Hook{RawPrerouting, RawOutput} {
		d.add(Rule{Hook: hook, Port: r.Port, Answers: true, Do: NoTrack})
	}
}

// dnat leads a port elsewhere.
func (d *drawer) dnat() {
	r := Rule{Hook: NATPrerouting, In: "ext0", Port: DNATPort, To: Gateway, Do: ToOther}
	switch {
	case d.chance(15):
		r.Port, r.To, r.Do = 25, pick(d, Gateway, Origin), ToMore
	case d.chance(10):
		r.Port, r.Do = 25, Redirect
	}
	d.add(r)
}

// masquerade gives connections the gateway's address.
func (d *drawer) masquerade() {
	r := Rule{Hook: NATPostrouting, Out: pick(d, "dmz0", "dmz0", "", "ext0"), Do: Masquerade}
	if d.chance(30) {
		d.clients(&r)
	}
	d.add(r)
}

// origins stops what the origin begins.
func (d *drawer) origins() {
	r := Rule{Hook: Forward, In: "dmz0", Do: Drop, States: "NEW"}
	if d.chance(50) {
		r.From = Origin
	}
	d.add(r)
}

// order puts bans where their mode has them, and what is trailing last. What an
// administrator wrote beside them has no order.
func (d *drawer) order() {
	rank := func(r Rule) int {
		return map[Class]int{Ban: 0, Plain: 1, Trailing: 2}[r.Class]
	}
	slices.SortStableFunc(d.set.Rules, func(a, b Rule) int { return rank(a) - rank(b) })
	if d.set.Mode != Appended {
		return
	}
	// A ban behind rules that let nobody pass bans nobody.
	for i := range d.set.Rules {
		for j := range d.set.Rules {
			if d.set.Rules[i].Class == Trailing && d.set.Rules[j].Class == Ban && d.set.Rules[i].Hook == d.set.Rules[j].Hook {
				d.set.Mode = Inserted
			}
		}
	}
}
