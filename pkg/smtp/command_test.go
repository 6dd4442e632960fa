package smtp

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

var everything = Extensions(1<<extensions - 1)

// TestCommands: what we write for what we read.
func TestCommands(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"ehlo client.example", "EHLO client.example"},
		{"HELO [192.0.2.1]", "HELO [192.0.2.1]"},
		{"EHLO [IPv6:2001:db8::1]  ", "EHLO [IPv6:2001:db8::1]"},
		{"MAIL FROM:<>", "MAIL FROM:<>"},
		{"mail from: <a@b>", "MAIL FROM:<a@b>"},
		{"MAIL FROM:<a@b> SIZE=0123 ", "MAIL FROM:<a@b> SIZE=123"},
		{"MAIL FROM:<a@b>  BODY=8bitmime  SMTPUTF8", "MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8"},
		{"MAIL FROM:<a@b> BODY=7BIT RET=hdrs ENVID=QQ+2B1", "MAIL FROM:<a@b> BODY=7BIT RET=HDRS ENVID=QQ+2B1"},
		{"MAIL FROM:<a@b> AUTH=<> BODY=BINARYMIME", "MAIL FROM:<a@b> AUTH=<> BODY=BINARYMIME"},
		{"MAIL FROM:<a@b> BY=-120;RT MT-PRIORITY=-4", "MAIL FROM:<a@b> BY=-120;RT MT-PRIORITY=-4"},
		{"MAIL FROM:<a@b> HOLDFOR=60 REQUIRETLS", "MAIL FROM:<a@b> HOLDFOR=60 REQUIRETLS"},
		{"MAIL FROM:<a@b> HOLDUNTIL=2026-11-22T18:09:00Z", "MAIL FROM:<a@b> HOLDUNTIL=2026-11-22T18:09:00Z"},
		{"MAIL FROM:<@h1.example,@h2:a@b>", "MAIL FROM:<a@b>"},
		{`MAIL FROM:<"a b"@c>`, `MAIL FROM:<"a b"@c>`},
		{`MAIL FROM:<"a\b\"\\>"@c>`, `MAIL FROM:<"ab\"\\>"@c>`},
		{`MAIL FROM:<""@c>`, `MAIL FROM:<""@c>`},
		{"MAIL FROM:<a..b.@docomo.example>", "MAIL FROM:<a..b.@docomo.example>"},
		{"MAIL FROM:<a%b!c+d=e@f_g.example>", "MAIL FROM:<a%b!c+d=e@f_g.example>"},
		{"MAIL FROM:<jö@exämple> SMTPUTF8", "MAIL FROM:<jö@exämple> SMTPUTF8"},
		{"RCPT TO:<Postmaster>", "RCPT TO:<Postmaster>"},
		{"RCPT TO:<a@[192.0.2.255]>", "RCPT TO:<a@[192.0.2.255]>"},
		{"RCPT TO:<a@[ipv6:::1]>", "RCPT TO:<a@[ipv6:::1]>"},
		{"RCPT TO:<a@b> NOTIFY=delay,SUCCESS ORCPT=rfc822;a+2Bb@c", "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c"},
		{"RCPT TO:<a@b> NOTIFY=never", "RCPT TO:<a@b> NOTIFY=NEVER"},
		{"RCPT TO:<jö@b> ORCPT=utf-8;jö@b", "RCPT TO:<jö@b> ORCPT=utf-8;jö@b"},
		{"data", "DATA"},
		{"RSET ", "RSET"},
		{"NOOP hello", "NOOP hello"},
		{"QUIT", "QUIT"},
		{"BDAT 0", "BDAT 0"},
		{"bdat 9999999999 last", "BDAT 9999999999 LAST"},
		{"VRFY a", "VRFY a"},
		{"STARTTLS", "STARTTLS"},
		{"auth plain", "AUTH PLAIN"},
		{"AUTH LOGIN =", "AUTH LOGIN ="},
		{"AUTH scram-sha-256 AGEAYg==", "AUTH SCRAM-SHA-256 AGEAYg=="},
		{"AUTH   PLAIN   AGEAYg==  ", "AUTH PLAIN AGEAYg=="},
		{"AUTH PLAIN  =", "AUTH PLAIN ="},
		{"EHLO Z170-D3H Gentoo", "EHLO Z170-D3H Gentoo"},
		{"HELO  [10.0.0.1]  my   printer ", "HELO [10.0.0.1] my printer"},
		{`EHLO "bob's (old) PC" <a@b>`, `EHLO "bob's (old) PC" <a@b>`},
		{"EHLO bücher.example", "EHLO bücher.example"},
		{"MAIL FROM:<a@b> ENVID=QUJD==", "MAIL FROM:<a@b> ENVID=QUJD+3D+3D"},
		{"MAIL FROM:<a@b> ENVID=a+2b+4D+2", "MAIL FROM:<a@b> ENVID=a+2B+4D+2B2"},
		{"MAIL FROM:<a@b> ENVID=a+0D+0Ab+7F+7f", "MAIL FROM:<a@b> ENVID=a+2B0D+2B0Ab+2B7F+2B7f"},
		{"MAIL FROM:<a@b> AUTH=bounce+12-c=d@e", "MAIL FROM:<a@b> AUTH=bounce+2B12-c+3Dd@e"},
		{"RCPT TO:<a@b> ORCPT=rfc822;SRS0=x+42=b@c", "RCPT TO:<a@b> ORCPT=rfc822;SRS0+3Dx+2B42+3Db@c"},
		{"RCPT TO:<a@b> ORCPT=rfc822;bob+tag@c", "RCPT TO:<a@b> ORCPT=rfc822;bob+2Btag@c"},
		{"MAIL FROM:<a@b> SIZE=1 AUTH=", "MAIL FROM:<a@b> SIZE=1 AUTH=<>"},
		{"MAIL FROM:<a@b> ENVID=a+C3+B6", "MAIL FROM:<a@b> ENVID=a+C3+B6"},
		{"MAIL FROM:<a@b> ENVID=a+C2+85+41", "MAIL FROM:<a@b> ENVID=a+2BC2+2B85+2B41"},
		{"MAIL FROM:<a@b> ENVID=a+FF", "MAIL FROM:<a@b> ENVID=a+2BFF"},
		{"RCPT TO:<a@b> ORCPT=rfc822;bob+", "RCPT TO:<a@b> ORCPT=rfc822;bob+2B"},
		{"etrn @example.com", "ETRN @example.com"},
		{"ETRN #queue_1", "ETRN #queue_1"},
	} {
		var cmd Command
		if r := cmd.Parse([]byte(c.in), Grammar{Offered: everything, UTF8: true}); r != nil {
			t.Errorf("%s: %v", c.in, r)
			continue
		}
		if got := string(cmd.AppendTo(nil)); got != c.out+"\r\n" {
			t.Errorf("%s: got %q", c.in, got)
		}
	}
}

