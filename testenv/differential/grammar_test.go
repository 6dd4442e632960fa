package differential

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/testenv/peer"
)

// The words that MAIL and RCPT are made of. What the gateway reads is as odd as
// it may be; what it writes must be good for every server.
var (
	senders = []string{
		"", "a@example.net", "A.b+c=d/e@Sub.Example.NET", `"a b"@example.net`, `"\a\"\\"@example.net`, `"a@b"@example.net`,
		"a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "@r.example,@s.example:a@example.net", "!#$%&'*+-/=?^_`{|}~@example.net",
		strings.Repeat("l", 64) + "@" + strings.Repeat(strings.Repeat("d", 60)+".", 3) + "example",
	}
	recipients = []string{
		"b@example.org", "B.C+d@Example.Org", `"b c"@example.org`, `"b.c"@example.org`, "Postmaster", "postmaster@example.org",
		"@r.example:b@example.org", "o'neill@example.org", "b@[192.0.2.2]", "b=c/d@example.org", "%percent%@example.org",
	}
	utf8Senders    = []string{"jürgen@example.net", "用户@例子.example", `"ü ö"@example.net`}
	utf8Recipients = []string{"zoë@example.org", "δοκιμή@example.org"}

	mailParams = []parameter{
		{smtp.ExtSize, "SIZE", []string{"0", "1", "1000", "00020000"}},
		{smtp.Ext8BitMIME, "BODY", []string{"7BIT", "8BITMIME", "8bitmime"}},
		{smtp.ExtDSN, "RET", []string{"FULL", "hdrs"}},
		{smtp.ExtDSN, "ENVID", []string{"QQ314159", "a+2Bb+3Dc+20d", "<x@y.example>", strings.Repeat("e", 100)}},
	}
	rcptParams = []parameter{
		{smtp.ExtDSN, "NOTIFY", []string{"NEVER", "SUCCESS", "failure,Delay", "SUCCESS,FAILURE,DELAY"}},
		{smtp.ExtDSN, "ORCPT", []string{"rfc822;b@example.org", "RFC822;b+2Bc+20d@example.org", "x400;/G+3Db/"}},
	}
)

// parameter is one of MAIL or RCPT with values that it can have.
type parameter struct {
	extension smtp.Extension
	name      string
	values    []string
}

// sample is an envelope as a client may write it.
type sample struct{ mail, rcpt string }

// samples pairs every path and every parameter's value with something, as far
// as the origin offers it, and then draws more at random, the same each time.
func samples(offered smtp.Extensions, draws int) (list []sample) {
	froms, tos := slices.Clone(senders), slices.Clone(recipients)
	random := rand.New(rand.NewPCG(5321, 1))
	for n := range max(len(froms), len(tos)) {
		list = append(list, sample{"<" + froms[n%len(froms)] + ">", "<" + tos[n%len(tos)] + ">"})
	}
	for _, p := range mailParams {
		for _, v := range p.values {
			list = append(list, sample{"<a@example.net>" + p.text(offered, v), "<b@example.org>"})
		}
	}
	for _, p := range rcptParams {
		for _, v := range p.values {
			list = append(list, sample{"<a@example.net>", "<b@example.org>" + p.text(offered, v)})
		}
	}
	for range draws {
		list = append(list, sample{
			"<" + pick(random, froms) + ">" + drawParams(random, offered, mailParams),
			"<" + pick(random, tos) + ">" + drawParams(random, offered, rcptParams),
		})
	}
	if offered.Has(smtp.ExtSMTPUTF8) {
		for n := range max(len(utf8Senders), len(utf8Recipients)) {
			list = append(list, sample{
				"<" + utf8Senders[n%len(utf8Senders)] + "> SMTPUTF8" + drawParams(random, offered, mailParams),
				"<" + utf8Recipients[n%len(utf8Recipients)] + ">" + drawParams(random, offered, rcptParams),
			})
		}
	}
	return list
}

func pick(random *rand.Rand, list []string) string { return list[random.IntN(len(list))] }

// text is the parameter in a command; nothing if it is not offered.
func (p parameter) text(offered smtp.Extensions, value string) string {
	if !offered.Has(p.extension) {
		return ""
	}
	return " " + p.name + "=" + value
}

func drawParams(random *rand.Rand, offered smtp.Extensions, list []parameter) (text string) {
	for _, n := range random.Perm(len(list)) {
		if random.IntN(2) == 0 {
			text += list[n].text(offered, pick(random, list[n].values))
		}
	}
	return text
}

// TestGrammarOfOrigins sends what pkg/smtp makes of many envelopes to the
// origins themselves. None may call it wrong.
func TestGrammarOfOrigins(t *testing.T) {
	onStage(t, anywhere, func(t *testing.T, s *stage) {
		offered, err := s.offered(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s offers %s", s.name, offered.AppendTo(nil, ' '))
		draws := 50
		if *complete {
			draws = 500
		}
		for _, sample := range samples(offered, draws) {
			if beyond(s.name, sample) {
				continue
			}
			if err := s.understood(t.Context(), offered, sample); err != nil {
				t.Errorf("%s, MAIL FROM:%s RCPT TO:%s: %v", s.name, sample.mail, sample.rcpt, err)
			}
		}
	})
}

// offered reads the origin's own reply to EHLO.
func (s *stage) offered(ctx context.Context) (set smtp.Extensions, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := s.dial(ctx, direct.to(s))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ehlo, err := peer.NewClient(conn).Open(helo)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(ehlo.Raw) {
		k, ok := smtp.ParseKeyword([]byte(strings.TrimSuffix(line[4:], "\r\n")))
		if ok && k.Known {
			set = set.With(k.Ext)
		}
	}
	return set, nil
}

// understood sends one envelope in a session of its own: servers count errors
// and resets.
func (s *stage) understood(ctx context.Context, offered smtp.Extensions, p sample) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := s.dial(ctx, direct.to(s))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := peer.NewClient(conn)
	if _, err := c.Open(helo); err != nil {
		return err
	}
	utf8 := strings.Contains(p.mail, "SMTPUTF8")
	for _, line := range []string{"MAIL FROM:" + p.mail, "RCPT TO:" + p.rcpt} {
		var command smtp.Command
		if refusal := command.Parse([]byte(line), smtp.Grammar{Offered: offered, UTF8: utf8}); refusal != nil {
			return fmt.Errorf("it was not read: %w", refusal)
		}
		formatted := string(command.AppendTo(nil))
		reply, err := c.Command(strings.TrimSuffix(formatted, "\r\n"))
		if err != nil {
			return err
		}
		if slices.Contains(misunderstood, reply.Code) {
			return fmt.Errorf("to %q it says %q", formatted, reply.Raw)
		}
	}
	_, err = c.Command("QUIT")
	return err
}

// misunderstood are the codes of RFC 5321 section 4.2.2 for what a server cannot
// read.
var misunderstood = []int{500, 501, 502, 503, 504, 553, 555}

// beyond says what a server cannot read in any form: OpenSMTPD has no quoted
// local parts, and no ORCPT that is not an address.
func beyond(name string, p sample) bool {
	return name == "opensmtpd" && (strings.Contains(p.mail+p.rcpt, `"`) || strings.Contains(p.rcpt, "x400;"))
}
