// Package ends is the two ends of the benchmark's mail where Postfix's
// smtp-source and smtp-sink cannot say what is to be measured: a client that
// pipelines, holds sessions open or times each reply, and an origin that takes
// everything and looks at next to nothing.
//
// It owns two programs, which run as processes of their own in a network
// namespace: the executable that calls Main is started again by Command. It
// shares no code with the product, and never judges what it measures. Package
// bench uses it.
package ends

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// role is the name of the variable that tells a process which end it is.
const role = "PORTREEVE_BENCH_END"

// The ends.
const (
	Client   = "client"   // carries out orders of its standard input
	Origin   = "origin"   // listens on the address that is its only argument
	Secure   = "secure"   // is an origin inside TLS, from the first octet on
	StartTLS = "starttls" // is an origin that offers STARTTLS
)

// Environ returns the environment for a process that is to be an end: of this
// very executable, with the arguments of the end.
func Environ(end string) []string { return append(os.Environ(), role+"="+end) }

// Main takes over a process that was started to be an end, and does not return
// then. It returns at once in every other process. Call it first.
func Main() {
	end := os.Getenv(role)
	if end == "" {
		return
	}
	if err := run(end, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", end, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(end string, args []string) error {
	switch {
	case end == Client && len(args) == 0:
		return obey(os.Stdin, os.Stdout)
	case (end == Origin || end == Secure || end == StartTLS) && len(args) == 1:
		at, err := netip.ParseAddrPort(args[0])
		if err != nil {
			return err
		}
		return serveAt(at, end)
	}
	return errors.New("usage: client, or origin, secure or starttls ADDRESS:PORT")
}

// Order is one thing that a client is told to do. All sessions of an order say
// the same.
type Order struct {
	To        netip.AddrPort
	Sources   []netip.Addr // taken in turns; none: the kernel's choice
	Sessions  int
	Parallel  int
	Messages  int  // in each session
	Octets    int  // of each message, with headers
	Pipelined bool // MAIL, RCPT and DATA in one write, and QUIT behind the last message
	Secure    bool // inside TLS, from the first octet on, whoever the server is
	StartTLS  bool // EHLO, STARTTLS, and inside TLS from then on, whoever the server is
	Hold      bool // stop after EHLO and keep the sessions, until the next order
	Timed     bool // tell how long each step took; only where Messages is 1, nothing is pipelined and TLS not begun
	Connect   bool // say nothing: connect, one after the other, end it at once, and tell how long each connect(2) took
}

// Report is what became of an order.
type Report struct {
	Failure  string          // empty: every session went as it should
	Times    []Times         // of each session, where they were asked for
	Connects []time.Duration // of each connection, where nothing else was asked for
}

// Step is a part of a session that ends with a reply.
type Step int

// The steps of a session with one message.
const (
	Greeting Step = iota // with the connection's set-up
	EHLO
	MAIL
	RCPT
	DATA
	Content
	QUIT
	Steps int = iota
)

// String returns the step's name.
func (s Step) String() string {
	return [Steps]string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "content", "QUIT"}[s]
}

// Times are how long the steps of one session took.
type Times [Steps]time.Duration

// Whole returns the time of the whole session.
func (t Times) Whole() (sum time.Duration) {
	for _, d := range t {
		sum += d
	}
	return sum
}

// obey carries out orders, a line of JSON each, and answers each with a line,
// until there are no more.
func obey(in io.Reader, out io.Writer) error {
	orders, reports := json.NewDecoder(in), bufio.NewWriter(out)
	c := &client{}
	defer c.release()
	for {
		var o Order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := json.NewEncoder(reports).Encode(c.carryOut(o)); err != nil {
			return err
		}
		if err := reports.Flush(); err != nil {
			return err
		}
	}
}
