package boot

import (
	"errors"
	"fmt"
)

// ErrPanic means that measuring failed on what it read, in a way that nobody
// foresaw. It never takes process 1 with it.
var ErrPanic = errors.New("measuring panicked")

// guarded calls f and turns its panic into an error by which the PCRs are
// capped as incomplete.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %w: %v", ErrIncomplete, ErrPanic, p)
		}
	}()
	return f()
}
