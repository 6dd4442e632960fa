package chaos

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

const (
	// workers is how many clients send by each way, one letter after the other, each from
	// an address of its own.
	workers = 2
	// pause is what lies between two letters of a client, at most.
	pause = 600 * time.Millisecond
	// dialPatience is how long a client tries to connect: a SYN is sent three times.
	dialPatience = 3500 * time.Millisecond
	// clientPatience is how long it waits for each step of the rest.
	clientPatience = 15 * time.Second
)

// clients are those of one gateway.
type clients struct {
	env    *testenv.Env
	ledger *Ledger
	going  sync.WaitGroup
	stop   context.CancelFunc
}

// sendAlways lets mail flow until close.
func sendAlways(ctx context.Context, env *testenv.Env, l *Ledger) *clients {
	ctx, stop := context.WithCancel(ctx)
	c := &clients{env: env, ledger: l, stop: stop}
	for i, w := range Ways {
		for n := range workers {
			from := 2*i + n
			c.going.Go(func() { c.work(ctx, w, from) })
		}
	}
	c.going.Go(func() { c.haunt(ctx) })
	return c
}

func (c *clients) close() {
	c.stop()
	c.going.Wait()
}

// work sends letters by one way.
func (c *clients) work(ctx context.Context, w Way, from int) {
	kinds := []Kind{Quick, Quick, Quick, Quick, Slow, Slow, Broken, Smuggled}
	for ctx.Err() == nil {
		c.send(w, kinds[rand.IntN(len(kinds))], from)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rand.Int64N(int64(pause)))):
		}
	}
}

// haunt is what a client does whom the administrator has banned.
func (c *clients) haunt(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		c.send(Ways[n%len(Ways)], Banned, banned)
	}
}

// banned is the number of the client whom the administrator keeps out, and prober that
// of the one who asks whether mail flows.
const (
	banned = 15
	prober = 14
)

// addresses are those of a client and of where it sends to.
func (c *clients) addresses(w Way, from int) (netip.Addr, netip.AddrPort) {
	source, to := c.env.MoreClients[from], c.env.Gateway4
	switch {
	case w.Family == 4 && w.Transit:
		to = c.env.Origin4
	case w.Family == 6:
		source, to = c.env.MoreClients6[from], c.env.Gateway6
		if w.Transit {
			to = c.env.Origin6
		}
	}
	return source, netip.AddrPortFrom(to, 25)
}

// send sends one letter and enters what became of it.
func (c *clients) send(w Way, kind Kind, from int) {
	source, to := c.addresses(w, from)
	number := c.ledger.Begin(w, kind)
	patience := dialPatience
	if kind == Banned {
		patience = time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := c.env.Client.Dial(ctx, netip.AddrPortFrom(source, 0), to)
	if err != nil {
		c.ledger.Lost("dial")
		return
	}
	defer conn.Close()
	if kind == Banned {
		c.ledger.From(number, netip.MustParseAddrPort(conn.LocalAddr().String()).Port())
	}
	t := &talk{ledger: c.ledger, client: peer.NewClient(conn), conn: conn, number: number}
	t.letter(kind)
}

// talk is one client's session.
type talk struct {
	ledger *Ledger
	client *peer.Client
	conn   net.Conn
	number int
}

// says sends a command and reports whether the reply is the one that it takes to go on.
func (t *talk) says(what string, want int, send func() (peer.Reply, error)) bool {
	t.conn.SetDeadline(time.Now().Add(clientPatience))
	reply, err := send()
	switch {
	case err != nil:
		t.ledger.Lost(what)
	case reply.Code != want:
		t.ledger.Refused(t.number, what, reply.Code)
	default:
		return true
	}
	return false
}

func (t *talk) command(line string, want int) bool {
	return t.says(line[:4], want, func() (peer.Reply, error) { return t.client.Command(line) })
}

func (t *talk) letter(kind Kind) {
	begun := t.says("greeting", 220, t.client.Reply) && t.command("EHLO client.example.net", 250) &&
		t.command("MAIL FROM:<a@example.net>", 250) && t.command("RCPT TO:<b@example.org>", 250) && t.command("DATA", 354)
	if !begun {
		return
	}
	lines := 1 + rand.IntN(60)
	if rand.IntN(20) == 0 {
		lines = 4000
	}
	content := Content(t.number, lines)
	switch kind {
	case Smuggled:
		content = Smuggle(content)
	case Broken:
		t.client.Write(content[:rand.IntN(len(content))])
		if rand.IntN(2) == 0 {
			peer.Reset(t.conn)
		}
		return
	case Slow:
		half := rand.IntN(len(content))
		if t.client.Write(content[:half]) != nil {
			t.ledger.Lost("content")
			return
		}
		time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Second))))
		content = content[half:]
	}
	t.end(content)
}

// end sends the rest of the content with the end of data, and enters the reply.
func (t *talk) end(rest string) {
	t.conn.SetDeadline(time.Now().Add(clientPatience))
	err := t.client.Write(rest + ".\r\n")
	var reply peer.Reply
	if err == nil {
		reply, err = t.client.Reply()
	}
	if err != nil {
		t.ledger.Lost("end of data")
		return
	}
	t.ledger.Told(t.number, reply.Code)
	t.command("QUIT", 221)
}

// probeEvery is how often somebody asks whether mail flows by a way.
const probeEvery = 300 * time.Millisecond

// await waits until letters were delivered by all ways, of connections that were begun
// now or later, and returns for how long, and the ways that are missing at the end of
// patience.
func (c *clients) await(ctx context.Context, patience time.Duration) (time.Duration, []Way) {
	since := time.Now()
	limit := time.After(patience)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		missing, changed := c.ledger.Flows(since)
		if len(missing) == 0 {
			return time.Since(since), nil
		}
		select {
		case <-changed:
			continue
		case <-tick.C:
			for _, w := range missing {
				c.going.Go(func() { c.send(w, Quick, prober) })
			}
		case <-limit:
			return patience, missing
		case <-ctx.Done():
			return time.Since(since), missing
		}
	}
}
