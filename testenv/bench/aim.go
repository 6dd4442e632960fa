package main

import "fmt"

// Aim is what portreeve wants to be, and what was measured of that.
type Aim struct {
	What     string  `json:"what"`
	AtMost   float64 `json:"at_most,omitempty"`
	AtLeast  float64 `json:"at_least,omitempty"`
	Measured float64 `json:"measured"`
}

// bound returns the aim as a reader wants it.
func (a Aim) bound() string {
	if a.AtLeast > 0 {
		return fmt.Sprintf("≥ %g", a.AtLeast)
	}
	return fmt.Sprintf("≤ %g", a.AtMost)
}

// judge sets each aim beside its figure, where that was measured.
func (r *Results) judge() {
	for _, c := range r.Sections {
		q := c.ratio("portreeve", "haproxy")
		if q == nil {
			continue
		}
		switch c.Name {
		case "sessions":
			r.aim(Aim{What: "CPU per session, × haproxy", AtMost: 1.25, Measured: q.CPU.Median})
			r.aim(Aim{What: "the same, in the end", AtMost: 1, Measured: q.CPU.Median})
		case "tls":
			r.aim(Aim{What: "CPU per session inside TLS, × haproxy", AtMost: 1.25, Measured: q.CPU.Median})
		case "large":
			r.aim(Aim{What: "throughput of large messages, × haproxy", AtLeast: 1, Measured: q.Rate.Median})
		}
	}
	if r.Idle != nil {
		r.judgeIdle()
	}
	r.judgeConnect()
	r.judgePackets()
}

// judgeConnect takes the worse of what FORWARD costs, without and with a firewall
// that tracks.
func (r *Results) judgeConnect() {
	if r.Connect == nil {
		return
	}
	for _, tracked := range []bool{false, true} {
		s := r.Connect.series("portreeve", tracked)
		if s != nil && s.Skip != nil {
			r.aim(Aim{What: fmt.Sprintf("µs of connect(2) by way of FORWARD%s", tracking(tracked)), AtMost: 5, Measured: s.Skip.Median})
		}
	}
}

func (r *Results) judgeIdle() {
	s := r.Idle.find("portreeve")
	if s == nil {
		return
	}
	r.aim(Aim{What: "resident KiB per idle session", AtMost: 10, Measured: s.Median.Resident / 1024})
	if s.HAProxy.Median > 0 {
		r.aim(Aim{What: "the same, × haproxy", AtMost: 1, Measured: s.HAProxy.Median})
	}
}

// judgePackets takes the kind of packets that costs most, of ours and of others.
func (r *Results) judgePackets() {
	if len(r.Packets) == 0 {
		return
	}
	var ours, foreign float64
	for _, p := range r.Packets {
		if p.Ours {
			ours = max(ours, r.perPacket(p.Traffic))
		} else {
			foreign = max(foreign, r.perPacket(p.Traffic))
		}
	}
	r.aim(Aim{What: "ns of steering per packet that is not ours", AtMost: 60, Measured: foreign})
	r.aim(Aim{What: "ns of steering per packet of ours", AtMost: 170, Measured: ours})
}

// perPacket returns what all programs together took for a packet of one kind. Each
// packet meets steer_client or steer_origin where it comes in, and others on its
// way. What has gone round by steer_loop meets steer_client twice.
func (r *Results) perPacket(traffic string) float64 {
	var took, packets float64
	for _, p := range r.Packets {
		if p.Traffic != traffic || p.Program == counting {
			continue
		}
		took += p.Net * float64(p.Runs)
		switch p.Program {
		case "steer_client", "steer_origin":
			packets += float64(p.Runs)
		case "steer_loop":
			packets -= float64(p.Runs)
		}
	}
	if packets == 0 {
		return 0
	}
	return took / packets
}

func (r *Results) aim(a Aim) { r.Aims = append(r.Aims, a) }
