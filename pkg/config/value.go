package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The methods here turn one raw value into what it means. Each says what is
// wrong in a sentence and then leaves *dst as it was; an absent value leaves
// the default.

// absent reports whether there is no value to look at: none was given, or its
// shape was refused already.
func (r *report) absent(at path, v scalar) bool { return v == nil || r.reported[at] }

// text returns a printable string.
func (r *report) text(at path, v scalar) (string, bool) {
	if r.absent(at, v) {
		return "", false
	}
	switch v := v.(type) {
	case string:
		if c, bad := unprintable(v); bad {
			r.refuse(at, "remove it", "has the unprintable character %U", c)
			return "", false
		}
		return v, true
	default:
		r.refuse(at, "put it in quotes", "%s is %s where text is expected", r.show(at, v), typeName(v))
		return "", false
	}
}

// texts returns the printable strings of a list with their places.
func (r *report) texts(at path, list []scalar) []located[string] {
	if r.reported[at] {
		return nil
	}
	var all []located[string]
	for i, v := range list {
		if s, ok := r.text(at.item(i), v); ok {
			all = append(all, located[string]{at.item(i), s})
		}
	}
	return all
}

// located is a value with the place where the file has it.
type located[T any] struct {
	at    path
	value T
}

// number reads a whole number from lo to hi, also in the notations 0x, 0o and
// 0b.
func number[T uint16 | uint32 | int](r *report, at path, v scalar, lo, hi uint64, dst *T) {
	if r.absent(at, v) {
		return
	}
	n, err := strconv.ParseUint(digits(v), 0, 64)
	if err != nil || n < lo || n > hi {
		r.refuse(at, defaultRemedy(*dst), "%s is not a whole number from %d to %d", r.show(at, v), lo, hi)
		return
	}
	*dst = T(n)
}

// digits is the text of a whole number, empty when v is something else.
// Leading zeros, which strconv would read as octal, make no number.
func digits(v scalar) string {
	switch v := v.(type) {
	case string:
		if octal(v) {
			return ""
		}
		return v
	case int, int64, uint64:
		return fmt.Sprint(v)
	}
	return ""
}

// gib is a GiB in octets.
const gib = 1 << 30

// octets reads 0 or an amount from lo to some GiB, in octets or with one of the
// units KiB, MiB and GiB.
func octets(r *report, at path, v scalar, lo, hi uint64, dst *int64) {
	if r.absent(at, v) {
		return
	}
	n, ok := parseOctets(digits(v))
	switch {
	case ok && n <= hi && (n == 0 || n >= lo):
		*dst = int64(n)
	case lo > 1:
		r.refuse(at, defaultRemedy(*dst), "%s is neither 0 nor a number of octets from %d to %dGiB", r.show(at, v), lo, hi/gib)
	default:
		r.refuse(at, defaultRemedy(*dst), "%s is not a number of octets from 0 to %dGiB", r.show(at, v), hi/gib)
	}
}

func parseOctets(s string) (n uint64, ok bool) {
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if before, found := strings.CutSuffix(s, unit); found {
			s, shift = before, 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 0, 64-shift)
	return n << shift, err == nil && !octal(s)
}

// truth reads true or false.
func truth(r *report, at path, v scalar, dst *bool) {
	if r.absent(at, v) {
		return
	}
	switch v {
	case true, "true":
		*dst = true
	case false, "false":
		*dst = false
	default:
		r.refuse(at, "write true or false", "%s is not a truth value", r.show(at, v))
	}
}

// duration reads a time with its unit, from lo to hi; hi 0 means no limit.
func (r *report) duration(at path, v scalar, lo, hi time.Duration, dst *time.Duration) {
	if r.absent(at, v) {
		return
	}
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	n, unitless := strconv.ParseUint(digits(v), 10, 64)
	switch {
	case unitless == nil && n > 0:
		r.refuse(at, fmt.Sprintf(`write "%ds" for seconds`, n), "%s is a time without a unit", r.show(at, v))
	case err != nil:
		r.refuse(at, `write it as "500ms", "30s" or "1m30s"`, "%s is not a time", r.show(at, v))
	case d < lo && hi == 0:
		r.refuse(at, defaultRemedy(*dst), "%s is not a time above 0", r.show(at, v))
	case d < lo || hi != 0 && d > hi:
		r.refuse(at, defaultRemedy(*dst), "%s is not a time from %s to %s", r.show(at, v), brief(lo), brief(hi))
	default:
		*dst = d
	}
}

// defaultRemedy reminds of the default.
func defaultRemedy(v any) string {
	if d, ok := v.(time.Duration); ok {
		v = brief(d)
	}
	return fmt.Sprintf("leave it out to have the default, %v", v)
}

// brief prints a time without the zeros that time.Duration ends with.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// word reads one of a few words.
func word[T ~uint8](r *report, at path, v scalar, words []string, dst *T) {
	if r.absent(at, v) {
		return
	}
	if s, ok := v.(string); ok {
		if c, ok := choice[T](words, s); ok {
			*dst = c
			return
		}
	}
	r.refuse(at, wordRemedy(v, words), "%s is not one of %s", r.show(at, v), strings.Join(words, ", "))
}

func wordRemedy(v scalar, words []string) string {
	if near := nearest(strings.ToLower(fmt.Sprint(v)), words); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "write one of them"
}

// show repeats the value at a path in a message as it was written.
func (r *report) show(at path, v scalar) string {
	if s, ok := v.(string); ok {
		return quote(s)
	}
	return printable(r.spelt[at])
}

func typeName(v scalar) string {
	switch v.(type) {
	case int, int64, uint64, float64:
		return "a number"
	case bool:
		return "a truth value"
	case time.Time:
		return "a date"
	}
	return "not text"
}
