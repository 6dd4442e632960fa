package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portreeve/portreeve/pkg/wording"
)

// writeTexts writes the page of the manual that has every text which clients read in
// the gateway's own name.
func writeTexts(dir string) error {
	var b strings.Builder
	b.WriteString(`.nh
.TH "PORTREEVE-REPLIES" "7" "` + manualDate.Format("Jan 2006") + `" "portreeve" "Portreeve Manual"

.SH NAME
portreeve-replies - what clients read in the gateway's own name


.SH DESCRIPTION
Most replies that a client reads are its mail server's, and pass as they are. These are the
gateway's own. Each that refuses has a reason, which is the same word in records and counters,
and, unless \fBsmtp.reply_id\fP is false, ends with the session's id: by it the record of the
session is found in the gateway's log. Texts of \fBsmtp.commands\fP are the operator's own.


.SH REPLIES
`)
	for _, r := range wording.All() {
		why := r.Reason.String()
		if why == "" {
			why = "no refusal"
		}
		fmt.Fprintf(&b, ".TP\n%s\n%s: %s.\n", escapeMan(r.Error()), escapeMan(why), escapeMan(r.Note))
	}
	b.WriteString("\n\n.SH SEE ALSO\n\\fBportreeve(8)\\fP, \\fBportreeve-run(8)\\fP\n")
	if err := os.WriteFile(filepath.Join(dir, "portreeve-replies.7"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("cannot write the manual to %s: %w", dir, err)
	}
	return nil
}

// escapeMan quotes what roff would read as its own.
func escapeMan(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
