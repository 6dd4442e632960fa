//go:build race

package session

// The race detector makes sync.Pool forget on purpose.
const allocationsPerMessage = 10
