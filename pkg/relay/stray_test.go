package relay

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv/peer"
)

// liar is an origin that says 250 once, at some moment while the end of data is on its
// way, and refuses the message when it has that.
type liar struct {
	after  time.Duration  // the content
	stray  chan time.Time // when it was said
	missed chan bool      // the end of data had come before
}

// BenchmarkStrays measures how many strays of such an origin, 2 ms away, count as its
// answer. Those are left out that the gate finds before it writes the end of
// data (told/op), and those that were said when the origin's host had that (late/op). Of
// the rest, crossing/op, counted/op are what the client took for the answer.
func BenchmarkStrays(b *testing.B) {
	const delay = 2 * time.Millisecond
	line(b, delay)
	ln, err := net.Listen("tcp", "10.91.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	origin := netip.AddrPortFrom(netip.MustParseAddr("10.91.0.2"), netip.MustParseAddrPort(ln.Addr().String()).Port())
	g := start(b, peer.Behaviour{}, notForging, func(o *Options) { o.Services["mx"].Dialer.Origins = []netip.AddrPort{origin} })
	counts := map[string]int{}
	for range b.N {
		l := &liar{after: rand.N(3 * delay), stray: make(chan time.Time, 1), missed: make(chan bool, 1)}
		go l.serve(b, ln)
		c := g.open()
		if err := c.Envelope(mail); err != nil {
			b.Fatal(err)
		}
		c.Write(mail.Content)
		time.Sleep(2 * delay)
		c.Write(".\r\n")
		reply, _ := c.Reply()
		c.conn.Close()
		g.empty()
		<-l.stray
		switch {
		case reply.Code == 451: // the look ahead of the write has found it
			counts["told"]++
		case <-l.missed:
			counts["late"]++
		default:
			counts["crossing"]++
			if reply.Code == 250 {
				counts["counted"]++
			}
		}
	}
	for name, n := range counts {
		b.ReportMetric(float64(n)/float64(b.N), name+"/op")
	}
}

func (l *liar) serve(b *testing.B, ln net.Listener) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "220 mx\r\n")
	in := bufio.NewReader(conn)
	if !obey(in, conn, "content") {
		b.Error("no content came")
	}
	for {
		l, _ := in.ReadString('\n')
		if strings.HasPrefix(l, "Hello") {
			break
		}
	}
	for end := time.Now().Add(l.after); time.Now().Before(end); {
	}
	raw, _ := conn.(*net.TCPConn).SyscallConn()
	var there int
	raw.Control(func(fd uintptr) { there, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	io.WriteString(conn, "250 stray\r\n")
	l.missed <- there > 0 || in.Buffered() > 0
	l.stray <- time.Now()
	in.ReadString('\n')
	io.WriteString(conn, "550 refused\r\n")
	io.Copy(io.Discard, conn)
}

// line makes 10.91.0.2 this machine, with a delay: packets for it come back from
// it, since both addresses are exchanged, which leaves checksums as they are.
func line(b *testing.B, delay time.Duration) {
	b.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	request, err := unix.NewIfreq("line0")
	if err != nil {
		b.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		b.Fatal(err)
	}
	tun := os.NewFile(uintptr(fd), "line0") // now, or the poller would wait for a device that is none
	b.Cleanup(func() { tun.Close() })
	for _, args := range []string{"addr add 10.91.0.1/24 dev line0", "link set line0 up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			b.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	type packet struct {
		octets []byte
		due    time.Time
	}
	way := make(chan packet, 10000)
	go func() {
		defer close(way)
		for {
			p := make([]byte, 2000)
			n, err := tun.Read(p)
			if err != nil {
				return
			}
			if n < 20 || p[0]>>4 != 4 {
				continue
			}
			source, destination := [4]byte(p[12:16]), [4]byte(p[16:20])
			copy(p[12:16], destination[:])
			copy(p[16:20], source[:])
			way <- packet{p[:n], time.Now().Add(delay)}
		}
	}()
	go func() {
		for p := range way {
			for time.Now().Before(p.due) {
				time.Sleep(50 * time.Microsecond)
			}
			tun.Write(p.octets)
		}
	}()
}
