// Package foreign holds the gateway to its promise that nobody sees it: mail software
// that others wrote, on both sides, behaves with the gateway as without. Each client
// sends its mail to each origin over a network without the gateway first, then the
// same mail after the gateway was put in between.
//
// It owns what is the same: all that the client reports, with the texts of replies,
// and all that the origin got. A difference is allowed if the file reasons has it;
// what stands there and does not happen any more fails as well. Nothing here knows
// how the gateway works.
//
// By default few clients meet two origins, with what Debian's packages and Go's
// module proxy hold; -complete is everything, and needs what make foreign fetches.
package foreign

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

var (
	complete  = flag.Bool("complete", false, "every client, every origin, every play")
	onlyFlag  = flag.String("only", "", "`regexp` of client/origin/play/way, in place of all")
	printFlag = flag.Bool("print", false, "print what each client reports and each origin got")
)

// binary is the portreeve under test.
var binary string

func TestMain(m *testing.M) { testenv.Main(m, &binary) }

// patience is how long any one thing may take.
const patience = 1 * time.Minute

// built is the path of the mail software in Go.
var built = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../.build/foreign/golang")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-C", "golang", "-o", path, ".")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the mail software in Go: %w\n%s", err, said)
	}
	return path, nil
})

// TestForeign plays each play of each client with each origin, without the gateway and
// with it.
func TestForeign(t *testing.T) {
	t.Parallel()
	list, err := loadReasons("reasons")
	if err != nil {
		t.Fatal(err)
	}
	only, err := regexp.Compile(*onlyFlag)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("origins", func(t *testing.T) {
		for _, o := range origins {
			if !o.short && !*complete || !wanted(o, only) {
				continue
			}
			t.Run(o.name, func(t *testing.T) {
				t.Parallel()
				newStage(t, o).perform(t, only, list)
			})
		}
	})
	list.checkStale(t, list.ofPlays)
}

// wanted says whether a client plays anything with an origin.
func wanted(o origin, only *regexp.Regexp) bool {
	for _, c := range clients {
		for _, p := range plays {
			for _, w := range ways {
				if c.can(o, p) && p.goes(c, w) && only.MatchString(c.name+"/"+o.name+"/"+p.name+"/"+w.name) {
					return true
				}
			}
		}
	}
	return false
}

// act is one client with one play, and what came of it without the gateway.
type act struct {
	client client
	play   play
	direct outcome
}

// perform plays everything without the gateway, then puts that in between and plays
// everything again.
func (s *stage) perform(t *testing.T, only *regexp.Regexp, list *reasons) {
	acts := s.acts(only)
	for i := range acts {
		a := &acts[i]
		a.direct = s.play(t, a, direct)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.startGateway(ctx); err != nil {
		t.Fatal(err)
	}
	differences := 0
	for i := range acts {
		a := &acts[i]
		for _, w := range ways {
			if !a.play.goes(a.client, w) || !only.MatchString(a.client.name+"/"+s.origin.name+"/"+a.play.name+"/"+w.name) {
				continue
			}
			got := s.play(t, a, w)
			differences += list.judge(t, pairing{a.client.name, s.origin.name, a.play.name, w.name}, a.direct, got)
		}
	}
	t.Logf("%s: %d plays, %d lines differ", s.origin.name, len(acts), differences)
}

// acts are what is played with this origin.
func (s *stage) acts(only *regexp.Regexp) (list []act) {
	for _, c := range clients {
		for _, p := range plays {
			wanted := false
			for _, w := range ways {
				wanted = wanted || p.goes(c, w) && only.MatchString(c.name+"/"+s.origin.name+"/"+p.name+"/"+w.name)
			}
			if wanted && c.can(s.origin, p) {
				list = append(list, act{client: c, play: p})
			}
		}
	}
	return list
}

// outcome is what a client reports and an origin got, line by line.
type outcome []string

// most lines that a client reports: all are compared with all.
const most = 500

// play plays one play by a way.
func (s *stage) play(t *testing.T, a *act, w *way) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := a.client.name + "/" + s.origin.name + "/" + a.play.name + "/" + w.name
	report, err := a.client.send(ctx, s, w.to(s), a.play.job(s, w))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var o outcome
	for line := range strings.Lines(report) {
		o = append(o, "client: "+s.masked(strings.TrimRight(line, "\r\n")))
	}
	o.sortKeywords()
	if len(o) == 0 || len(o) > most {
		t.Fatalf("%s: the client reports %d lines", name, len(o))
	}
	got, err := s.taken(ctx)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if a.client.mta {
		slices.Sort(got) // it may send to several recipients at once
	}
	for _, line := range got {
		o = append(o, "origin: "+s.masked(line))
	}
	if *printFlag {
		t.Logf("%s\n%s", name, strings.Join(o, "\n"))
	}
	if lost := listed(a.client.lost, s.origin, a.play); w == direct && a.play.arrives && lost != (len(got) == 0) {
		t.Errorf("%s: lost is %t, but %d messages have arrived:\n%s", name, lost, len(got), strings.Join(o, "\n"))
	}
	return o
}

// multiline is a line of the reply to EHLO, as programs print it.
var multiline = regexp.MustCompile(`^(client: .*\b250)[ -]([A-Z0-9][A-Z0-9-]+(?: .*)?)$`)

// sortKeywords sorts the keywords of replies to EHLO: their order says nothing, so the
// gateway need not keep it.
func (o outcome) sortKeywords() {
	first := 0
	for i, line := range o {
		part := multiline.FindStringSubmatch(line)
		if part == nil {
			first = i + 1
			continue
		}
		o[i] = part[1] + "~" + part[2]
		slices.Sort(o[first : i+1])
	}
}

// file writes what a client reads.
func (s *stage) file(name, content string) (string, error) {
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}
