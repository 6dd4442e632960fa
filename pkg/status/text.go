package status

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/portreeve/portreeve/pkg/finding"
)

// WriteText prints the report for a person at a terminal.
func (r Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if !r.Attached {
		fmt.Fprintln(t, "kernel side\tnot attached")
	} else {
		fmt.Fprintf(t, "kernel side\tattached since %s, data path %s\n", r.Since.Local().Format(time.DateTime), r.Datapath)
		fmt.Fprintf(t, "inspector\t%s\n", r.Inspector)
		fmt.Fprintf(t, "watcher\t%s\n", r.Watcher)
	}
	if r.Metrics != "" {
		fmt.Fprintf(t, "metrics\t%s\n", r.Metrics)
	}
	for _, s := range r.Services {
		fmt.Fprintf(t, "service %s\t%s\n", s.Name, s)
	}
	for _, w := range r.Walls {
		fmt.Fprintf(t, "wall %s\t%s\n", w.Name, w)
	}
	if len(r.Walls) > 0 {
		fmt.Fprintf(t, "leaks\t%s\n", leaks(r.Leaks))
	}
	for _, c := range r.Counters {
		fmt.Fprintf(t, "%s\t%d\t%s\n", c.Reason, c.Count, c.Meaning)
	}
	for _, n := range r.Watcher.Last {
		fmt.Fprintf(t, "put back\t%s %s\n", n.When.Local().Format(time.DateTime), n.Text)
	}
	for _, n := range r.Watcher.Findings {
		fmt.Fprintf(t, "finding\t%s (since %s)\n", n.Text, n.When.Local().Format(time.DateTime))
	}
	for _, i := range r.Displaced {
		fmt.Fprintf(t, "displaced\t%s\n", i)
	}
	for _, i := range r.Lost {
		fmt.Fprintf(t, "lost\t%s\n", i)
	}
	for _, i := range r.Leftovers {
		fmt.Fprintf(t, "leftover\t%s\n", i)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// leaks says how much got to the last walls unsteered.
func leaks(n uint64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%d STOPPED: so many packets got past the client side, and would have reached origins uninspected; see portreeve doctor", n)
}

// meetFail says what becomes of connections that nobody serves.
const meetFail = "nobody serves, and new connections meet the fail policy: closed refuses or drops them, open lets them pass by"

// String says in a few words how the inspector is.
func (i Inspector) String() string {
	switch {
	case i.State == Absent && i.Instance != 0 && i.Age < i.Limit:
		return fmt.Sprintf("absent: %s; one that lived %.1f s ago has just ended, or its services or settings are not those that are attached: attach its file again, or start another: portreeve run -c FILE --attach", meetFail, i.Age)
	case i.State == Absent:
		return "absent: " + meetFail + "; start one: portreeve run -c FILE"
	case i.State == Hung:
		return fmt.Sprintf("hung: last heartbeat %.1f s ago, limit %.1f s; %s", i.Age, i.Limit, meetFail)
	}
	return fmt.Sprintf("alive: last heartbeat %.1f s ago, limit %.1f s", i.Age, i.Limit)
}

// String says in a few words what the service is about.
func (s Service) String() string {
	parts := []string{"fail " + s.Fail}
	if len(s.Addressed) > 0 {
		parts = append(parts, "addressed "+some(s.Addressed))
	}
	if len(s.Transit) > 0 {
		parts = append(parts, "transit "+some(s.Transit))
	}
	text := strings.Join(parts, ", ")
	if !s.IPv4 && !s.IPv6 {
		text += "; nobody serves it"
	}
	return text
}

// mostShown is how many addresses of a service are printed.
const mostShown = 4

func some(all []string) string { return finding.Some(all, mostShown, " ") }
