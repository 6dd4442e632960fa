package differential

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/portreeve/portreeve/testenv/peer"
)

// peerClient is a client that does exactly what its fields say, as far as the
// server offers it: what is not offered is not used.
type peerClient struct {
	pipelined bool
	chunk     int // octets of a BDAT chunk; 0: DATA
}

func (p peerClient) send(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
	conn, err := s.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &conversation{Client: peer.NewClient(conn)}
	if err := p.talk(c, l); err != nil {
		return c.codes, fmt.Errorf("after %v: %w", c.codes, err)
	}
	return c.codes, nil
}

// conversation keeps the codes of the replies that were read.
type conversation struct {
	*peer.Client
	codes []int
}

// hear reads a number of replies and returns their codes.
func (c *conversation) hear(count int) ([]int, error) {
	before := len(c.codes)
	for range count {
		reply, err := c.Reply()
		if err != nil {
			return nil, err
		}
		c.codes = append(c.codes, reply.Code)
	}
	return c.codes[before:], nil
}

// ask sends octets and reads the replies to them.
func (c *conversation) ask(octets string, count int) ([]int, error) {
	if err := c.Write(octets); err != nil {
		return nil, err
	}
	return c.hear(count)
}

func (p peerClient) talk(c *conversation, l letter) error {
	if _, err := c.hear(1); err != nil {
		return err
	}
	ehlo, err := c.Command("EHLO " + helo)
	if err != nil {
		return err
	}
	c.codes = append(c.codes, ehlo.Code)
	if !offers(ehlo, "PIPELINING") {
		p.pipelined = false
	}
	if !offers(ehlo, "CHUNKING") {
		p.chunk = 0
	}
	if offers(ehlo, "SMTPUTF8") || !strings.Contains(l.mail, "SMTPUTF8") {
		err = p.message(c, l)
	}
	if err != nil {
		return err
	}
	_, err = c.ask("QUIT\r\n", 1)
	return err
}

// offers looks for a keyword in a reply to EHLO.
func offers(ehlo peer.Reply, keyword string) bool {
	return strings.Contains(ehlo.Raw, "-"+keyword+"\r\n") || strings.Contains(ehlo.Raw, " "+keyword+"\r\n")
}

// message sends the transaction. Whoever pipelines sends content even if all
// recipients are refused: nothing, by DATA; all of it, by BDAT.
func (p peerClient) message(c *conversation, l letter) error {
	envelope := []string{"MAIL FROM:<" + l.from + ">" + l.mail + "\r\n"}
	for _, to := range l.to {
		envelope = append(envelope, "RCPT TO:<"+to+">"+l.rcpt+"\r\n")
	}
	if p.pipelined && p.chunk > 0 {
		chunks := p.chunks(l.content)
		_, err := c.ask(strings.Join(envelope, "")+strings.Join(chunks, ""), len(envelope)+len(chunks))
		return err
	}
	if p.pipelined {
		return p.pipelinedData(c, envelope, l)
	}
	taken := 0
	for _, line := range envelope {
		codes, err := c.ask(line, 1)
		if err != nil {
			return err
		}
		if codes[0] < 300 {
			taken++
		}
	}
	if taken < 2 || c.codes[2] > 299 {
		return nil
	}
	if p.chunk > 0 {
		return p.sendChunks(c, l)
	}
	return p.data(c, l)
}

// data sends the content by DATA, a command at a time.
func (p peerClient) data(c *conversation, l letter) error {
	codes, err := c.ask("DATA\r\n", 1)
	if err != nil || codes[0] != 354 {
		return err
	}
	_, err = c.ask(l.stuffed()+".\r\n", 1)
	return err
}

// pipelinedData sends envelope and DATA in one group.
func (p peerClient) pipelinedData(c *conversation, envelope []string, l letter) error {
	codes, err := c.ask(strings.Join(envelope, "")+"DATA\r\n", len(envelope)+1)
	if err != nil || codes[len(codes)-1] != 354 {
		return err
	}
	content := l.stuffed()
	if !anyTaken(codes[1 : len(codes)-1]) {
		content = ""
	}
	_, err = c.ask(content+".\r\n", 1)
	return err
}

func anyTaken(codes []int) bool {
	for _, code := range codes {
		if code < 300 {
			return true
		}
	}
	return false
}

// sendChunks sends the content by BDAT, a chunk at a time.
func (p peerClient) sendChunks(c *conversation, l letter) error {
	for _, chunk := range p.chunks(l.content) {
		if codes, err := c.ask(chunk, 1); err != nil || codes[0] > 299 {
			return err
		}
	}
	return nil
}

// chunks cuts the content, wherever that may be, also within CRLF.
func (p peerClient) chunks(content string) (list []string) {
	for len(content) > p.chunk {
		list = append(list, fmt.Sprintf("BDAT %d\r\n%s", p.chunk, content[:p.chunk]))
		content = content[p.chunk:]
	}
	return append(list, fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content))
}
