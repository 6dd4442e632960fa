package session

import (
	"bytes"

	"github.com/portreeve/portreeve/pkg/policy"
)

// tap shows the content of a message to the policy, as its reader will have it: without
// the dots that DATA doubles, and without what we put in front of it.
type tap struct {
	to      policy.Content // nil: nobody looks
	begun   int            // octets of the line that is not over
	cr      bool           // it ends with CR so far
	headers bool           // they are not over
}

// openTap asks who looks at the message that begins.
func (x *session) openTap() { x.tap = tap{to: x.o.Policy.Content(x.envelope()), headers: true} }

// show shows content that the origin is to get next, stuffed or not. It returns why the
// message is not to be completed, or nil.
func (x *session) show(p []byte, stuffed bool) *failure {
	if x.tap.to == nil {
		return nil
	}
	for len(p) > 0 {
		n := len(p)
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			n = i + 1
		}
		if f := x.showLine(p[:n], stuffed); f != nil {
			return f
		}
		p = p[n:]
	}
	return nil
}

// showLine shows a line, or what there is of it.
func (x *session) showLine(p []byte, stuffed bool) *failure {
	t := &x.tap
	empty := t.begun == 0 && string(p) == "\r\n" || t.begun == 1 && t.cr && string(p) == "\n"
	if stuffed && t.begun == 0 && p[0] == '.' {
		p = p[1:]
		t.begun = 1
	}
	if len(p) > 0 {
		t.to.Write(p)
		ends := bytes.HasSuffix(p, []byte("\r\n")) || t.cr && p[0] == '\n'
		t.begun += len(p)
		t.cr = p[len(p)-1] == '\r'
		if ends {
			t.begun = 0
		}
	}
	if empty && t.headers {
		return x.askHeaders()
	}
	return nil
}

// askHeaders asks the policy about the headers that it has seen.
func (x *session) askHeaders() *failure {
	x.tap.headers = false
	return x.ruling(x.tap.to.Headers())
}
