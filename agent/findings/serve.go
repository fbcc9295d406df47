package findings

import (
	"context"
	"errors"
	"fmt"

	"waxseal/measure/wire"
)

// Server tells findings to those who follow over the network.
type Server struct {
	Book *Book // nil: nothing is watched
}

// Follow implements wire.FindingServer.
func (s Server) Follow(ctx context.Context, tell func(wire.Told) error) error {
	if s.Book == nil {
		return fmt.Errorf("%w: this device watches no traffic", wire.ErrNotFound)
	}
	f, err := s.Book.Follow()
	if errors.Is(err, ErrFollowers) {
		return fmt.Errorf("%w: %w", wire.ErrBusy, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, more := <-f.Entries():
			if !more {
				return fmt.Errorf("%w: too slow to be told everything: ask again for what is open", wire.ErrRetry)
			}
			if err := tell(wire.Told{Name: e.Name, Content: e.Content, Index: int64(e.Index), Problem: e.Problem}); err != nil {
				return err
			}
		}
	}
}
