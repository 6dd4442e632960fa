package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// noticeable is the share of the machine's work by others from which on the
// reader is warned.
const noticeable = 0.1

// print writes the results for a reader.
func (r *Results) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%d × %d sessions with one message of %d octets, %d at once, from %d addresses\nLinux %s, %d × %s\n\n",
		r.Load.Rounds, r.Load.Sessions, r.Load.Octets, r.Load.Parallel, r.Load.Sources, r.Machine.Kernel, r.Machine.Processors, r.Machine.Processor)
	fmt.Fprintln(w, "\tsessions/s\tCPU/session\tof it its own\t× haproxy\t\t× direct\t")
	for _, s := range r.Subjects {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f µs\t%.0f µs\t%s\t%s\n", s.Name, s.Median.Rate, s.Median.Machine, s.Median.Subject,
			r.ratio(s.Name, "haproxy"), r.ratio(s.Name, "direct"))
	}
	fmt.Fprintln(w, "\nMedians; behind the ratios the least and the most of all rounds. CPU is that of the whole\nmachine, with load and origin. portreeve's records go to a file.")
	r.warn(w)
	r.printPackets(w)
	return w.Flush()
}

// ratio returns the columns of one comparison.
func (r *Results) ratio(name, to string) string {
	i := slices.IndexFunc(r.Ratios, func(q Ratio) bool { return q.Subject == name && q.To == to })
	if i < 0 || name == to {
		return "\t"
	}
	q := r.Ratios[i]
	return fmt.Sprintf("%.2f\t(%.2f–%.2f)", q.Median, q.Least, q.Most)
}

// warn says when others were at work too, and what the ratios are without them.
func (r *Results) warn(w io.Writer) {
	var worst float64
	for _, s := range r.Subjects {
		for _, m := range s.Rounds {
			worst = max(worst, m.others())
		}
	}
	if worst <= noticeable {
		return
	}
	fmt.Fprintf(w, "\nSomething else used up to %.0f %% of the CPU meanwhile: measure again on a machine at rest.\n", 100*worst)
	for _, q := range r.Ratios {
		if q.To == "haproxy" && q.Subject != q.To {
			fmt.Fprintf(w, "Counting the benchmark's processes alone, %s takes %.2f × %s.\n", q.Subject, q.Own, q.To)
		}
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
