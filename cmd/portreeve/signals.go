package main

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// errSignal is why a verb ended in the middle of its work.
var errSignal = errors.New("a signal has ended it")

// heedSignals returns a context that ends with the first signal that asks for an end. A
// second one kills.
func heedSignals(ctx context.Context) context.Context {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}

// endAtOnce lets the first signal end the process, wherever it is: while it only looks
// there is nothing that it had to bring to an end.
func endAtOnce(ctx context.Context) error {
	signal.Reset(os.Interrupt, unix.SIGTERM)
	return halted(ctx)
}

// halted returns errSignal where a signal came before.
func halted(ctx context.Context) error {
	if ctx.Err() != nil {
		return errSignal
	}
	return nil
}
