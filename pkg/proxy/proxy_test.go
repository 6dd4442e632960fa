package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"
)

const sig2 = "\r\n\r\n\x00\r\nQUIT\n"

var (
	tcp4 = sig2 + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x00\x19"
	tcp6 = sig2 + "\x21\x21\x00\x24" + "\x20\x01\x0d\xb8" + zeros(11) + "\x07" + "\x20\x01\x0d\xb8" + zeros(11) + "\x01" + "\xc8\x22\x00\x19"
)

func zeros(n int) string { return strings.Repeat("\x00", n) }

// headers are what Read takes, with the client that each names.
var headers = map[string]string{
	"PROXY TCP4 192.0.2.7 198.51.100.1 51234 25\r\n":               "192.0.2.7:51234",
	"PROXY TCP6 2001:db8::7 2001:db8::1 51234 25\r\n":              "[2001:db8::7]:51234",
	"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 25\r\n": "192.0.2.7:51234",
	"PROXY UNKNOWN\r\n": "",
	"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n": "",
	tcp4: "192.0.2.7:51234",
	tcp6: "[2001:db8::7]:51234",
	sig2 + "\x21\x21\x00\x24" + zeros(10) + "\xff\xff\xc0\x00\x02\x07" + zeros(10) + "\xff\xff\xc6\x33\x64\x01" + "\xc8\x22\x00\x19": "192.0.2.7:51234",
	sig2 + "\x21\x11\x00\x13" + tcp4[16:] + "\x04\x00\x04abcd":                                                                       "192.0.2.7:51234", // with an extension
	sig2 + "\x20\x00\x00\x00":               "", // LOCAL
	sig2 + "\x20\x11\x00\x00":               "",
	sig2 + "\x20\x11\x00\x0c" + zeros(12):   "",
	sig2 + "\x20\x00\x10\x00" + zeros(4096): "",
}

// early is what a client may send behind the header before it is its turn.
const early = "EHLO early\r\n"

func TestRead(t *testing.T) {
	for in, want := range headers {
		for name, slow := range map[string]func(io.Reader) io.Reader{"at once": same, "octet by octet": iotest.OneByteReader, "by halves": iotest.HalfReader} {
			rest := strings.NewReader(in + early)
			got, err := Read(slow(rest))
			if err != nil || got.IsValid() != (want != "") || got.IsValid() && got.String() != want {
				t.Errorf("%q %s: %v, %v; want %s", in, name, got, err, want)
			}
			if left, _ := io.ReadAll(rest); string(left) != early {
				t.Errorf("%q %s: %q is left of what follows", in, name, left)
			}
		}
	}
}

func same(r io.Reader) io.Reader { return r }

