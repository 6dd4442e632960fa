package smtp

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// claims is a session with everything of XCLIENT and XFORWARD.
var claims = Grammar{XClient: XClientAttributes, XForward: XForwardAttributes}

func TestClaims(t *testing.T) {
	long := strings.Repeat("x", 255)
	for in, want := range map[string]string{
		"XCLIENT NAME=c.example ADDR=192.0.2.7":                      "",
		"xclient name=_dkim.C-1.example addr=ipv6:2001:DB8:0:0::7":   "XCLIENT NAME=_dkim.C-1.example ADDR=IPV6:2001:db8::7",
		"XCLIENT  ADDR=IPV6:::ffff:192.0.2.7  ":                      "XCLIENT ADDR=IPV6:::ffff:192.0.2.7",
		"XCLIENT NAME=[tempunavail] REVERSE_NAME=[Unavailable]":      "XCLIENT NAME=[TEMPUNAVAIL] REVERSE_NAME=[UNAVAILABLE]",
		"XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=esmtp":  "XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=ESMTP",
		"XCLIENT LOGIN=a+2Bb+40c HELO=[192.0.2.7] PORT=65535":        "",
		"XCLIENT DESTADDR=192.0.2.1 DESTPORT=25 LOGIN=[UNAVAILABLE]": "",
		"XCLIENT HELO=" + long:                                       "",
		"XCLIENT HELO=" + strings.Repeat("+20", 255):                 "",
		"XFORWARD NAME=c.example ADDR=192.0.2.7 PROTO=ESMTPSA":       "",
		"XFORWARD IDENT=4B1C2 SOURCE=local HELO=c":                   "XFORWARD IDENT=4B1C2 SOURCE=LOCAL HELO=c",
		"XFORWARD SOURCE=[UNAVAILABLE] PROTO=[UNAVAILABLE]":          "",
	} {
		if want == "" {
			want = in
		}
		var c Command
		if r := c.Parse([]byte(in), claims); r != nil || string(c.AppendTo(nil)) != want+"\r\n" {
			t.Errorf("%s: %v, %q", in, r, c.AppendTo(nil))
		}
	}
}

func TestBadClaims(t *testing.T) {
	for in, want := range map[string]*Reply{
		"XCLIENT":                                    badClaim,
		"XCLIENT NAME":                               badClaim,
		"XCLIENT =c.example":                         unknownClaim,
		"XCLIENT IDENT=1":                            unknownClaim, // XFORWARD's
		"XFORWARD LOGIN=a":                           unknownClaim, // XCLIENT's
		"XCLIENT FROB=1":                             unknownClaim,
		"XCLIENT NAME=a NAME=a":                      repeatedClaim,
		"XCLIENT NAME=a Name=b":                      repeatedClaim,
		"XCLIENT NAME=":                              badClaimValue,
		"XCLIENT NAME=a+2Eb":                         badClaimValue,
		"XCLIENT NAME=[a]":                           badClaimValue,
		"XCLIENT NAME=a/b":                           badClaimValue,
		"XCLIENT ADDR=":                              badClaimValue,
		"XCLIENT ADDR=c.example":                     badClaimValue,
		"XCLIENT ADDR=192.0.2.07":                    badClaimValue,
		"XCLIENT ADDR=192.0.2":                       badClaimValue,
		"XCLIENT ADDR=2001:db8::7":                   badClaimValue, // without the tag
		"XCLIENT ADDR=IPV6:192.0.2.7":                badClaimValue,
		"XCLIENT ADDR=IPV6:":                         badClaimValue,
		"XCLIENT ADDR=IPV6:fe80::1%eth0":             badClaimValue,
		"XCLIENT ADDR=[TEMPUNAVAIL]":                 badClaimValue,
		"XCLIENT ADDR=" + strings.Repeat("1", 500):   badClaimValue,
		"XCLIENT PORT=0":                             badClaimValue,
		"XCLIENT PORT=025":                           badClaimValue,
		"XCLIENT PORT=65536":                         badClaimValue,
		"XCLIENT PORT=-1":                            badClaimValue,
		"XCLIENT PROTO=":                             badClaimValue,
		"XCLIENT PROTO=E-SMTP":                       badClaimValue,
		"XCLIENT PROTO=ESMTPESMTPESMTPESMTP":         badClaimValue,
		"XCLIENT HELO=":                              badClaimValue,
		"XCLIENT HELO=a=b":                           badClaimValue,
		"XCLIENT HELO=a+0D+0Ab":                      badClaimValue,
		"XCLIENT HELO=a+00":                          badClaimValue,
		"XCLIENT LOGIN=a+2":                          badClaimValue,
		"XCLIENT LOGIN=a+2b":                         badClaimValue, // hex digits are upper-case
		"XCLIENT HELO=" + strings.Repeat("x", 256):   badClaimValue,
		"XCLIENT HELO=" + strings.Repeat("+20", 256): badClaimValue,
		"XFORWARD SOURCE=ELSEWHERE":                  badClaimValue,
		"XFORWARD SOURCE=":                           badClaimValue,
		"XCLIENT NAME=\xc3\xb6":                      badLine,
	} {
		var c Command
		if r := c.Parse([]byte(in), claims); r != want {
			t.Errorf("%s: %v, want %v", in, r, want)
		}
	}
}

// TestClaimsNotOffered: what was not offered is not read, and an attribute counts
// only if the origin knows it.
func TestClaimsNotOffered(t *testing.T) {
	var c Command
	if r := c.Parse([]byte("XCLIENT FROB=1 ="), Grammar{Offered: everything, XForward: XForwardAttributes}); r != nil || c.Verb != XCLIENT {
		t.Errorf("XCLIENT not offered: %v", r)
	}
	if r := c.Parse([]byte("XFORWARD"), Grammar{Offered: everything, XClient: XClientAttributes}); r != nil || c.Verb != XFORWARD {
		t.Errorf("XFORWARD not offered: %v", r)
	}
	some := ParseAttributes([]byte("NAME addr FROB IDENT  HELO"), XClientAttributes)
	if got := string(some.AppendTo(nil)); got != " NAME ADDR HELO" {
		t.Errorf("offered:%s", got)
	}
	if r := c.Parse([]byte("XCLIENT NAME=a PORT=1"), Grammar{XClient: some}); r != unknownClaim {
		t.Errorf("PORT was not offered: %v", r)
	}
}

// TestClaimIdentity: a claim in canonical form is written as it was read.
func TestClaimIdentity(t *testing.T) {
	values := map[string]string{
		"NAME": `([a-zA-Z0-9._-]{1,40}|\[UNAVAILABLE\]|\[TEMPUNAVAIL\])`, "ADDR": `(192\.0\.2\.[1-9]|IPV6:2001:db8::[1-9a-f]|\[UNAVAILABLE\])`,
		"PORT": `([1-9][0-9]{0,3}|\[UNAVAILABLE\])`, "PROTO": `E?SMTPS?A?`, "HELO": xtext, "LOGIN": xtext, "DESTPORT": `[1-9][0-9]{0,3}`,
	}
	rapid.Check(t, func(t *rapid.T) {
		line := "XCLIENT"
		for _, name := range rapid.Permutation([]string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTPORT"}).Draw(t, "names")[:rapid.IntRange(1, 7).Draw(t, "count")] {
			line += " " + name + "=" + rapid.StringMatching(values[name]).Draw(t, name)
		}
		var c Command
		if r := c.Parse([]byte(line), claims); r != nil || string(c.AppendTo(nil)) != line+"\r\n" {
			t.Fatalf("%s: %v, %q", line, r, c.AppendTo(nil))
		}
	})
}
