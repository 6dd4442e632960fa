package smtp

import (
	"bytes"
	"strings"
	"testing"
)

func TestSayable(t *testing.T) {
	for in, want := range map[string]string{
		"EHLO a b":                               "EHLO a b",
		"EHLO c\r\nMAIL FROM:<a@b> SIZE=1\r\n":   "EHLO c\r\nMAIL FROM:<a@b> SIZE=1\r\n",
		"MAIL FROM:<a@b.> AUTH=<>":               "MAIL FROM:<a@b.> AUTH=<>",
		"auth plain AGEAYg==":                    "auth plain ...",
		"AUTH  PLAIN  AGEAYg==\r\n":              "AUTH PLAIN ...\r\n",
		"AUTH LOGIN":                             "AUTH LOGIN",
		"AUTH AGEAYg==":                          "AUTH ...",
		"AUTH":                                   "AUTH",
		"AUTH LOGIN\r\nbob\r\nhunter\r\n":        "AUTH LOGIN\r\n...\r\n...\r\n",
		"EHLO c\r\nAUTH PLAIN AGEAYg==\r\nNOOP":  "EHLO c\r\nAUTH PLAIN ...\r\nNOOP",
		"AUHT PLAIN AGEAYg==":                    "AUHT ...",
		"AGEAYg==":                               "...",
		"hello there":                            "hello ...",
		"X-EXPS NTLM TlRMTVNT":                   "X-EXPS ...",
		"BURL imap://a:b@c":                      "BURL ...",
		"PROXY TCP4 192.0.2.7 10.0.0.1 4 25\r\n": "PROXY TCP4 192.0.2.7 10.0.0.1 4 25\r\n",
		"POST /mail?user=bob&password=x HTTP/1.1\r\nAuthorization: Basic eA==\r\n\r\npassword=x": "POST ...",
		"GET / HTTP/1.1":                     "GET ...",
		"CONNECT bob:x@mx:25 HTTP/1.1":       "CONNECT ...",
		"Authorization: Basic eA==":          "Authorization: ...",
		"\x16\x03\x01\x02\nAUTH":             "\x16\x03\x01\x02\nAUTH",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11abcd": "\r\n\r\n\x00\r\nQUIT\n\x21\x11abcd",
		"\r\nAUTH PLAIN AGEAYg==\r\n":        "\r\nAUTH PLAIN ...\r\n",
		"\x01AUTH PLAIN AGEAYg==":            "...",
		"AUTH PLAIN AGEAYg==\nfoo":           "AUTH PLAIN ...\n...",
		"":                                   "",
		"EHLO c\rAUTH PLAIN AGEAYg==\r\n":    "EHLO c\rAUTH PLAIN ...\r\n",
		"NOOP x\rAUTH LOGIN\rYm9i\rc2VjcmV0": "NOOP x\rAUTH LOGIN\r...\r...",
		"EHLO c\x00AUTH PLAIN AGEAYg==":      "EHLO c\x00AUTH PLAIN ...",
		"PROXY x\rAUTH PLAIN AGEAYg==":       "PROXY x\rAUTH PLAIN ...",
	} {
		if got := string(AppendSayable(nil, []byte(in), false)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"hunter\r\nQUIT": "...\r\nQUIT", "hunter2:": "...", "DATA my secret": "DATA ...", "EXPN secret": "EXPN ...", "GET secret": "...",
		"MAIL FROM:<a@b.>": "MAIL FROM:<a@b.>", "EHLO a b": "EHLO a b",
	} {
		if got := string(AppendSayable(nil, []byte(in), true)); got != want {
			t.Errorf("%q behind AUTH became %q, want %q", in, got, want)
		}
	}
}

// FuzzSayable: what stands behind AUTH and its mechanism is never said, wherever
// that stands.
func FuzzSayable(f *testing.F) {
	f.Add([]byte("EHLO c\r\n"), []byte("plain"))
	f.Add([]byte("POST / HTTP/1.1\r\n"), []byte("LOGIN"))
	f.Add([]byte(""), []byte("x y"))
	f.Fuzz(func(t *testing.T, before, mechanism []byte) {
		const secret = "c2VjcmV0UGFzc3dvcmQh"
		if bytes.HasPrefix(before, handshake) || bytes.HasPrefix(before, proxy2) || bytes.ContainsAny(mechanism, "\r\n\x00") {
			return
		}
		in := append(bytes.Clone(before), "\r\n\x00"[len(mechanism)%3])
		in = append(append(append(in, "AUTH "...), mechanism...), " "+secret+"\r\n"+secret+"\r\n"...)
		out := string(AppendSayable(nil, in, false))
		if strings.Contains(out, secret) {
			t.Fatalf("%q became %q", in, out)
		}
		if again := string(AppendSayable(nil, []byte(out), false)); len(again) > len(out)+8 {
			t.Fatalf("%q became %q, and that %q", in, out, again)
		}
	})
}
