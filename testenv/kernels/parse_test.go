package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := parse([]string{"-limit", "5m", "-packages", "pkg/steer,pkg/route", "-run", "Test.*SYN", "6.1", "host"})
	if err != nil {
		t.Fatal(err)
	}
	want := options{5 * time.Minute, []string{"pkg/steer", "pkg/route"}, "Test.*SYN", []string{"6.1", "host"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{})); diff != "" {
		t.Error(diff)
	}
	if _, err := parse([]string{"5.10"}); err == nil || err.Error() != `no kernel is called "5.10": there are host, 6.1, 6.12` {
		t.Error(err)
	}
}
