package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// noticeable is the share of the machine's work by others from which on the
// reader is warned.
const noticeable = 0.1

// print writes the results for a reader.
func (r *Results) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nLinux %s, %d × %s\n", r.Machine.Kernel, r.Machine.Processors, r.Machine.Processor)
	for _, s := range r.Sections {
		s.print(w)
	}
	if len(r.Sections) > 0 {
		fmt.Fprintln(w, "\nMedians; in parentheses the least and the most of all rounds. CPU is that of load, subject and\norigin by their control groups; machine is what /proc/stat says of everything, and others the\ngreatest part of that which is nobody's of the three. portreeve's records go to a file.")
	}
	r.Idle.print(w)
	r.TLSIdle.print(w)
	r.Latency.print(w)
	r.Crowd.print(w)
	r.Connect.print(w)
	r.printCounts(w)
	r.printPackets(w)
	r.printAims(w)
	r.warn(w)
	return w.Flush()
}

// unit says in what a section's figures are told.
type unit struct {
	rateName, costName string
	rate, cost         float64 // what sessions/s and µs/session are multiplied by
}

const gigabyte = 1e9

func (c *Section) unit() unit {
	l := c.Load
	switch {
	case l.Octets >= tenMegabytes/10:
		octets := float64(l.Messages) * float64(l.Octets)
		return unit{"MB/s", "ms/GB", octets / 1e6, gigabyte / octets / 1000}
	case l.Messages > 1:
		return unit{"messages/s", "µs/message", float64(l.Messages), 1 / float64(l.Messages)}
	}
	return unit{"sessions/s", "µs/session", 1, 1}
}

// print writes a section: a line for each subject.
func (c *Section) print(w io.Writer) {
	u := c.unit()
	fmt.Fprintf(w, "\n%s\n\n", c.Load)
	fmt.Fprintf(w, "\t%s\tCPU %s\t\tload\tsubject\torigin\tmachine\tothers", u.rateName, u.costName)
	compared := c.compared()
	for _, to := range compared {
		fmt.Fprintf(w, "\t× %s\t", to)
	}
	fmt.Fprintln(w)
	for _, s := range c.Subjects {
		m := s.Median
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t(%.0f–%.0f)\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f %%", s.Name, m.Rate*u.rate,
			m.Own*u.cost, s.CPU.Least*u.cost, s.CPU.Most*u.cost, m.Load*u.cost, m.Subject*u.cost, m.Origin*u.cost, m.Machine*u.cost, 100*s.Others)
		for _, to := range compared {
			fmt.Fprintf(w, "\t%s", c.ratio(s.Name, to).cost())
		}
		fmt.Fprintln(w)
	}
}

// compared returns the bases that are among the subjects.
func (c *Section) compared() []string {
	return slices.DeleteFunc(slices.Clone(bases), func(name string) bool { return c.find(name) == nil })
}

// String describes the load in a line.
func (l Load) String() string {
	sessions, messages, how := "session", "one message", ""
	if l.Sessions != 1 {
		sessions = "sessions"
	}
	if l.Messages > 1 {
		messages = fmt.Sprintf("%d messages", l.Messages)
	}
	if l.Pipelined {
		how = ", pipelined"
	}
	if l.Secure {
		how += ", inside TLS on both sides"
	}
	if l.Unseen {
		how += ", TLS carried unseen"
	}
	return fmt.Sprintf("%d × %d %s with %s of %d octets%s, %d at once, from %d addresses",
		l.Rounds, l.Sessions, sessions, messages, l.Octets, how, l.Parallel, l.Sources)
}

// ratio finds a comparison; nil where there is none to show.
func (c *Section) ratio(name, to string) *Ratio {
	i := slices.IndexFunc(c.Ratios, func(q Ratio) bool { return q.Subject == name && q.To == to })
	if i < 0 || name == to {
		return nil
	}
	return &c.Ratios[i]
}

// cost returns the columns of a comparison of CPU.
func (q *Ratio) cost() string {
	if q == nil {
		return "\t"
	}
	return q.CPU.String()
}

// String returns two columns.
func (s Spread) String() string { return fmt.Sprintf("%.2f\t(%.2f–%.2f)", s.Median, s.Least, s.Most) }