func TestReadRefuses(t *testing.T) {
	for in, want := range map[string]error{
		early + "MAIL FROM:<a@b>\r\n":                                ErrNone,
		"proxy TCP4 192.0.2.7 198.51.100.1 51234 25\r\n":             ErrNone,
		"\r\n\r\n\x00\r\nQUIT\r" + zeros(30):                         ErrNone,
		"PROXYTCP4 192.0.2.7 198.51.100.1 51234 25\r\n":              ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 51234 25\n" + early:       ErrBroken,
		"PROXY TCP4 192.0.2.7\n198.51.100.1 51234 25\r\n":            ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 51234 25 6\r\n":           ErrBroken,
		"PROXY TCP4 192.0.2.7  198.51.100.1 51234 25\r\n":            ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 0 25\r\n":                 ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 051 25\r\n":               ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n":             ErrBroken,
		"PROXY TCP4 2001:db8::7 2001:db8::1 51234 25\r\n":            ErrBroken,
		"PROXY TCP6 192.0.2.7 198.51.100.1 51234 25\r\n":             ErrBroken,
		"PROXY TCP6 fe80::1%eth0 2001:db8::1 51234 25\r\n":           ErrBroken,
		"PROXY TCP6 fe80::1 2001:db8::1 51234 25\r\n":                ErrBroken,
		"PROXY TCP4 0.0.0.0 198.51.100.1 51234 25\r\n":               ErrBroken,
		"PROXY TCP4 0.1.2.3 198.51.100.1 51234 25\r\n":               ErrBroken,
		"PROXY TCP4 127.0.0.1 198.51.100.1 51234 25\r\n":             ErrBroken,
		"PROXY TCP4 127.9.9.9 198.51.100.1 51234 25\r\n":             ErrBroken,
		"PROXY TCP6 ::1 2001:db8::1 51234 25\r\n":                    ErrBroken,
		"PROXY TCP6 ::ffff:127.0.0.1 2001:db8::1 51234 25\r\n":       ErrBroken,
		sig2 + "\x21\x11\x00\x0c\x7f\x00\x00\x01" + tcp4[20:]:        ErrBroken,
		"PROXY TCP4 224.0.0.1 198.51.100.1 51234 25\r\n":             ErrBroken,
		"PROXY TCP4 255.255.255.255 198.51.100.1 51234 25\r\n":       ErrBroken,
		"PROXY UDP4 192.0.2.7 198.51.100.1 51234 25\r\n":             ErrBroken,
		"PROXY TCP4 192.0.2.7 198.51.100.1 51234 25":                 ErrBroken, // and then the end
		"PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n":         ErrBroken,
		"PROXY UNKNOWN " + strings.Repeat("x", longest1-15) + "\r\n": ErrBroken, // an octet too long
		tcp4[:len(tcp4)-1]:                                             ErrBroken,
		tcp4[:14]:                                                      ErrBroken,
		sig2 + "\x11\x11\x00\x0c" + tcp4[16:]:                          ErrBroken, // version 1
		sig2 + "\x22\x11\x00\x0c" + tcp4[16:]:                          ErrBroken, // neither LOCAL nor PROXY
		sig2 + "\x21\x00\x00\x00":                                      ErrBroken, // nobody's address
		sig2 + "\x21\x12\x00\x0c" + tcp4[16:]:                          ErrBroken, // UDP
		sig2 + "\x21\x31\x00\xd8" + zeros(216):                         ErrBroken, // a UNIX socket
		sig2 + "\x21\x13\x00\x0c" + tcp4[16:]:                          ErrBroken, // a family that there is not
		sig2 + "\x21\x11\x00\x0b" + tcp4[16:27]:                        ErrBroken, // an address too short
		sig2 + "\x21\x11\x00\x0c" + zeros(12):                          ErrBroken,
		sig2 + "\x21\x11\x10\x01" + tcp4[16:] + zeros(5000):            ErrBroken, // more than anybody needs
		sig2 + "\x21\x21\x00\x24" + zeros(10) + "\xff\xff" + zeros(24): ErrBroken,
	} {
		got, err := Read(strings.NewReader(in))
		if !errors.Is(err, want) || got.IsValid() {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

// TestReadPassesErrorsOn: what the connection says is neither no header nor a
// broken one.
func TestReadPassesErrorsOn(t *testing.T) {
	for _, in := range []string{"", "PROX", tcp4[:20]} {
		_, err := Read(io.MultiReader(strings.NewReader(in), iotest.ErrReader(os.ErrDeadlineExceeded)))
		if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrBroken) {
			t.Errorf("silence after %q: %v", in, err)
		}
	}
	if _, err := Read(strings.NewReader("")); err != io.EOF {
		t.Errorf("the end at once: %v", err)
	}
}

// FuzzRead: whatever comes, Read takes from it what the library takes for a
// header, and not an octet more; how it was cut does not show.
func FuzzRead(f *testing.F) {
	for in := range headers {
		f.Add([]byte(in + early))
	}
	f.Add([]byte(early + early))
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 51234 25\n" + early))
	f.Fuzz(func(t *testing.T, in []byte) {
		rest := bytes.NewReader(in)
		got, err := Read(rest)
		again, err2 := Read(iotest.OneByteReader(bytes.NewReader(in)))
		if got != again || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %v, %v; octet by octet %v, %v", in, got, err, again, err2)
		}
		if err != nil {
			return
		}
		taken := in[:len(in)-rest.Len()]
		h, err := reference(taken)
		if err != nil {
			t.Fatalf("%q was taken, which is no header: %v", taken, err)
		}
		if got.IsValid() && (h.SourceAddr.String() != got.String() || !possible(got)) {
			t.Fatalf("%q: %v, not %v", taken, got, h.SourceAddr)
		}
		if got == (netip.AddrPort{}) && h.Command != proxyproto.LOCAL {
			t.Fatalf("%q names nobody", taken)
		}
		for n := range len(taken) {
			if _, err := Read(bytes.NewReader(taken[:n])); err == nil {
				t.Fatalf("%q was taken, of which %q is enough", taken, taken[:n])
			}
		}
	})
}

// reference reads exactly one header with the library.
func reference(in []byte) (*proxyproto.Header, error) {
	r := bytes.NewReader(in)
	b := bufio.NewReaderSize(r, 1<<16)
	h, err := proxyproto.Read(b)
	if err == nil && b.Buffered()+r.Len() > 0 {
		err = errors.New("octets are left")
	}
	return h, err
}