// TestBadCommands: what is refused, and how.
func TestBadCommands(t *testing.T) {
	for _, c := range []struct{ in, reply string }{
		{"", "500 5.5.1"},
		{" NOOP", "500 5.5.1"},
		{"NOOP\tx", "500 5.5.2"},
		{"NOOP \x1b[2J", "500 5.5.2"},
		{"NOOP \x7f", "500 5.5.2"},
		{"NOOP \xff", "500 5.5.2"},
		{"M1AIL FROM:<a@b>", "500 5.5.1"},
		{"MAILFROM:<a@b>", "500 5.5.1"},
		{"VERYLONGUNKNOWNVERB", "500 5.5.1"},
		{"EHLO", "501 5.5.4"},
		{"EHLO a\xff", "500 5.5.2"},
		{"EHLO a\xc2\x85b", "500 5.5.2"},
		{"EHLO a\xe2\x80\xa8b", "500 5.5.2"},
		{"EHLO a\tb", "500 5.5.2"},
		{"HELO " + strings.Repeat("a", 256), "501 5.5.4"},
		{"MAIL", "501 5.5.4"},
		{"MAIL <a@b>", "501 5.5.4"},
		{"MAIL FROM <a@b>", "501 5.5.4"},
		{"MAIL FROM:", "501 5.1.7"},
		{"MAIL FROM:a@b", "501 5.1.7"},
		{"MAIL FROM:<a@b", "501 5.1.7"},
		{"MAIL FROM:<a@b>SIZE=1", "501 5.1.7"},
		{"MAIL FROM:<a@b>x", "501 5.1.7"},
		{"MAIL FROM:<<a@b>>", "501 5.1.7"},
		{"MAIL FROM:<a b@c>", "501 5.1.7"},
		{"MAIL FROM:<a@>", "501 5.1.7"},
		{"MAIL FROM:<@b>", "501 5.1.7"},
		{"MAIL FROM:<@b:>", "501 5.1.7"},
		{"MAIL FROM:<@b,a@c>", "501 5.1.7"},
		{"MAIL FROM:<a@b.>", "501 5.1.7"},
		{"MAIL FROM:<a@b..c>", "501 5.1.7"},
		{"MAIL FROM:<a@b@c>", "501 5.1.7"},
		{`MAIL FROM:<"a@b>`, "501 5.1.7"},
		{`MAIL FROM:<"a"b@c>`, "501 5.1.7"},
		{`MAIL FROM:<"a\`, "501 5.1.7"},
		{"MAIL FROM:<a@[1.2.3]>", "501 5.1.7"},
		{"MAIL FROM:<a@[1.2.3.256]>", "501 5.1.7"},
		{"MAIL FROM:<a@[1.2.3.04]>", "501 5.1.7"},
		{"MAIL FROM:<a@[1.2.3.4>", "501 5.1.7"},
		{"MAIL FROM:<a@[IPv6:1.2.3.4]>", "501 5.1.7"},
		{"MAIL FROM:<a@[IPv6:fe80::1%eth0]>", "501 5.1.7"},
		{"MAIL FROM:<a@[x:y]>", "501 5.1.7"},
		{"MAIL FROM:<" + strings.Repeat("a", 256) + "@b>", "501 5.1.7"},
		{"MAIL FROM:<a@" + strings.Repeat("b", 256) + ">", "501 5.1.7"},
		{"MAIL FROM:<j\xc3\xb6@b>", "553 5.6.7"},
		{"MAIL FROM:<j\xff@b> SMTPUTF8", "501 5.1.7"},
		{"MAIL FROM:<j\xc2\x85@b> SMTPUTF8", "501 5.1.7"},
		{"MAIL FROM:<j\xe2\x80\xa8@b> SMTPUTF8", "501 5.1.7"},
		{"MAIL FROM:<j\xc0\xae@b> SMTPUTF8", "501 5.1.7"},
		{"MAIL FROM:<a@b> SIZE", "501 5.5.4"},
		{"MAIL FROM:<a@b> SIZE=", "501 5.5.4"},
		{"MAIL FROM:<a@b> SIZE=+1", "501 5.5.4"},
		{"MAIL FROM:<a@b> SIZE=99999999999999999999", "501 5.5.4"},
		{"MAIL FROM:<a@b> SIZE=1 SIZE=9", "501 5.5.4"},
		{"MAIL FROM:<a@b> SMTPUTF8=1", "501 5.5.4"},
		{"MAIL FROM:<a@b> BODY=9BIT", "501 5.5.4"},
		{"MAIL FROM:<a@b> =x", "501 5.5.4"},
		{"MAIL FROM:<a@b> FOO=BAR", "555 5.5.4"},
		{"MAIL FROM:<a@b> NOTIFY=NEVER", "555 5.5.4"},
		{"MAIL FROM:<a@b> ENVID=", "501 5.5.4"},
		{"MAIL FROM:<a@b> ENVID=a\xc3\xb6", "501 5.5.4"},
		{"RCPT TO:<a@b> ORCPT=rfc822;", "501 5.5.4"},
		{"MAIL FROM:<a@b> BY=1", "501 5.5.4"},
		{"MAIL FROM:<a@b> BY=1;X", "501 5.5.4"},
		{"MAIL FROM:<a@b> MT-PRIORITY=10", "501 5.5.4"},
		{"MAIL FROM:<a@b> HOLDFOR=1 HOLDUNTIL=2026-11-22T18:09:00Z", "501 5.5.4"},
		{"RCPT TO:<>", "501 5.1.3"},
		{"RCPT TO:a", "501 5.1.3"},
		{"RCPT FROM:<a@b>", "501 5.5.4"},
		{"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "501 5.5.4"},
		{"RCPT TO:<a@b> NOTIFY=DELAY,DELAY", "501 5.5.4"},
		{"RCPT TO:<a@b> NOTIFY=", "501 5.5.4"},
		{"RCPT TO:<a@b> ORCPT=a@b", "501 5.5.4"},
		{"RCPT TO:<a@b> SIZE=1", "555 5.5.4"},
		{"DATA x", "501 5.5.4"},
		{"RSET x", "501 5.5.4"},
		{"QUIT x", "501 5.5.4"},
		{"BDAT", "501 5.5.4"},
		{"BDAT -1 LAST", "501 5.5.4"},
		{"BDAT +5 LAST", "501 5.5.4"},
		{"BDAT 5LAST", "501 5.5.4"},
		{"BDAT 5 LASTX", "501 5.5.4"},
		{"BDAT 5 LAST x", "501 5.5.4"},
		{"BDAT 5  LAST", "501 5.5.4"},
		{"BDAT 0x5", "501 5.5.4"},
		{"BDAT 05", "501 5.5.4"},
		{"BDAT 5.0 LAST", "501 5.5.4"},
		{"BDAT 99999999999", "501 5.5.4"},
		{"BDAT 9223372036854775808 LAST", "501 5.5.4"},
		{"BDAT\t5 LAST", "501 5.5.4"},
		{"AUTH", "501 5.5.4"},
		{"AUTH PLAIN AGEAYg= x", "501 5.5.4"},
		{"AUTH PLAIN AGEAYg=", "501 5.5.4"},
		{"AUTH PLAIN A===", "501 5.5.4"},
		{"AUTH PLAIN AG*A", "501 5.5.4"},
		{"AUTH PL!AIN", "501 5.5.4"},
		{"AUTH A23456789012345678901", "501 5.5.4"},
		{"ETRN", "501 5.5.4"},
		{"ETRN a b", "501 5.5.4"},
		{"ETRN @", "501 5.5.4"},
		{"ETRN a;b", "501 5.5.4"},
		{"bdat5", "501 5.5.4"},
	} {
		var cmd Command
		r := cmd.Parse([]byte(c.in), Grammar{Offered: everything})
		if r == nil {
			t.Errorf("%q: taken as %q", c.in, cmd.AppendTo(nil))
		} else if !strings.HasPrefix(r.Error(), c.reply+" ") {
			t.Errorf("%q: got %v, want %s", c.in, r, c.reply)
		}
	}
}

// TestOnlyOfferedParameters: each parameter is refused with 555 in a session
// where its extension was not offered.
func TestOnlyOfferedParameters(t *testing.T) {
	lines := [...]string{
		ParamSize: "SIZE=1", ParamBody: "BODY=8BITMIME", ParamSMTPUTF8: "SMTPUTF8", ParamRet: "RET=FULL", ParamEnvID: "ENVID=a",
		ParamNotify: "NOTIFY=NEVER", ParamORcpt: "ORCPT=rfc822;a", ParamAuth: "AUTH=a", ParamBy: "BY=1;R", ParamMTPriority: "MT-PRIORITY=1",
		ParamHoldFor: "HOLDFOR=1", ParamHoldUntil: "HOLDUNTIL=2026-11-22T18:09:00Z", ParamRequireTLS: "REQUIRETLS",
	}
	if len(lines) != int(params) {
		t.Fatalf("%d parameters are tested, there are %d", len(lines), params)
	}
	for k, text := range lines {
		spec := paramSpecs[k]
		line := []byte("MAIL FROM:<a@b> " + text)
		if spec.verb == RCPT {
			line = []byte("RCPT TO:<a@b> " + text)
		}
		var cmd Command
		if r := cmd.Parse(line, Grammar{Offered: everything}); r != nil {
			t.Errorf("%s with everything offered: %v", line, r)
		}
		if cmd.Params.Extensions() != SetOf(spec.ext) {
			t.Errorf("%s counts as use of %q", line, cmd.Params.Extensions().AppendTo(nil, ' '))
		}
		if r := cmd.Parse(line, Grammar{Offered: everything.Without(spec.ext)}); r != unknownParam {
			t.Errorf("%s without %s: %v", line, spec.ext, r)
		}
	}
	var cmd Command
	if r := cmd.Parse([]byte("MAIL FROM:<a@b> BODY=BINARYMIME"), Grammar{Offered: everything.Without(ExtBinaryMIME)}); r != unknownParam {
		t.Errorf("BODY=BINARYMIME without BINARYMIME: %v", r)
	}
}

// TestGrowth: a line does not become much longer, whatever its author did not encode.
func TestGrowth(t *testing.T) {
	for _, c := range []struct{ value, rest string }{{"=", "00"}, {"+", "zz"}, {"+0A", "00"}} {
		for _, n := range []int{100, 128, 129, 500} {
			line := "MAIL FROM:<a@b> ENVID=" + strings.Repeat(c.value, n/2) + c.rest + " AUTH=" + strings.Repeat(c.value, n/2) + c.rest
			for _, drop := range []bool{true, false} {
				var cmd Command
				r := cmd.Parse([]byte(line), Grammar{Offered: everything, Drop: drop})
				if (r != nil) != (n > 129 && !drop) || r != nil && r != longParam {
					t.Errorf("%d %q, drop %t: %v", n, c.value, drop, r)
				}
				if got := len(cmd.AppendTo(nil)) - len("\r\n"); r == nil && got > len(line)+MaxGrowth {
					t.Errorf("%d %q: %d octets became %d", n, c.value, len(line), got)
				}
				if r == nil && cmd.Params.Dropped(ParamAuth) != (n > 129) {
					t.Errorf("%d %q: dropped %q", n, c.value, cmd.Params.AppendDropped(nil))
				}
			}
		}
	}
}

// TestSparableParameters: without its extension a parameter that can be spared is
// left out, whatever its value, and the others are refused.
func TestSparableParameters(t *testing.T) {
	for line, want := range map[string]string{
		"MAIL FROM:<a@b> AUTH=<>":                             "AUTH=<>",
		"MAIL FROM:<a@b> auth=c+2Bd SIZE=5 body=7bit":         "auth=c+2Bd SIZE=5 body=7bit",
		"MAIL FROM:<a@b> BODY=8BITMIME RET=FULL ENVID=x SIZE": "BODY=8BITMIME RET=FULL ENVID=x SIZE",
		"RCPT TO:<a@b> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a": "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a",
		"RCPT TO:<a@b> NOTIFY=":                               "NOTIFY=",
	} {
		var cmd Command
		bare, _, _ := strings.Cut(line, "> ")
		if r := cmd.Parse([]byte(line), Grammar{Drop: true}); r != nil || string(cmd.AppendTo(nil)) != bare+">\r\n" {
			t.Errorf("%s: %v, became %q", line, r, cmd.AppendTo(nil))
		}
		if got := string(cmd.Params.AppendDropped(nil)); got != want || cmd.Params.Extensions() != 0 {
			t.Errorf("%s: dropped %q, uses %q", line, got, cmd.Params.Extensions().AppendTo(nil, ' '))
		}
		if r := cmd.Parse([]byte(line), Grammar{}); r != unknownParam {
			t.Errorf("%s where nothing is dropped: %v", line, r)
		}
	}
	for _, line := range []string{
		"MAIL FROM:<a@b> BODY=BINARYMIME", "MAIL FROM:<a@b> BODY=9BIT", "MAIL FROM:<a@b> BODY", "MAIL FROM:<a@b> SMTPUTF8", "MAIL FROM:<a@b> REQUIRETLS",
		"MAIL FROM:<a@b> HOLDFOR=1", "MAIL FROM:<a@b> HOLDUNTIL=2026-11-22T18:09:00Z", "MAIL FROM:<a@b> BY=1;R", "MAIL FROM:<a@b> MT-PRIORITY=1",
		"MAIL FROM:<a@b> FOO=BAR", "MAIL FROM:<a@b> NOTIFY=NEVER", "RCPT TO:<a@b> SIZE=1", "RCPT TO:<a@b> AUTH=<>", "MAIL FROM:<j\xc3\xb6@b>",
	} {
		var cmd Command
		if r := cmd.Parse([]byte(line), Grammar{Drop: true}); r == nil {
			t.Errorf("%q was taken as %q", line, cmd.AppendTo(nil))
		}
	}
	var cmd Command
	if r := cmd.Parse([]byte("MAIL FROM:<a@b> SIZE=5 SIZE=6"), Grammar{Drop: true}); r != repeatedParam {
		t.Errorf("twice: %v", r)
	}
	if r := cmd.Parse([]byte("MAIL FROM:<a@b> BODY=8BITMIME SIZE=77"), Grammar{Drop: true}); r != nil || cmd.Params.Number(ParamSize) != 77 || cmd.Params.Number(ParamBody) != Body8BitMIME {
		t.Errorf("%v: size %d, body %d", r, cmd.Params.Number(ParamSize), cmd.Params.Number(ParamBody))
	}
}

func TestVerbs(t *testing.T) {
	for in, want := range map[string]Verb{
		"GET / HTTP/1.1": Foreign, "POST /x": Foreign, "CONNECT a:25": Foreign, "Host: a": Foreign, "PRI * HTTP/2.0": Foreign,
		"XCLIENT ADDR=1": XCLIENT, "xforward a": XFORWARD, "XADR": Obsolete, "TURN": Obsolete, "PROXY TCP4 1 2 3 4": Obsolete,
		"FROB": Unknown, "auth plain x": AUTH, "ETRN a": ETRN, "help": HELP, "Expn x": EXPN, "BDAT\t5": BDAT, "BDAT-5": BDAT, "BDAT 5\t": BDAT, "BDATA 5": Unknown,
	} {
		var cmd Command
		cmd.Parse([]byte(in), Grammar{})
		if cmd.Verb != want {
			t.Errorf("%s: %s, want %s", in, cmd.Verb, want)
		}
	}
}

func TestBareAddress(t *testing.T) {
	var cmd Command
	g := Grammar{Offered: everything, BareAddress: true}
	if r := cmd.Parse([]byte("MAIL FROM:a@b SIZE=1"), g); r != nil || string(cmd.AppendTo(nil)) != "MAIL FROM:<a@b> SIZE=1\r\n" {
		t.Errorf("got %v, %q", r, cmd.AppendTo(nil))
	}
	if r := cmd.Parse([]byte("RCPT TO:a@b>"), g); r != badRecipient {
		t.Errorf("got %v", r)
	}
}

// FuzzCommand: whatever is taken is written as one harmless line that we read
// as the same command.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"EHLO a", "MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME", `RCPT TO:<"a\"b"@[1.2.3.4]> NOTIFY=SUCCESS ORCPT=rfc822;a+2Bb`,
		"BDAT 12 LAST", "MAIL FROM:<@a,@b:c@d> ENVID=+41", "MAIL FROM:<\xc3\xb6@\xc3\xb6> SMTPUTF8", "RCPT TO:<postmaster>",
		"XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:DB8::1 PORT=25 PROTO=esmtp HELO=a+2Bb LOGIN=x DESTADDR=192.0.2.1 DESTPORT=[unavailable]",
		"XFORWARD NAME=c.example ADDR=192.0.2.1 SOURCE=remote IDENT=4B1C+20",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, n, fault := CutLine(append(bytes.Clone(line), "\r\n"...), MaxCommandLine); fault != NoFault || n != len(line)+2 {
			return
		}
		for _, g := range []Grammar{{}, {Drop: true}, {Offered: SetOf(ExtDSN), Drop: true}, {Offered: everything}, {Offered: everything, UTF8: true, BareAddress: true, XClient: XClientAttributes, XForward: XForwardAttributes}} {
			checkCommand(t, line, g)
		}
	})
}

func checkCommand(t *testing.T, line []byte, g Grammar) {
	var cmd, again Command
	if cmd.Parse(line, g) != nil {
		return
	}
	if cmd.Verb == Foreign || cmd.Verb == Obsolete {
		return // never written
	}
	out := cmd.AppendTo(nil)
	text, n, fault := CutLine(out, 3*MaxCommandLine)
	if fault != NoFault || n != len(out) {
		t.Fatalf("%q became %q: %v", line, out, fault)
	}
	for _, c := range text {
		if c < ' ' || c == 0x7F || c >= 0x80 && !g.Offered.Has(ExtSMTPUTF8) && cmd.Verb != EHLO && cmd.Verb != HELO {
			t.Fatalf("%q became %q", line, out)
		}
	}
	if !utf8.Valid(text) {
		t.Fatalf("%q became %q", line, out)
	}
	if r := again.Parse(text, g); r != nil {
		t.Fatalf("%q became %q, which is %v", line, out, r)
	}
	if twice := again.AppendTo(nil); !bytes.Equal(twice, out) {
		t.Fatalf("%q became %q, and that %q", line, out, twice)
	}
}

func BenchmarkCommand(b *testing.B) {
	lines := [][]byte{
		[]byte("EHLO client.example.com"),
		[]byte("MAIL FROM:<alice@client.example.com> SIZE=12345 BODY=8BITMIME"),
		[]byte("RCPT TO:<bob@mx.example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@mx.example.net"),
		[]byte("DATA"),
		[]byte("QUIT"),
	}
	var cmd Command
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out = out[:0]
		for _, l := range lines {
			if r := cmd.Parse(l, Grammar{Offered: everything}); r != nil {
				b.Fatal(r)
			}
			out = cmd.AppendTo(out)
		}
	}
}
