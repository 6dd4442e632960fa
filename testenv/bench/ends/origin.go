package ends

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/portreeve/portreeve/testenv/pki"
)

// blockSize is what an origin reads at once: with less it would be the origin's
// system calls that large bodies measure.
const blockSize = 256 << 10

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// serveAt takes mail at an address as one of the origins, until the process is ended.
func serveAt(at netip.AddrPort, end string) error {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return err
	}
	switch end {
	case Secure:
		return serve(tls.NewListener(listener, newIdentity()), nil)
	case StartTLS:
		return serve(listener, newIdentity())
	}
	return serve(listener, nil)
}

// newIdentity makes an origin's certificate.
func newIdentity() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{pki.New("origin").Issue([]string{"origin.example.org"}).TLS()}}
}

// serve takes mail from a listener until that is closed. Where there is an offer,
// clients may begin TLS.
func serve(listener net.Listener, offer *tls.Config) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			o := origin{conn: conn, offer: offer, in: make([]byte, 0, 1024)}
			err := o.converse() // the client sees how it ended
			if _, secure := o.conn.(*tls.Conn); secure && err == nil {
				o.conn.SetDeadline(time.Now().Add(time.Second))
				io.Copy(io.Discard, o.conn) // nginx loses what comes right before an end
			}
			o.conn.Close()
		}()
	}
}

// origin is one session of an origin.
type origin struct {
	conn  net.Conn
	offer *tls.Config // of STARTTLS; nil: none
	in    []byte      // read and not yet used: commands
	out   []byte      // replies to be sent
}

const (
	greeting  = "220 origin.example.org ESMTP\r\n"
	ehloLines = "250-origin.example.org\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n"
	ehloLast  = "250 ENHANCEDSTATUSCODES\r\n"
	ehloReply = ehloLines + ehloLast
	ehloOffer = ehloLines + "250-STARTTLS\r\n" + ehloLast
	okReply   = "250 2.0.0 Ok\r\n"
	ready     = "220 2.0.0 Ready to start TLS\r\n"
	goAhead   = "354 End data with <CR><LF>.<CR><LF>\r\n"
	bye       = "221 2.0.0 Bye\r\n"
	unknown   = "502 5.5.1 Unknown command\r\n"
)

// converse greets and answers until the client has left.
func (o *origin) converse() error {
	o.out = append(o.out, greeting...)
	for {
		if err := o.flush(); err != nil {
			return err
		}
		n, err := o.conn.Read(o.in[len(o.in):cap(o.in)])
		if err != nil {
			return err
		}
		o.in = o.in[:len(o.in)+n]
		for over, more := false, true; more; {
			if over, more, err = o.command(); over || err != nil {
				return err
			}
		}
	}
}

// command answers the first command of what was read. more says that there was
// one, over that it was the last.
func (o *origin) command() (over, more bool, err error) {
	line, rest, ok := bytes.Cut(o.in, []byte("\r\n"))
	if !ok {
		return len(o.in) == cap(o.in), false, nil
	}
	reply := o.reply(line)
	o.out = append(o.out, reply...)
	o.in = o.in[:copy(o.in, rest)]
	switch reply {
	case ready:
		err = o.startTLS()
	case goAhead:
		err = o.content()
	case bye:
		return true, false, o.flush()
	}
	return false, true, err
}

func (o *origin) reply(line []byte) string {
	switch verb, _, _ := bytes.Cut(line, []byte(" ")); string(verb) {
	case "EHLO":
		if o.offer != nil {
			return ehloOffer
		}
		return ehloReply
	case "STARTTLS":
		if o.offer != nil {
			return ready
		}
	case "HELO", "MAIL", "RCPT", "RSET", "NOOP":
		return okReply
	case "DATA":
		return goAhead
	case "QUIT":
		return bye
	}
	return unknown
}

// startTLS goes on inside TLS, and forgets what the client has said too early.
func (o *origin) startTLS() error {
	if err := o.flush(); err != nil {
		return err
	}
	inside := tls.Server(o.conn, o.offer)
	o.conn, o.offer, o.in = inside, nil, o.in[:0]
	return inside.Handshake()
}

const endOfData = "\r\n.\r\n"

// behind bounds the end of data together with what our client sends behind it
// before it waits for a reply. So it is enough to look for it in the last octets
// of each read; to look everywhere would cost more than the reading.
const behind = 512

// content reads a message, and keeps what follows it. The CRLF of DATA counts: an
// empty message ends at once.
func (o *origin) content() error {
	if err := o.flush(); err != nil {
		return err
	}
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	filled := copy(block[:], "\r\n")
	filled += copy(block[filled:], o.in)
	for {
		tail := block[max(0, filled-behind):filled]
		if i := bytes.Index(tail, []byte(endOfData)); i >= 0 {
			o.in = append(o.in[:0], tail[i+len(endOfData):]...)
			o.out = append(o.out, okReply...)
			return nil
		}
		filled = copy(block[:], tail)
		n, err := o.conn.Read(block[filled:])
		if err != nil {
			return err
		}
		filled += n
	}
}

// flush sends the replies.
func (o *origin) flush() error {
	if len(o.out) == 0 {
		return nil
	}
	n, err := o.conn.Write(o.out)
	if n < len(o.out) && err == nil {
		err = io.ErrShortWrite
	}
	o.out = o.out[:0]
	return err
}
