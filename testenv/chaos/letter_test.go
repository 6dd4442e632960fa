package chaos

import (
	"strings"
	"testing"
)

func TestLettersShowWhetherTheyAreWhole(t *testing.T) {
	whole := Content(17, 9)
	if !strings.Contains(whole, "\r\n..") || strings.Contains(whole, "\r\n.\r\n") {
		t.Errorf("dots are not doubled: %q", whole)
	}
	if n, ok, err := Read(whole); n != 17 || !ok || err != nil {
		t.Errorf("%d, %v, %v", n, ok, err)
	}
	for n := strings.Index(whole, "\r\n\r\n") + 4; n < len(whole); n++ {
		if _, ok, err := Read(whole[:n]); ok || err != nil {
			t.Fatalf("%d of %d octets pass for the whole: %v", n, len(whole), err)
		}
	}
	for name, other := range map[string]string{
		"smuggled": Smuggle(whole),
		"undotted": strings.Replace(whole, "\r\n..", "\r\n.", 1),
		"changed":  strings.Replace(whole, "line 3", "line 4", 1),
	} {
		if _, ok, err := Read(other); ok || err != nil {
			t.Errorf("%s passes for the whole: %v", name, err)
		}
	}
	if _, _, err := Read("Subject: x\r\n\r\n" + numbered); err == nil {
		t.Error("what has no number is a letter")
	}
}