// print writes what idle sessions cost. The kernel's share of a subject is what
// its sockets take beyond those of client and origin.
func (i *Idle) print(w io.Writer) {
	if i == nil {
		return
	}
	where := ""
	if i.Secure {
		where = ", inside TLS on both sides"
	}
	fmt.Fprintf(w, "\n%d × %d sessions that are idle after EHLO%s\n\n", i.Rounds, i.Sessions, where)
	fmt.Fprintln(w, "\tresident KiB/session\t× haproxy\t\tresident MiB in all\tkernel KiB/session\tof it the subject's")
	direct := i.find("direct")
	for _, s := range i.Subjects {
		ratio, share := "\t", ""
		if s.HAProxy.Median > 0 && s.Name != "haproxy" && s != direct {
			ratio = s.HAProxy.String()
		}
		if direct != nil && s != direct {
			share = fmt.Sprintf("%.1f", (s.Median.Kernel-direct.Median.Kernel)/1024)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%.1f\t%.1f\t%s\n", s.Name, s.Median.Resident/1024, ratio, s.Median.All/1024/1024, s.Median.Kernel/1024, share)
	}
	fmt.Fprintln(w, "\nThe kernel's memory is that of all slabs of the machine.")
}

// print writes how long sessions take: median and 99th percentile of each part.
func (l *Latency) print(w io.Writer) {
	if l == nil {
		return
	}
	fmt.Fprintf(w, "\n%d × %d sessions with one message of %d octets, %d at once: µs, median / 99 %%\n\n", l.Rounds, l.Sessions, l.Octets, l.Parallel)
	fmt.Fprint(w, "\tsession\tadded")
	for n := range ends.Steps {
		fmt.Fprintf(w, "\t%s", ends.Step(n))
	}
	fmt.Fprintln(w)
	for _, s := range l.Subjects {
		fmt.Fprintf(w, "%s\t%s\t%+.0f", s.Name, s.Whole, s.Added)
		for _, q := range s.Steps {
			fmt.Fprintf(w, "\t%s", q)
		}
		fmt.Fprintln(w)
	}
}

// String returns one column.
func (q Quantiles) String() string { return fmt.Sprintf("%.0f / %.0f", q.Median, q.P99) }

// print writes how long connections take to be there.
func (c *Connect) print(w io.Writer) {
	if c == nil {
		return
	}
	fmt.Fprintf(w, "\n%d × %d connections to the origin's address, one at a time, from %d addresses: µs of connect(2)\n\n", c.Rounds, c.Connections, c.Sources)
	fmt.Fprintln(w, "\t10 %\tmedian\t90 %\tbeyond direct\t\tbeyond skip\t")
	for _, s := range c.Ways {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%s\t%s\n", s, s.P10, s.Median, s.P90, s.Direct.beyond(), s.Skip.beyond())
	}
	fmt.Fprintln(w, "\nDifferences are of the medians of the same round; behind them the least and the most of all rounds.\nTracked: the gateway has a rule "+
		"-m conntrack --ctstate INVALID -j DROP in FORWARD.")
}

// beyond returns the columns of a difference.
func (s *Spread) beyond() string {
	if s == nil {
		return "\t"
	}
	return fmt.Sprintf("%+.1f\t(%+.1f to %+.1f)", s.Median, s.Least, s.Most)
}

// others returns the greatest part of the machine's CPU that other programs
// used in any measurement.
func (r *Results) others() (worst float64) {
	for _, c := range r.Sections {
		for _, s := range c.Subjects {
			worst = max(worst, s.Others)
		}
	}
	for _, l := range []*Latency{r.Latency, r.Crowd} {
		if l == nil {
			continue
		}
		for _, s := range l.Subjects {
			worst = max(worst, s.Others)
		}
	}
	if r.Connect != nil {
		for _, s := range r.Connect.Ways {
			worst = max(worst, s.Others)
		}
	}
	return worst
}

// warn says when others were at work too.
func (r *Results) warn(w io.Writer) {
	if worst := r.others(); worst > noticeable {
		fmt.Fprintf(w, "\nSomething else used up to %.0f %% of the CPU meanwhile: measure again on a machine at rest.\n", 100*worst)
	}
}

// printCounts writes what can be counted.
func (r *Results) printCounts(w io.Writer) {
	if len(r.Counts) == 0 {
		return
	}
	fmt.Fprintln(w, "\nper session, one at a time\tsystem calls\tcontext switches\tpackets\tallocations")
	for _, c := range r.Counts {
		allocations := ""
		if c.Allocations > 0 {
			allocations = fmt.Sprintf("%.1f", c.Allocations)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%s\n", c.Subject, c.SystemCalls, c.ContextSwitches, c.Packets, allocations)
	}
}

// printPackets writes what the BPF programs took.
func (r *Results) printPackets(w io.Writer) {
	if len(r.Packets) == 0 {
		return
	}
	fmt.Fprintln(w, "\npackets\tprogram\truns\tns/run\tof it its own")
	for _, p := range r.Packets {
		whose := "not ours"
		if p.Ours {
			whose = "ours"
		}
		fmt.Fprintf(w, "%s: %s\t%s\t%d\t%.0f\t%.0f\n", whose, p.Traffic, p.Program, p.Runs, p.Nanoseconds, p.Net)
	}
	fmt.Fprintln(w, "\nThe kernel's statistics of BPF programs count their own reading of the clock: what a program\nthat does nothing takes by them is no cost of the others.")
}

// printAims sets what portreeve wants to be beside what it is.
func (r *Results) printAims(w io.Writer) {
	if len(r.Aims) == 0 {
		return
	}
	fmt.Fprintln(w, "\nportreeve\taim\tmeasured")
	for _, a := range r.Aims {
		fmt.Fprintf(w, "%s\t%s\t%.2f\n", a.What, a.bound(), a.Measured)
	}
}
