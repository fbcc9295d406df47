package challenge

import (
	"context"
	"crypto/sha256"
	"fmt"

	"waxseal/measure/wire"
)

// Source gives contents by their SHA-256; *Contents is one. What it does not
// have is an error that wraps wire.ErrNotFound.
type Source interface {
	Content(ctx context.Context, sum [sha256.Size]byte) ([]byte, error)
}

// Server implements wire.ContentServer.
type Server struct {
	Source Source             // nil: nothing is kept
	State  func() wire.Status // whether the device can attest, now
}

var _ wire.ContentServer = Server{}

// Content implements wire.ContentServer.
func (s Server) Content(ctx context.Context, sum [sha256.Size]byte) ([]byte, error) {
	if s.Source == nil {
		return nil, fmt.Errorf("content %x: %w", sum, wire.ErrNotFound)
	}
	return s.Source.Content(ctx, sum)
}

// Status implements wire.ContentServer.
func (s Server) Status(context.Context) (wire.Status, error) { return s.State(), nil }
