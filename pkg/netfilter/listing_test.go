package netfilter

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                    nil,
		"-j ACCEPT":                           {"-j", "ACCEPT"},
		`-m comment --comment "a b" -j X`:     {"-m", "comment", "--comment", "a b", "-j", "X"},
		`--comment "say \"no\" to \\ and \'"`: {"--comment", `say "no" to \ and '`},
		`--comment "" -j X`:                   {"--comment", "", "-j", "X"},
		"  a  b ":                             {"a", "b"},
	} {
		if diff := cmp.Diff(want, words(in)); diff != "" {
			t.Errorf("words of %q (-want +got):\n%s", in, diff)
		}
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"-d 10.0.0.1/32 -i ext0 -j ACCEPT":     "-d 10.0.0.1/32 -i ext0 -j ACCEPT",
		"-d ::1.2.3.4/128 -j ACCEPT":           "-d ::102:304/128 -j ACCEPT",
		"-s 2001:db8::/32 ! -d ::ffff:1.2.3.4": "-s 2001:db8::/32 ! -d ::ffff:1.2.3.4",
		"-d":                                   "-d",
		"":                                     "",
	} {
		if got := canonical(in); got != want {
			t.Errorf("canonical of %q is %q, want %q", in, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	got := parse([]string{
		"-P INPUT DROP", "-N PORTREEVE-INPUT",
		"-A INPUT -m comment --comment portreeve -j PORTREEVE-INPUT",
		"-A PORTREEVE-INPUT -j ACCEPT", "", "# a warning",
	})
	want := listing{
		policies: map[string]string{"INPUT": "DROP"},
		chains:   []string{"PORTREEVE-INPUT"},
		rules: []rule{
			{"INPUT", "-m comment --comment portreeve -j PORTREEVE-INPUT"},
			{"PORTREEVE-INPUT", "-j ACCEPT"},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(listing{}, rule{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
