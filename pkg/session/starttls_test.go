package session

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
)

// injection is what an attacker on the way puts behind STARTTLS, or behind the
// 220 to it.
const (
	injectedCommand = "STARTTLS\r\nMAIL FROM:<evil@c.example>\r\n"
	injectedReply   = "220 go\r\n250 evil\r\n"
)

// TestInjectedCommandAtEachSplit: wherever the segments end, and whether the
// second one comes before or after the origin's 220, nothing of the injection
// reaches the origin as a command, nor counts for us.
func TestInjectedCommandAtEachSplit(t *testing.T) {
	for _, mode := range []string{"mirror", "client", "origin", "passthrough", "off"} {
		for split := 1; split < len(injectedCommand); split++ {
			t.Run(fmt.Sprintf("%s/%d", mode, split), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { injectCommand(t, mode, split) })
			})
		}
	}
}

func injectCommand(t *testing.T, mode string, split int) {
	s := newStage(0)
	defer s.leave()
	s.do(t, "tls "+mode)
	s.hello(t, mode)
	s.client.send([]byte(injectedCommand[:split]))
	synctest.Wait()
	s.client.send([]byte(injectedCommand[split:]))
	synctest.Wait()
	s.origin.send([]byte("220 go\r\n"))
	synctest.Wait()
	s.origin.send([]byte("SHAKE\r\n"))
	synctest.Wait()
	heard := s.origin.taken()
	offered := mode != "off" && mode != "origin" // else STARTTLS is one refused command, and MAIL the next one
	if offered && bytes.Contains(heard, []byte("MAIL")) {
		t.Errorf("the origin was sent %q", heard)
	}
}

// TestInjectedReplyAtEachSplit is the same for an origin's replies.
func TestInjectedReplyAtEachSplit(t *testing.T) {
	for _, mode := range []string{"mirror", "passthrough"} {
		for split := 1; split < len(injectedReply); split++ {
			if mode == "passthrough" && split == len("220 go\r\n") {
				continue // the 220 alone: what comes after it is the peers' own
			}
			t.Run(fmt.Sprintf("%s/%d", mode, split), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { injectReply(t, mode, split) })
			})
		}
	}
}

func injectReply(t *testing.T, mode string, split int) {
	s := newStage(0)
	defer s.leave()
	s.do(t, "tls "+mode)
	s.hello(t, mode)
	s.client.send([]byte("STARTTLS\r\n"))
	synctest.Wait()
	s.origin.send([]byte(injectedReply[:split]))
	synctest.Wait()
	s.origin.send([]byte(injectedReply[split:]))
	synctest.Wait()
	s.client.send([]byte("HELLO\r\n"))
	synctest.Wait()
	if heard := s.client.taken(); bytes.Contains(heard, []byte("evil")) {
		t.Errorf("the client was sent %q", heard)
	}
}

// hello plays a session up to the reply to EHLO, which offers STARTTLS.
func (s *stage) hello(t *testing.T, mode string) {
	t.Helper()
	s.do(t, "O> 220 mx", "C> EHLO c.example")
	if mode == "origin" {
		s.do(t, `O>| "250-mx\r\n250 STARTTLS\r\n"`, "O> 220 go", `O>| "SHAKE\r\n"`)
	}
	s.do(t, `O>| "250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"`)
	s.client.taken()
	s.origin.taken()
}

// do plays steps of a dialogue.
func (s *stage) do(t *testing.T, steps ...string) {
	t.Helper()
	for _, step := range steps {
		if err := s.step(step); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
}
