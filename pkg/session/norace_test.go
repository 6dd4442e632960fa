//go:build !race

package session

// A garbage collection may empty the pools in between.
const allocationsPerMessage = 0.05
