package mta

import (
	"context"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

// letter is a message that Postfix delivers as it is, below its own headers.
var letter = peer.Message{
	From: "a@example.net", To: []string{"b@example.org"},
	Content: "Subject: x\r\n\r\n..a dot\r\nand a line\r\n",
}

func TestPostfixDelivers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	postfix, err := StartPostfix(ctx, e.Origin, filepath.Join(e.Dir, "postfix"), []netip.Addr{e.Origin4, e.Origin6})
	if err != nil {
		t.Fatal(err)
	}
	for count, way := range []struct{ from, to netip.Addr }{{e.Client4, e.Origin4}, {e.Client6, e.Origin6}} {
		deliver(ctx, t, e, way.from, way.to)
		mail, err := postfix.AwaitMail(ctx, count+1)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(mail[count], "\nSubject: x\n\n.a dot\nand a line\n") {
			t.Errorf("delivered %q", mail[count])
		}
		line, err := postfix.AwaitLog(ctx, regexp.MustCompile(`smtpd\[\d+\]: connect from unknown\[`+way.from.String()+`\]:\d+`))
		if err != nil {
			t.Error(err)
		}
		t.Log(line)
	}
	if err := postfix.Stop(); err != nil {
		t.Error(err)
	}
}

func deliver(ctx context.Context, t *testing.T, e *testenv.Env, from, to netip.Addr) {
	t.Helper()
	conn, err := e.Client.Dial(ctx, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 25))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := peer.NewClient(conn).Deliver(letter)
	if err != nil || reply.Code != 250 {
		t.Fatalf("%+v, %v", reply, err)
	}
}

func TestStartSaysWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = StartPostfix(ctx, e.Origin, filepath.Join(e.Dir, "postfix"), []netip.Addr{e.Origin4}, "queue_directory = /nowhere")
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("got %v, want Postfix's own complaint about /nowhere", err)
	}
}
