package hook

import (
	"context"
	"time"

	"waxseal/agent/mirror"
)

// overrun remembers that notifications were lost: the devices are listed again.
func (g *Guard) overrun() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missed = true
}

// listEvery bounds how often the devices are listed after lost notifications.
const listEvery = time.Second

// round looks at every port once and says what it found.
func (g *Guard) round(ctx context.Context) []mirror.Observation {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	now := time.Now()
	if g.missed && now.Sub(g.listed) >= listEvery {
		g.listed = now
		g.missed = g.resync(ctx) != nil
	}
	return nil
}
