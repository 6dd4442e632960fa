package steer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMonotonicOffset(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"monotonic           0         0\nboottime            0         0\n": 0,
		"monotonic      100000         0\nboottime            7         0\n": 100000 * time.Second,
		"boottime            7         0\nmonotonic          -6 500000000\n": -5500 * time.Millisecond,
		"monotonic  4611686018         1":                                    4611686018*time.Second + 1, // the kernel's limit
		"monotonic -4611686018         1":                                    1 - 4611686018*time.Second,
	} {
		if have, err := monotonicOffset(text); err != nil || have != want {
			t.Errorf("%q: %s, %v, want %s", text, have, err, want)
		}
	}
	for _, text := range []string{
		"", "\n", "monotonic", "monotonic 1", "monotonic 1 2 3", "boottime 1 2", "monotonic one 0", "monotonic 1 two", "monotonic 1 -1",
		"monotonic 0 1000000000", "monotonic 9223372036 0", "monotonic -9223372036 0", "monotonic 99999999999999999999 0", "monotonically 1 0",
	} {
		if have, err := monotonicOffset(text); err == nil || !strings.Contains(err.Error(), "time namespace") {
			t.Errorf("%q: %s, %v", text, have, err)
		}
	}
}

// Which of the time namespaces of a process the kernel tells the offset of.
func TestClockOf(t *testing.T) {
	const other, third, offsets = "time:[4026532177]", "time:[4026532178]", "monotonic 5 0\nboottime 6 0\n"
	for name, tc := range map[string]struct {
		ours, childrens, offsets string // no such file where empty
		want                     time.Duration
		err                      string
	}{
		"a kernel without any":         {},
		"the first one":                {ours: firstTimeNamespace, childrens: firstTimeNamespace, offsets: "monotonic 0 0\n"},
		"another":                      {ours: other, childrens: other, offsets: offsets, want: 5 * time.Second},
		"the first one, children not":  {ours: firstTimeNamespace, childrens: other, offsets: offsets},
		"another, children in a third": {ours: other, childrens: third, offsets: offsets, err: "unshare --fork"},
		"another, nothing to read":     {ours: other, childrens: other, err: "timens_offsets: no such file"},
		"another, junk to read":        {ours: other, childrens: other, offsets: "junk", err: `"junk" is none`},
		"another, children unknown":    {ours: other, err: "time_for_children: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, "ns"), 0o700))
			for link, to := range map[string]string{"time": tc.ours, "time_for_children": tc.childrens} {
				if to != "" {
					must(t, os.Symlink(to, filepath.Join(dir, "ns", link)))
				}
			}
			if tc.offsets != "" {
				must(t, os.WriteFile(filepath.Join(dir, "timens_offsets"), []byte(tc.offsets), 0o600))
			}
			c, err := clockOf(dir)
			if c.offset != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}
