package daemon

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/returns"
)

// TestSessionsFitIntoDescriptors: what sessions do not get suffices for the rest, and
// what is advised is enough and not more.
func TestSessionsFitIntoDescriptors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for _, c := range []struct {
		d        descriptors
		sessions int
		pipes    int
	}{
		{descriptors{limit: 1024, used: 30}, (1024 - 30 - refusing - passing) / 2, 0},
		{descriptors{limit: 1024, used: 30, dns: true}, (1024 - 30 - refusing - passing) / 3, 0},
		{descriptors{limit: 1024, used: 30, opaque: true}, (1024 - 30 - refusing - passing - 2*(64+4)) / 2, 64},
		{descriptors{limit: 1024, used: 30, pages: true}, (1024 - 30 - refusing - passing - 1 - scrapers - reading) / 2, 0},
		{descriptors{limit: 1024, used: 30, tries: true}, (1024 - 30 - refusing - passing - returns.MaxTries) / 2, 0},
		{descriptors{limit: 1 << 20, used: 30, opaque: true}, (1<<20 - 30 - refusing - passing - 2*(256+4)) / 2, 256},
		{descriptors{limit: 60, used: 30}, -2, 0},
	} {
		if n, p := c.d.sessions(), c.d.pipes(); n != c.sessions || p != c.pipes {
			t.Errorf("%+v: %d sessions and %d pipes, want %d and %d", c.d, n, p, c.sessions, c.pipes)
		}
		for _, wanted := range []int{2500, 10_000} {
			d := c.d
			d.limit = d.limitFor(wanted)
			enough := d.sessions()
			d.limit -= d.each()
			if less := d.sessions(); enough != wanted || less >= wanted {
				t.Errorf("%+v: for %d sessions %d open files are advised, with which there are %d", c.d, wanted, d.limit, enough)
			}
		}
	}
}

// TestClampIsTold: fewer sessions than configured are told with the key, both figures
// and the remedy; no session at all is an error.
func TestClampIsTold(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	limit := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	log := new(notes)
	i := &inspector{Options: Options{Config: mustParse(t, "limits: {sessions: 400}\n"), Log: slog.New(slog.NewTextHandler(log, nil))}}

	limit(4096)
	if n, _, err := i.fit(); n != 400 || err != nil || log.String() != "" {
		t.Errorf("%d sessions, %v, with enough descriptors: %s", n, err, log)
	}
	limit(300)
	n, pipes, err := i.fit()
	if n < 50 || n > 150 || pipes != 18 || err != nil { // the smallest configuration passes STARTTLS through
		t.Errorf("%d sessions, %d pipes, %v", n, pipes, err)
	}
	for _, part := range []string{"limits.sessions", "wanted=400", "used=", "open_files=300", "LimitNOFILE="} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("%s is not in %s", part, log)
		}
	}
	limit(40)
	if _, _, err := i.fit(); err == nil || !strings.Contains(err.Error(), "limits.sessions: no session fits into a limit of 40 open files") {
		t.Errorf("got %v", err)
	}
}

// TestTriesHaveDescriptors: where a service prefers forging, and there alone, what tries
// its way back takes none from sessions.
func TestTriesHaveDescriptors(t *testing.T) {
	for _, c := range []struct {
		service string
		tries   bool
	}{
		{"forge: {address: prefer}", true},
		{"forge: {address: always}", false},
	} {
		i := &inspector{Options: Options{Config: mustParse(t, "  - {name: other, listen: [\"172.16.40.2:25\"], origins: [\"172.16.20.2:25\"], "+c.service+"}\n")}}
		if d, err := i.ownDescriptors(); err != nil || d.tries != c.tries {
			t.Errorf("%s: %+v, %v", c.service, d, err)
		}
	}
}
