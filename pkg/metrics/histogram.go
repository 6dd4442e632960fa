package metrics

import (
	"sync/atomic"
	"time"
)

// limits are the upper ends of a histogram's buckets: fine where an origin
// answers at once, coarse where timeouts are, up to the longest of a session's
// usual life.
var limits = [...]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
	5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
	5 * time.Minute, 10 * time.Minute, time.Hour,
}

// histogram counts durations by size. The zero value is empty.
type histogram struct {
	buckets [len(limits) + 1]atomic.Uint64 // by limit; the last has none
	sum     atomic.Int64                   // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(limits) && d > limits[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// read returns the number of durations, their sum in seconds, and how many were
// not longer than each limit. The number is that of the buckets, so that the two
// agree while others count.
func (h *histogram) read() (count uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(limits))
	for i, limit := range limits {
		count += h.buckets[i].Load()
		upTo[limit.Seconds()] = count
	}
	count += h.buckets[len(limits)].Load()
	return count, time.Duration(h.sum.Load()).Seconds(), upTo
}
