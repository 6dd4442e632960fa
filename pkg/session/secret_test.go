package session

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/portreeve/portreeve/pkg/policy"
)

// pooled makes the pools hand out buffers that are known to the test, and returns
// a look at all of them.
func pooled(t *testing.T) (look func() [][]byte) {
	var all [][]byte
	newSmall, newPage, newBlock := smalls.New, pages.New, blocks.New
	t.Cleanup(func() { smalls.New, pages.New, blocks.New = newSmall, newPage, newBlock })
	smalls.New = func() any { s := new([smallSize]byte); all = append(all, s[:]); return s }
	pages.New = func() any { p := new([pageSize]byte); all = append(all, p[:]); return p }
	blocks.New = func() any { b := new([blockSize]byte); all = append(all, b[:]); return b }
	for _, pool := range []*sync.Pool{&smalls, &pages, &blocks} { // what is in them stays out
		for n := len(all); len(all) == n; {
			pool.Get()
		}
	}
	return func() [][]byte { return all }
}

// TestSecretsStayNowhere: when an exchange is over, no buffer has a part of what
// the client sent in it, however it was cut and wherever it ended.
func TestSecretsStayNowhere(t *testing.T) {
	secret := strings.Repeat("c2VjcmV0", 40) // more than one segment, less than any buffer
	token := strings.Repeat("c2VjcmV0", 700) // more than a page
	for name, steps := range map[string][]string{
		"initial response":      {"C> AUTH PLAIN " + secret, "O> 235 ok"},
		"long initial response": {"C> AUTH PLAIN " + token, "O> 235 ok"},
		"cut":                   {`C>| "AUTH PLAIN ` + secret[:100] + `"`, "wait 2s", `C>| "` + secret[100:] + `\r\n"`, "O> 535 no"},
		"long and cut":          {`C>| "AUTH PLAIN ` + token[:5000] + `"`, "wait 2s", `C>| "` + token[5000:] + `\r\n"`, "O> 535 no"},
		"responses":             {"C> AUTH LOGIN", "O> 334 x", "C> " + secret, "O> 334 y", "C> " + token, "O> 235 ok"},
		"no base64":             {"C> AUTH LOGIN", "O> 334 x", "C> " + secret + "!", "O> 501 no"},
		"refused":               {"C> AUTH PLAIN " + secret + "!", "C> AUTH NONE " + secret, "C> AUTH"},
		"behind others":         {`C>| "NOOP\r\nAUTH PLAIN ` + secret + `\r\n"`, "O> 250 ok", "O> 235 ok"},
		"half behind others":    {`C>| "NOOP ` + strings.Repeat("x", 200) + `\r\nAUTH PLAIN c2VjcmV0c2Vj"`, "O> 250 ok", `C>| "cmV0\r\n"`, "O> 235 ok"},
		"held, origin gone":     {`C>| "NOOP\r\nAUTH PLAIN ` + secret[:64] + `\r\n"`, "O! reset"},
		"held, origin closes":   {`C>| "NOOP\r\nAUTH PLAIN ` + secret[:64] + `\r\n"`, "O> 421 bye"},
		"behind a space":        {"C>  AUTH PLAIN " + secret, "C> AUTH"},
		"no space":              {"C> AUTHPLAIN " + secret, "C> AUTH"},
		"never finished":        {`C>| "AUTH PLAIN ` + secret + `"`, "wait 2s", "C! reset"},
		"broken":                {`C>| "AUTH PLAIN ` + secret + `\n"`},
		"origin gone":           {"C> AUTH LOGIN", "O> 334 x", "O! reset", "C> " + secret},
	} {
		t.Run(name, func(t *testing.T) {
			look := pooled(t)
			synctest.Test(t, func(t *testing.T) {
				s := newStage(100)
				s.rules.AuthInClear, s.rules.Keywords = true, carried
				defer s.leave()
				x := open(Options{Policy: policy.New(s.rules), Rules: &s.rules}, s.client)
				x.origin.init(s.origin)
				go func() { s.outcome <- carry(x.outcome(x.run())) }()
				s.started = true
				synctest.Wait()
				for _, step := range append([]string{"O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN\r\n"`}, steps...) {
					if err := s.step(step); err != nil {
						t.Fatal(err)
					}
				}
				s.client.hangUp(errReset)
				synctest.Wait()
				<-s.outcome
				for _, b := range append(look(), x.text) {
					if bytes.Contains(b, []byte("c2Vj")) {
						t.Errorf("a buffer of %d octets has the secret", len(b))
					}
				}
			})
		})
	}
}
