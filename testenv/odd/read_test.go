package odd

import (
	"slices"
	"testing"
)

func TestRead(t *testing.T) {
	const text = "about\n== one | what it is\n\\head\n\na\\r\\n\\t\\s\\0\\xfe\\\\\n\\{3 x\\r}y\\\nz\\\\\n== two | what | it is\n\\\n"
	got, err := read("f", text)
	want := []Message{
		{"f/one", "what it is", head + "\r\na\r\n\t \x00\xfe\\\r\nx\rx\rx\ryz\\\r\n"},
		{"f/two", "what | it is", ""},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, line := range []string{`\q`, `\xg0`, `\x1`, `\{3 x`, `\{3x}`, `\{many x}`, `\{2 \q}`, `\e\`} {
		if got, err := read("f", "about\n== one | what it is\n"+line+"\n"); err == nil {
			t.Errorf("%s is read as %q", line, got)
		}
	}
	if _, err := read("f", "about\n== one\nx\n"); err == nil {
		t.Error("a message says nothing about itself")
	}
}
