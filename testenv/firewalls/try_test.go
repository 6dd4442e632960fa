package firewalls

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/portreeve/portreeve/testenv/peer"
)

// try makes probes, all at once, and returns what they met.
func (s *stage) try(ctx context.Context, probes []Probe, patience time.Duration) Verdicts {
	var (
		trying   sync.WaitGroup
		mu       sync.Mutex
		verdicts = make(Verdicts)
	)
	for _, p := range probes {
		trying.Go(func() {
			v := s.probe(ctx, p, patience)
			mu.Lock()
			defer mu.Unlock()
			verdicts[p] = v
		})
	}
	trying.Wait()
	return verdicts
}

// probe tries as often as it is meant to, until it is stopped.
func (s *stage) probe(ctx context.Context, p Probe, patience time.Duration) (v Verdict) {
	for range p.Times {
		heard, through := s.once(ctx, p, patience)
		if !through {
			return v
		}
		v = Verdict{v.Through + 1, heard}
	}
	return v
}

// once exchanges words, if it can.
func (s *stage) once(ctx context.Context, p Probe, patience time.Duration) (heard string, through bool) {
	deadline := time.Now().Add(patience)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := s.dial(ctx, p)
	if err != nil {
		return "", false
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if p.UDP {
		return askUDP(conn)
	}
	defer peer.Reset(conn) // a port in TIME_WAIT would be in the way of later probes
	return askSMTP(conn)
}

// dial connects as a probe's node and user.
func (s *stage) dial(ctx context.Context, p Probe) (conn net.Conn, err error) {
	node, network := s.env.Client, "tcp"
	switch p.By {
	case Gateway:
		node = s.env.Gateway
	case Origin:
		node = s.env.Origin
	}
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(false)
	if p.UDP {
		network = "udp"
		dialer.LocalAddr = &net.UDPAddr{IP: p.From.AsSlice()}
	} else if p.From.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: p.From.AsSlice()}
	}
	err = node.Enter(func() error {
		return asUser(p.User, func() (err error) {
			conn, err = dialer.DialContext(ctx, network, p.To.String())
			return err
		})
	})
	return conn, err
}

func askUDP(conn net.Conn) (string, bool) {
	if _, err := io.WriteString(conn, "who am I?"); err != nil {
		return "", false
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	return string(answer[:n]), err == nil
}

// askSMTP reads the greeting and says EHLO. A server that says anything but 220 and
// 250 lets nobody through.
func askSMTP(conn net.Conn) (string, bool) {
	in := bufio.NewReader(conn)
	greeting, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(greeting, "220 ") {
		return "", false
	}
	if _, err := io.WriteString(conn, "EHLO client.example.net\r\n"); err != nil {
		return "", false
	}
	heard := []string{strings.TrimSpace(greeting)}
	for {
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "250") {
			return "", false
		}
		heard = append(heard, strings.TrimSpace(line))
		if strings.HasPrefix(line, "250 ") {
			return strings.Join(heard, " / "), true
		}
	}
}
