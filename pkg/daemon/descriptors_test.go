package daemon

import (
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
